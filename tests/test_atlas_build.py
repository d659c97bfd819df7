"""The atlas: its record on disk, and building it from a small healthy group."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.errors import InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.prepare.atlas import Atlas, Calibration
from neoseg.prepare.zmap import ZmapConfig, zmap
from neoseg.register.chain import register_heads
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.transforms import grid_points
from neoseg.volume import Grid, Volume, without_file

FAST = AtlasConfig(
    spacing_mm=3.0,
    rounds=1,
    affine=AffineConfig(levels_mm=(6.0,), turn_degrees=0),
    ffd=FfdConfig(grid_mm=(24.0,), image_mm=(4.0,), iterations=15),
)


def tiny_atlas() -> Atlas:
    rng = np.random.default_rng(0)
    grid = Grid.of_spacing((5, 6, 7), (2, 2, 2))
    mask = np.zeros((1, 5, 6, 7), np.uint8)
    mask[0, 1:4, 1:5, 1:6] = 1
    mean, sd = (Volume((rng.uniform(1, 2, mask.shape) * mask).astype(np.float32), grid) for _ in range(2))
    calibration = Calibration(
        smooth_mm=(0, 2, 4), plain=(1.0, 0.8, 0.6), small_sample=(0.9, 0.7, 0.5), sd_floor=0.03, heads=12
    )
    return Atlas(
        mean,
        sd,
        Volume(mask, grid),
        12,
        "1e-6 mm2/s",
        {"heads": 12, "note": "täst"},
        counts=Volume(11 * mask.astype(np.uint16), grid),
        regions=Volume(300 * mask.astype(np.uint16), grid),
        calibration=calibration,
    )


def test_an_atlas_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    atlas = tiny_atlas()
    atlas.save(tmp_path / "atlas")
    back = Atlas.load(tmp_path / "atlas")
    for name in ("mean", "sd", "mask", "counts", "regions"):
        assert np.array_equal(getattr(back, name).array, getattr(atlas, name).array)
        assert getattr(back, name).array.dtype == getattr(atlas, name).array.dtype
    assert back.calibration == atlas.calibration
    assert back.channel == "adc"
    assert np.array_equal(back.grid.affine, atlas.grid.affine)
    assert (back.count, back.unit, dict(back.provenance)) == (12, "1e-6 mm2/s", {"heads": 12, "note": "täst"})


def test_missing_and_damaged_atlases_have_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no atlas"):
        Atlas.load(tmp_path)
    tiny_atlas().save(tmp_path)
    (tmp_path / "atlas.npz").write_bytes((tmp_path / "atlas.npz").read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read"):
        Atlas.load(tmp_path)


def test_an_atlas_of_the_first_format_is_still_read(tmp_path: Path) -> None:
    tiny_atlas().save(tmp_path)
    words = json.loads((tmp_path / "atlas.json").read_text())
    for name in ("channel", "calibration"):
        del words[name]
    (tmp_path / "atlas.json").write_text(json.dumps(words | {"format": 1}))
    with np.load(tmp_path / "atlas.npz") as arrays:
        old = {name: arrays[name] for name in ("mean", "sd", "mask", "affine")}
    np.savez(tmp_path / "atlas.npz", **old)
    back = Atlas.load(tmp_path)
    assert (back.counts, back.regions, back.calibration, back.channel) == (None, None, None, "adc")
    (tmp_path / "atlas.json").write_text(json.dumps(words | {"format": 3}))
    with pytest.raises(InputError, match="format 3"):
        Atlas.load(tmp_path)


def test_an_atlas_of_another_kind_is_refused() -> None:
    tiny_atlas().require("adc", "1e-6 mm2/s")
    with pytest.raises(InputError, match=r"'t2w'.*same kind"):
        tiny_atlas().require("t2w", "1e-6 mm2/s")
    with pytest.raises(InputError, match="'mm2/s'"):
        tiny_atlas().require("adc", "mm2/s")


def test_a_calibration_is_read_between_its_widths_and_not_beyond() -> None:
    known = tiny_atlas().calibration
    assert known is not None
    assert known.spread(0, small_sample=False) == 1
    assert known.spread(3, small_sample=False) == pytest.approx(0.7)
    assert known.spread(1, small_sample=True) == pytest.approx(0.8)
    with pytest.raises(InputError, match=r"up to a smoothing of 4 mm, but smooth_mm is 5"):
        known.spread(5, small_sample=False)
    with pytest.raises(ValueError, match="rise from 0"):
        Calibration(smooth_mm=(1, 2), plain=(1, 1), small_sample=(1, 1), sd_floor=0.03, heads=5)
    with pytest.raises(ValueError, match="spread above 0"):
        Calibration(smooth_mm=(0, 2), plain=(1, 0), small_sample=(1, 1), sd_floor=0.03, heads=5)


def test_an_atlas_of_parts_that_do_not_fit_is_refused() -> None:
    good = tiny_atlas()
    with pytest.raises(InputError, match="below 0"):
        Atlas(good.mean, good.sd.with_array(-good.sd.array), good.mask, 12, "")
    with pytest.raises(InputError, match="empty"):
        Atlas(good.mean, good.sd, good.mask.with_array(0 * good.mask.array), 12, "")
    with pytest.raises(InputError, match="two subjects"):
        Atlas(good.mean, good.sd, good.mask, 1, "")
    other = Volume(good.sd.array, Grid.of_spacing((5, 6, 7), (3, 2, 2)))
    with pytest.raises(InputError, match="grid of the mean"):
        Atlas(good.mean, other, good.mask, 12, "")


def test_a_group_too_small_is_told_what_is_wanted() -> None:
    volume = Volume(np.ones((1, 4, 4, 4)), Grid.of_spacing((4, 4, 4), (1, 1, 1)))
    with pytest.raises(InputError, match=r"4 healthy scans.*5 or more"):
        build_atlas([volume] * 4, AtlasConfig())


TOY = AtlasConfig(
    spacing_mm=4.0,
    margin_mm=6.0,
    rounds=1,
    smooth_mm=6.0,
    affine=AffineConfig(levels_mm=(8.0,), turn_degrees=0, iterations=15),
    ffd=FfdConfig(grid_mm=(30.0,), image_mm=(8.0,), iterations=5),
)


def toy_head(seed: int) -> tuple[Volume, Volume]:
    """An ellipsoid with a rim, a ventricle and noise, and its regions: 1 left, 2 ventricle, 3 right."""
    rng = np.random.default_rng(seed)
    affine = np.diag([4.0, 4.0, 5.0, 1.0])
    affine[:3, 3] = [-46, -54, -45]
    grid = Grid((24, 28, 19), affine)
    size = np.array([36, 44, 34]) * (1 + rng.normal(0, 0.03, 3))
    place = (grid_points(grid) - rng.normal(0, 2, 3)) / size
    far = np.linalg.norm(place, axis=1)
    fluid = np.linalg.norm((place - [0, 0.1, 0.05]) / [0.5, 0.3, 0.25], axis=1) < 1
    adc = np.where(fluid, 2400, 1200 + 150 * np.tanh(6 * (far - 0.75)) + 200 * place[:, 1])
    adc = (adc + rng.normal(0, 60, len(far))) * (1 + rng.normal(0, 0.03))
    regions = np.where(fluid, 2, np.where(place[:, 0] > 0, 3, 1))
    image, labels = (np.where(far < 1, a, 0).reshape(1, *grid.shape) for a in (adc, regions))
    return Volume(image.astype(np.float32), grid), Volume(labels.astype(np.uint8), grid)


@pytest.fixture(scope="module")
def toys() -> list[tuple[Volume, Volume]]:
    return [toy_head(i) for i in range(7)]


@pytest.fixture(scope="module")
def toy_atlas(toys: list[tuple[Volume, Volume]]) -> Atlas:
    names = [f"toy {i}" for i in range(10)]
    constant = Volume(np.ones_like(toys[0][0].array), toys[0][0].grid)
    twice, tiny = (toys[1][0].with_array(toys[1][0].array * np.float32(factor)) for factor in (2, 1e-3))
    heads = [*(v for v, _ in toys), constant, twice, tiny]
    return build_atlas(heads, TOY, names=names, regions=[*(r for _, r in toys), None, None, None])


def test_a_head_that_fails_is_listed_and_the_others_make_the_atlas(toy_atlas: Atlas) -> None:
    assert toy_atlas.count == 8
    failed = toy_atlas.provenance["failed"]
    assert list(failed) == ["toy 7", "toy 9"]
    assert "everywhere" in failed["toy 7"]
    assert "another unit" in failed["toy 9"]
    assert any("toy 7 is left out" in sentence for sentence in toy_atlas.warnings)
    assert [h["name"] for h in toy_atlas.provenance["heads"]] == [f"toy {i}" for i in (0, 1, 2, 3, 4, 5, 6, 8)]
    assert all(h["ncc"] > 0.9 for h in toy_atlas.provenance["heads"])
    json.dumps(dict(toy_atlas.provenance), allow_nan=False)


def test_a_head_unlike_the_others_and_a_small_group_have_words(toy_atlas: Atlas) -> None:
    odd = [sentence for sentence in toy_atlas.warnings if "is it healthy" in sentence]
    assert len(odd) == 1
    assert odd[0].startswith("toy 8: ")
    assert any("8 heads" in sentence and "uncertain by 27 %" in sentence for sentence in toy_atlas.warnings)


def test_regions_are_voted_into_their_places(toy_atlas: Atlas) -> None:
    assert toy_atlas.regions is not None
    regions = toy_atlas.regions.array[0]
    assert set(np.unique(regions)) == {0, 1, 2, 3}
    assert (regions[~toy_atlas.inside] == 0).all()
    place = grid_points(toy_atlas.grid).reshape(*regions.shape, 3)
    assert place[regions == 1][:, 0].mean() < -5
    assert place[regions == 3][:, 0].mean() > 5
    assert toy_atlas.mean.array[0][regions == 2].mean() > 1.5 * toy_atlas.mean.array[0][regions == 1].mean()


def test_the_template_has_the_mean_size_whichever_head_comes_first(toys: list[tuple[Volume, Volume]]) -> None:
    config = TOY.model_copy(update={"rounds": 2})
    heads = [v for v, _ in toys]
    brain = np.mean([(v.array != 0).sum() * v.grid.voxel_volume for v in heads])
    first = build_atlas(heads, config)
    big = max(heads, key=lambda v: int((v.array != 0).sum()))
    others = [v for v in heads if v is not big]
    other = build_atlas([*others, big, big, big], config)
    for atlas, expected in ((first, brain), (other, None)):
        volume = atlas.inside.sum() * atlas.grid.voxel_volume
        assert expected is None or volume == pytest.approx(expected, rel=0.04)
    assert other.inside.sum() > first.inside.sum()


def test_too_few_usable_heads_say_why(toys: list[tuple[Volume, Volume]]) -> None:
    constant = Volume(np.ones_like(toys[0][0].array), toys[0][0].grid)
    with pytest.raises(InputError, match=r"from 4 healthy scans \(1 could not be used; head 5: .*everywhere"):
        build_atlas([*(v for v, _ in toys[:4]), constant], TOY)


def test_a_stopped_building_goes_on_and_gives_the_same_bits(toys: list[tuple[Volume, Volume]], tmp_path: Path) -> None:
    heads = [v for v, _ in toys[:5]]
    calls: list[str] = []

    def counted(limit: int) -> Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]:
        def run(function: Any, items: Sequence[Any]) -> list[Any]:
            results = []
            for item in items:
                before = set(tmp_path.glob("*.npz"))
                results.append(function(item))
                if set(tmp_path.glob("*.npz")) - before:
                    calls.append(function.function.__name__)
                if len(calls) >= limit:
                    raise KeyboardInterrupt
            return results

        return run

    with pytest.raises(KeyboardInterrupt):
        build_atlas(heads, TOY, work=tmp_path, run_each=counted(8))
    assert calls == ["to_reference"] * 5 + ["to_template"] * 3
    next(tmp_path.glob("*.npz")).write_bytes(b"cut short")
    calls.clear()
    resumed = build_atlas(heads, TOY, work=tmp_path, run_each=counted(1000))
    assert len(calls) == 7
    assert sorted(calls)[-2:] == ["to_template"] * 2
    whole = build_atlas(heads, TOY)
    for name in ("mean", "sd", "mask", "counts"):
        assert np.array_equal(getattr(resumed, name).array, getattr(whole, name).array)
    assert resumed.calibration == whole.calibration
    assert dict(resumed.provenance) == dict(whole.provenance)


@pytest.fixture(scope="module")
def group() -> list[Volume]:
    """Eight heads: six for the atlas, two held out. Their ADC is without field, so no correction is needed."""
    heads = [make_head(g, HeadConfig(field_sd=0, slice_sd=0)) for g in np.random.default_rng(3).spawn(8)]
    return [Volume(head.adc.array, without_file(head.adc.grid)) for head in heads]


@pytest.mark.slow
def test_an_atlas_of_phantoms_is_sharp_complete_and_calibrated(group: list[Volume]) -> None:
    calls: list[str] = []

    def through_pickle(function: object, items: object) -> list[object]:
        calls.append(getattr(function, "__name__", ""))
        return [pickle.loads(pickle.dumps((function, item)))[0](item) for item in items]  # type: ignore[attr-defined]

    atlas = build_atlas(group[:6], FAST, run_each=through_pickle)
    assert calls == ["", "read_at", "", "read_at", "", "residuals_at", "left_out_z"]
    assert atlas.count == 6
    assert min(head["ncc"] for head in atlas.provenance["heads"]) > 0.85
    brain_ml = [float((v.array != 0).sum()) * v.grid.voxel_volume / 1000 for v in group[:6]]
    assert atlas.inside.sum() * 27 / 1000 == pytest.approx(np.mean(brain_ml), rel=0.08)
    level = np.mean([v.array[v.array != 0].mean() for v in group[:6]])
    assert atlas.mean.array[0][atlas.inside].mean() == pytest.approx(level, rel=0.03)
    assert 30 < np.median(atlas.sd.array[0][atlas.inside]) < 450
    assert atlas.calibration is not None
    assert atlas.calibration.plain[0] == pytest.approx(1, abs=0.12)
    assert list(atlas.calibration.plain) == sorted(atlas.calibration.plain, reverse=True)

    values = []
    for held_out in group[6:]:
        mask = held_out.array[0] != 0
        found = register_heads(
            held_out, atlas.mean, affine=FAST.affine, ffd=FAST.ffd, fixed_mask=mask, moving_mask=atlas.inside
        )
        assert found.warnings == ()
        z = zmap(held_out, mask, atlas, found.transform, ZmapConfig()).array[0]
        assert np.array_equal(z[~mask], np.zeros((~mask).sum()))
        values.append(z[mask])
    healthy = np.concatenate(values)
    assert abs(healthy.mean()) < 0.6
    assert 0.6 < healthy.std() < 1.5

    again = build_atlas(group[:6], FAST)
    assert np.array_equal(again.mean.array, atlas.mean.array)
    assert np.array_equal(again.sd.array, atlas.sd.array)
