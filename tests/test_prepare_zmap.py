"""Z maps against atlases whose truth is written down."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.transform import Rotation

from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.data.loading import LoadedImages
from neoseg.errors import GeometryError, InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.prepare.atlas import Atlas, Calibration
from neoseg.prepare.case import physical_maps
from neoseg.prepare.configs import PrepareConfig
from neoseg.prepare.volume_steps import Brain, zmap_of
from neoseg.prepare.zmap import ZmapConfig, masked_smoothing, t_to_normal, zmap, zmap_with_coverage
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.transforms import Affine, grid_points
from neoseg.volume import Grid, Volume, upright

IDENTITY = Affine.identity()
PLAIN = ZmapConfig(smooth_mm=0, calibrate=False)
RAW = ZmapConfig(calibrate=False)


def ball_atlas() -> Atlas:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = -50
    grid = Grid((51, 51, 51), affine)
    place = grid_points(grid)
    inside = (np.linalg.norm(place, axis=1) < 40).reshape(grid.shape)
    mean = np.where(inside, (1300 + place @ [3.0, -2.0, 1.0]).reshape(grid.shape), 0)
    sd = np.where(inside, 120.0, 0)
    maps = [Volume(a[None].astype(np.float32), grid) for a in (mean, sd)]
    return Atlas(*maps, mask=Volume(inside[None].astype(np.uint8), grid), count=20, unit="1e-6 mm2/s")


def subject(transform: Affine, z: float, radius: float = 35.0) -> tuple[Volume, np.ndarray]:
    """A scan on an oblique, flipped grid that lies z standard deviations from the ball atlas everywhere."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix() @ np.diag([-1.5, 1.5, 4.0])
    centre = transform.inverse().points(np.zeros((1, 3)))[0]
    affine[:3, 3] = centre - affine[:3, :3] @ [30, 30, 11]
    grid = Grid((61, 61, 23), affine)
    place = transform.points(grid_points(grid))
    inside = (np.linalg.norm(place, axis=1) < radius).reshape(grid.shape)
    adc = (1300 + place @ [3.0, -2.0, 1.0] + 120 * z).reshape(grid.shape)
    return Volume(np.where(inside, adc, 0)[None].astype(np.float32), grid), inside


def test_z_is_exact_through_a_known_transform_on_an_oblique_grid() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0, 0.2, 0.4]).as_matrix() * 1.1
    matrix[:3, 3] = [5, -20, 8]
    adc, inside = subject(Affine(matrix), -2.5)
    for config in (PLAIN, RAW):
        z = zmap(adc, inside, ball_atlas(), Affine(matrix), config)
        assert z.array.dtype == np.float32
        assert np.allclose(z.array[0][inside], -2.5, atol=1e-2)
        assert np.array_equal(z.array[0][~inside], np.zeros((~inside).sum()))


def test_a_lesion_shows_where_it_was_written() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    lesion = (np.linalg.norm(grid_points(adc.grid) - [10, 5, 0], axis=1) < 8).reshape(inside.shape)
    adc.array[0][lesion] *= 0.6
    z = zmap(adc, inside, ball_atlas(), IDENTITY, RAW).array[0]
    assert np.median(z[lesion]) < -3
    assert np.abs(z[inside & ~lesion]).mean() < 0.3
    assert abs(float((z < -2).sum()) - lesion.sum()) < 0.35 * lesion.sum()


def test_clip_and_sd_floor() -> None:
    adc, inside = subject(IDENTITY, 20.0)
    assert zmap(adc, inside, ball_atlas(), IDENTITY, PLAIN).array.max() == 10
    atlas = ball_atlas()
    flat = Atlas(atlas.mean, atlas.sd.with_array(np.zeros_like(atlas.sd.array)), atlas.mask, count=20, unit="")
    adc, inside = subject(IDENTITY, 1.0)
    z = zmap(adc, inside, flat, IDENTITY, ZmapConfig(smooth_mm=0, sd_floor=0.1, calibrate=False)).array[0][inside]
    floor = 0.1 * atlas.mean.array[0][atlas.inside].mean()
    assert np.allclose(z, 120 / floor, rtol=0.01)


def test_brain_outside_the_atlas_is_zero_and_counted() -> None:
    adc, inside = subject(IDENTITY, 3.0, radius=44.0)
    found = zmap_with_coverage(adc, inside, ball_atlas(), IDENTITY, PLAIN)
    place = np.linalg.norm(grid_points(adc.grid), axis=1).reshape(inside.shape)
    assert np.array_equal(found.volume.array[0][inside & (place > 43)], np.zeros((inside & (place > 43)).sum()))
    assert found.uncovered == pytest.approx((inside & (place > 40)).sum() / inside.sum(), abs=0.02)
    assert found.warning is not None
    assert "outside the atlas" in found.warning
    adc, inside = subject(IDENTITY, 3.0)
    assert zmap_with_coverage(adc, inside, ball_atlas(), IDENTITY, PLAIN).warning is None


def test_smoothing_keeps_a_constant_to_the_rim_and_the_background_out() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((20, 20, 12), bool)
    mask[3:17, 4:15, 2:9] = rng.random((14, 11, 7)) > 0.2
    image = np.where(mask, 4.0, 1000.0).astype(np.float32)
    smooth = masked_smoothing(image, mask, (1.0, 1.0, 2.0), 3.0)
    assert np.allclose(smooth[mask], 4.0, atol=1e-4)
    assert np.array_equal(smooth[~mask], np.zeros((~mask).sum()))
    dot = np.zeros((41, 41, 41), np.float32)
    dot[20, 20, 20] = 1
    line = masked_smoothing(dot, np.ones(dot.shape, bool), (0.5, 0.5, 0.5), 4.0)[:, 20, 20]
    assert line[16] == pytest.approx(line[20] / 2, rel=0.02)


def test_small_sample_correction_turns_t_into_normal() -> None:
    rng = np.random.default_rng(1)
    group, new = rng.normal(size=(8, 20000)), rng.normal(size=20000)
    t = (new - group.mean(axis=0)) / group.std(axis=0, ddof=1)
    z = t_to_normal(t, 8)
    assert t.std() > 1.2
    assert z.std() == pytest.approx(1, abs=0.02)
    assert (z < -2).mean() == pytest.approx(0.02275, abs=0.004)
    assert np.all(np.diff(t_to_normal(np.linspace(-30, 30, 601), 8)) > 0)


def test_a_calibrated_map_is_divided_by_what_healthy_heads_left_out_have() -> None:
    known = Calibration(
        smooth_mm=(0, 2, 4), plain=(1.25, 0.8, 0.5), small_sample=(1.0, 0.7, 0.4), sd_floor=0.03, heads=20
    )
    atlas = replace(ball_atlas(), calibration=known)
    adc, inside = subject(IDENTITY, -2.0)
    for config, scale in (
        (ZmapConfig(smooth_mm=0), 1.25),
        (ZmapConfig(), 0.8),
        (ZmapConfig(smooth_mm=3), 0.65),
        (ZmapConfig(calibrate=False), 1.0),
    ):
        found = zmap_with_coverage(adc, inside, atlas, IDENTITY, config)
        assert found.scale == pytest.approx(scale)
        assert np.allclose(found.volume.array[0][inside], -2 / scale, atol=0.02)
        assert found.warning is None
    small = zmap_with_coverage(adc, inside, atlas, IDENTITY, ZmapConfig(smooth_mm=0, small_sample=True))
    assert small.volume.array[0][inside].mean() == pytest.approx(float(t_to_normal(np.array([-2.0]), 20)[0]), abs=0.01)
    with pytest.raises(InputError, match="smooth_mm is 9"):
        zmap(adc, inside, atlas, IDENTITY, ZmapConfig(smooth_mm=9))
    other = zmap_with_coverage(adc, inside, atlas, IDENTITY, ZmapConfig(sd_floor=0.05)).warning
    assert other is not None
    assert "sd_floor = 0.03, but it is 0.05" in other
    without = zmap_with_coverage(adc, inside, ball_atlas(), IDENTITY, ZmapConfig())
    assert without.scale == 1
    assert without.warning is not None
    assert "not calibrated" in without.warning


def test_the_small_sample_correction_minds_how_many_heads_cover_a_voxel() -> None:
    counts = np.where(grid_points(ball_atlas().grid)[:, 0] > 0, 20, 5).astype(np.uint16)
    atlas = ball_atlas()
    atlas = replace(atlas, counts=Volume(counts.reshape(1, *atlas.grid.shape), atlas.grid))
    adc, inside = subject(IDENTITY, -3.0)
    z = zmap(adc, inside, atlas, IDENTITY, ZmapConfig(smooth_mm=0, calibrate=False, small_sample=True)).array[0][inside]
    right = grid_points(adc.grid)[inside.ravel()][:, 0] > 3
    few, many = (float(t_to_normal(np.array([-3.0]), n)[0]) for n in (5, 20))
    assert few > many + 0.3
    assert np.median(z[right]) == pytest.approx(many, abs=0.02)
    assert np.median(z[~right]) == pytest.approx(few, abs=0.02)


def test_a_scan_in_another_unit_is_refused() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    for factor in (1e-3, 1e-6, 5.0):
        scan = adc.with_array(adc.array * np.float32(factor))
        with pytest.raises(InputError, match="another unit"):
            zmap(scan, inside, ball_atlas(), IDENTITY)


def test_bad_input_has_words() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    with pytest.raises(InputError, match="brain mask"):
        zmap(adc, np.zeros_like(inside), ball_atlas(), IDENTITY)
    with pytest.raises(GeometryError, match="mask of its shape"):
        zmap(adc, inside[1:], ball_atlas(), IDENTITY)


@pytest.mark.parametrize(
    ("rounds", "deforms", "words"),
    [
        (2, False, "calibrated with a free-form deformation, but the scan is registered without one"),
        (0, True, "calibrated without a free-form deformation, but the scan is registered with one"),
        (2, True, None),
        (0, False, None),
        (2, None, None),
        (None, False, None),
    ],
)
def test_a_scan_is_registered_as_the_heads_that_the_atlas_was_calibrated_with(
    rounds: int | None, deforms: bool | None, words: str | None
) -> None:
    known = Calibration(smooth_mm=(0, 2), plain=(1.2, 0.8), small_sample=(1.0, 0.7), sd_floor=0.03, heads=20)
    made = {} if rounds is None else {"config": {"rounds": rounds}}
    atlas = replace(ball_atlas(), calibration=known, provenance=made)
    adc, inside = subject(IDENTITY, 0.0)
    told = zmap_with_coverage(adc, inside, atlas, IDENTITY, deforms=deforms).warning
    assert (told is None) if words is None else words in str(told)
    plain = zmap_with_coverage(adc, inside, atlas, IDENTITY, ZmapConfig(calibrate=False), deforms=deforms)
    assert plain.warning is None


@pytest.mark.parametrize("ffd", [None, FfdConfig(grid_mm=(30.0,), image_mm=(8.0,), iterations=2)])
def test_an_affine_z_map_of_an_atlas_that_was_deformed_has_a_warning(ffd: FfdConfig | None) -> None:
    known = Calibration(smooth_mm=(0, 2), plain=(1.2, 0.8), small_sample=(1.0, 0.7), sd_floor=0.03, heads=20)
    atlas = replace(ball_atlas(), calibration=known, provenance={"config": {"rounds": 2}})
    adc, inside = subject(IDENTITY, 0.0)
    config = PrepareConfig(affine=None, ffd=ffd, zmap=ZmapConfig())
    made = physical_maps(LoadedImages(adc, ("adc",), ()), config, atlas, want=("adc", "zadc"))
    alone = zmap_of(Brain(adc, inside), atlas, config)
    for warnings in (made.warnings, alone.warnings):
        assert any("the scan is registered without one" in told for told in warnings) is (ffd is None)


@pytest.mark.slow
def test_the_lesion_of_a_phantom_has_the_lowest_z_and_an_own_z_map_is_not_made_again() -> None:
    """The atlas is built from six heads, the lesion is found from the scan alone, millimetres from where it is."""
    config = AtlasConfig(
        spacing_mm=3.0,
        rounds=1,
        affine=AffineConfig(levels_mm=(6.0,), turn_degrees=0),
        ffd=FfdConfig(grid_mm=(24.0,), image_mm=(4.0,), iterations=15),
    )
    heads = [make_head(g, HeadConfig(), lesion_burden=None) for g in np.random.default_rng(7).spawn(6)]
    atlas = build_atlas([Volume(h.adc.array, upright(h.adc.grid)) for h in heads], config)
    for seed, burden in ((1, 3.0), (2, 12.0)):
        head = make_head(np.random.default_rng([99, seed]), HeadConfig(), lesion_burden=burden)
        image = Volume(head.adc.array, head.adc.grid)
        prepare = PrepareConfig(affine=config.affine, ffd=config.ffd, zmap=ZmapConfig())
        found = physical_maps(LoadedImages(image, ("adc",), ()), prepare, atlas, want=("adc", "zadc"))
        z, lesion = found.image.array[1], head.label.array[0] > 0
        lowest = np.unravel_index(int(np.argmin(np.where(found.mask, z, 0))), z.shape)
        away = ndimage.distance_transform_edt(~lesion, sampling=head.adc.grid.spacing)
        assert away[lowest] <= 2.0
        core = head.lesion.array[0] > 0.95
        assert np.median(z[core]) < np.percentile(z[found.mask & ~lesion], 10)
        own = np.full_like(z, -1.5)
        both = LoadedImages(Volume(np.stack([head.adc.array[0], own]), head.adc.grid), ("adc", "zadc"), ())
        kept = physical_maps(both, prepare, atlas, want=("adc", "zadc"))
        assert np.array_equal(kept.image.array[1], own)
        assert "outside_atlas_share" not in kept.facts


def test_a_z_map_of_the_data_set_is_used_as_it_is() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    own = np.where(inside, -1.25, 0).astype(np.float32)
    both = LoadedImages(Volume(np.stack([adc.array[0], own]), adc.grid), ("adc", "zadc"), ())
    kept = physical_maps(both, PrepareConfig(zmap=ZmapConfig()), None, want=("zadc", "adc"))
    assert np.array_equal(kept.image.array[0], own)
    alone = LoadedImages(adc, ("adc",), ())
    with pytest.raises(InputError, match="no Z image, and no atlas"):
        physical_maps(alone, PrepareConfig(zmap=ZmapConfig()), None, want=("zadc", "adc"))
