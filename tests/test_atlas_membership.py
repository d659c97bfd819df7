"""A head that does not belong to its healthy group is named, or left out where it cannot be averaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.atlas.membership import does_not_lie_on, doubts, other_values, share_astray
from neoseg.atlas.memory import Found, Remembered
from neoseg.register.configs import AffineConfig
from neoseg.register.transforms import Affine, grid_points
from neoseg.volume import Grid, Volume

ROUGH = AtlasConfig(
    spacing_mm=5.0,
    margin_mm=6.0,
    rounds=0,
    affine=AffineConfig(levels_mm=(6.0,), turn_degrees=0, orientations=60, iterations=40),
)


def head(seed: int, size: float = 1.0) -> Volume:
    """A brain without any symmetry, of about the same size in each head."""
    rng = np.random.default_rng(seed)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-54, -66, -54]
    grid = Grid((28, 34, 28), affine)
    place = (grid_points(grid) - rng.normal(0, 2, 3)) / (size * (1 + rng.normal(0, 0.01)))
    radius = np.linalg.norm(place / [40, 54, 36], axis=1)
    adc = 1150 + 150 * np.cos(place @ [0.09, 0.05, 0.07]) + 350 / (1 + np.exp(-(radius - 0.85) * 30))
    for centre, half in (([12, 6, 8], [7, 17, 7]), ([-12, -20, -6], [6, 8, 6]), ([0, 30, -10], [8, 6, 6])):
        adc += 900 / (1 + np.exp(6 * (np.linalg.norm((place - centre) / half, axis=1) - 1)))
    image = np.where(radius < 1, adc * (1 + rng.normal(0, 0.02, len(adc))), 0)
    return Volume(image.reshape(1, *grid.shape).astype(np.float32), grid)


def turned(volume: Volume) -> Volume:
    """The same voxels, as a header says it that is wrong by 180 degrees about z."""
    return volume.with_array(np.ascontiguousarray(volume.array[:, ::-1, ::-1]))


def foreign(volume: Volume) -> Volume:
    """Something else in the same outline."""
    noise = ndimage.gaussian_filter(np.random.default_rng(5).normal(0, 1, volume.grid.shape), 2.5)
    values = 1250 + 450 * noise / noise.std()
    return volume.with_array(np.where(volume.array[0] > 0, np.clip(values, 300, 3000), 0).astype(np.float32))


def warned(volumes: list[Volume]) -> dict[str, str]:
    """Build an atlas of heads "0", "1", ... and return what is said of each."""
    atlas = build_atlas(volumes, ROUGH, names=[str(i) for i in range(len(volumes))])
    for record in atlas.provenance["heads"]:
        assert {f"{record['name']}: {sentence}" for sentence in record["warnings"]} <= set(atlas.warnings)
    return {record["name"]: " ".join(record["warnings"]) for record in atlas.provenance["heads"]}


def test_odd_heads_are_named_and_the_others_are_not() -> None:
    group = [head(i) for i in range(7)]
    told = warned([*group[:5], turned(group[5]), foreign(group[6])])
    assert "turned the head by 1" in told["5"]
    assert "similarity" in told["6"]
    assert "align" not in " ".join(told[str(i)] for i in range(5))


def test_a_turned_head_of_median_size_is_not_what_the_others_are_measured_by() -> None:
    sizes = [0.9, 0.94, 1.0, 1.06, 1.1]
    group = [head(i, size) for i, size in enumerate(sizes)]
    told = warned([*group[:2], turned(group[2]), *group[3:]])
    assert "turned the head by 1" in told["2"]
    assert "turned" not in " ".join(sentence for name, sentence in told.items() if name != "2")


def test_a_head_that_lies_beside_the_others_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    import neoseg.atlas.build as build

    def to_reference(job: tuple[object, object, AtlasConfig]) -> Found:
        name = job[1].name  # type: ignore[attr-defined]
        found = real(job)  # type: ignore[arg-type]
        return Found(
            found.transform, found.ncc, (), {**found.facts, **({"affine_overlap": 0.4} if name == "0" else {})}
        )

    real = build.to_reference
    monkeypatch.setattr(build, "to_reference", to_reference)
    atlas = build_atlas([head(i) for i in range(6)], ROUGH, names=[str(i) for i in range(6)])
    assert "Dice of only 0.40" in atlas.provenance["failed"]["0"]
    assert any(sentence.startswith("0 is left out: after registration") for sentence in atlas.warnings)
    assert (atlas.count, [h["name"] for h in atlas.provenance["heads"]]) == (5, ["1", "2", "3", "4", "5"])


def test_the_reference_is_judged_by_most_of_the_others() -> None:
    fine, far, beside = (
        {"affine_turn_degrees": turn, "affine_overlap": overlap} for turn, overlap in ((3, 0.9), (170, 0.9), (3, 0.5))
    )
    assert share_astray({"a": far, "b": beside, "c": fine}) == pytest.approx(2 / 3)
    assert share_astray({"a": fine, "b": fine}) == 0
    assert share_astray({}) == 0
    assert doubts({"a": fine, "b": far, "c": fine}).keys() == {"b"}
    assert does_not_lie_on(fine) is None


def test_another_contrast_is_told_from_the_values_alone() -> None:
    group = [head(i) for i in range(5)]
    inside = [v.array[v.array > 0] for v in (*group, foreign(head(6)), head(7).with_array(3 * head(7).array))]
    assert other_values(inside).tolist() == [False] * 5 + [True, False]


def test_a_kept_registration_comes_back_with_its_numbers(tmp_path: Path) -> None:
    made = Found(Affine.identity(), float("nan"), ("a word",), {"affine_overlap": 0.91, "affine_rival": 0.7})
    Remembered(lambda job: made, tmp_path)("job")
    back = Remembered(lambda job: Found(Affine.identity(), 0.0, ()), tmp_path)("job").found
    assert back is not None
    assert (dict(back.facts), back.warnings) == (made.facts, made.warnings)
