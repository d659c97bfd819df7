"""Z maps against atlases whose truth is written down."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from neoseg.errors import GeometryError, InputError
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.zmap import ZmapConfig, masked_smoothing, t_to_normal, zmap, zmap_with_coverage
from neoseg.register.transforms import Affine, grid_points
from neoseg.volume import Grid, Volume

IDENTITY = Affine.identity()
PLAIN = ZmapConfig(smooth_mm=0)


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
    for config in (PLAIN, ZmapConfig()):
        z = zmap(adc, inside, ball_atlas(), Affine(matrix), config)
        assert z.array.dtype == np.float32
        assert np.allclose(z.array[0][inside], -2.5, atol=1e-2)
        assert np.array_equal(z.array[0][~inside], np.zeros((~inside).sum()))


def test_a_lesion_shows_where_it_was_written() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    lesion = (np.linalg.norm(grid_points(adc.grid) - [10, 5, 0], axis=1) < 8).reshape(inside.shape)
    adc.array[0][lesion] *= 0.6
    z = zmap(adc, inside, ball_atlas(), IDENTITY).array[0]
    assert np.median(z[lesion]) < -3
    assert np.abs(z[inside & ~lesion]).mean() < 0.3
    assert abs(float((z < -2).sum()) - lesion.sum()) < 0.35 * lesion.sum()


def test_clip_and_sd_floor() -> None:
    adc, inside = subject(IDENTITY, 50.0)
    assert zmap(adc, inside, ball_atlas(), IDENTITY, PLAIN).array.max() == 10
    atlas = ball_atlas()
    flat = Atlas(atlas.mean, atlas.sd.with_array(np.zeros_like(atlas.sd.array)), atlas.mask, count=20, unit="")
    adc, inside = subject(IDENTITY, 1.0)
    z = zmap(adc, inside, flat, IDENTITY, ZmapConfig(smooth_mm=0, sd_floor=0.1)).array[0][inside]
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


def test_bad_input_has_words() -> None:
    adc, inside = subject(IDENTITY, 0.0)
    with pytest.raises(InputError, match="brain mask"):
        zmap(adc, np.zeros_like(inside), ball_atlas(), IDENTITY)
    with pytest.raises(GeometryError, match="mask of its shape"):
        zmap(adc, inside[1:], ball_atlas(), IDENTITY)
