"""The atlas: its record on disk, and building it from a small healthy group."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.errors import InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.zmap import ZmapConfig, zmap
from neoseg.register.chain import register_heads
from neoseg.register.configs import AffineConfig, FfdConfig
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
    return Atlas(mean, sd, Volume(mask, grid), 12, "1e-6 mm2/s", {"heads": 12, "note": "täst"})


def test_an_atlas_comes_back_from_disk_as_it_was(tmp_path: Path) -> None:
    atlas = tiny_atlas()
    atlas.save(tmp_path / "atlas")
    back = Atlas.load(tmp_path / "atlas")
    for name in ("mean", "sd", "mask"):
        assert np.array_equal(getattr(back, name).array, getattr(atlas, name).array)
    assert np.array_equal(back.grid.affine, atlas.grid.affine)
    assert (back.count, back.unit, dict(back.provenance)) == (12, "1e-6 mm2/s", {"heads": 12, "note": "täst"})


def test_missing_and_damaged_atlases_have_words(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no atlas"):
        Atlas.load(tmp_path)
    tiny_atlas().save(tmp_path)
    (tmp_path / "atlas.npz").write_bytes((tmp_path / "atlas.npz").read_bytes()[:300])
    with pytest.raises(InputError, match="cannot be read"):
        Atlas.load(tmp_path)


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
    assert len(calls) == 4
    assert atlas.count == 6
    assert min(atlas.provenance["ncc"]) > 0.85
    brain_ml = [float((v.array != 0).sum()) * v.grid.voxel_volume / 1000 for v in group[:6]]
    assert atlas.inside.sum() * 27 / 1000 == pytest.approx(np.mean(brain_ml), rel=0.08)
    level = np.mean([v.array[v.array != 0].mean() for v in group[:6]])
    assert atlas.mean.array[0][atlas.inside].mean() == pytest.approx(level, rel=0.03)
    assert 30 < np.median(atlas.sd.array[0][atlas.inside]) < 350

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
