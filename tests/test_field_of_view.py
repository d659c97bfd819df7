"""Which sizes of an image can be meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neoseg.data.cases import Case
from neoseg.data.field_of_view import size_doubt, unlikely_size
from neoseg.data.loading import load_images
from neoseg.errors import GeometryError
from neoseg.io import write_volume
from neoseg.prepare.standardise import Template
from neoseg.volume import Grid, Volume


def grid(n: int, spacing: float, unit: str = "mm") -> Grid:
    return Grid((n, n, 3), np.diag([spacing, spacing, spacing, 1.0]), unit=unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n", "spacing", "unit"),
    [
        (112, 1500.0, "um"),
        (112, 0.0015, "metres"),
        (112, 1.5, None),
        (35, 1.0, None),  # a hippocampus
        (128, 0.1, None),  # a mouse
        (16, 1.0, None),
        (500, 4.0, None),  # a whole body
    ],
)
def test_only_what_no_scan_can_be_is_unlikely(n: int, spacing: float, unit: str | None) -> None:
    told = unlikely_size(grid(n, spacing))
    assert told is None if unit is None else f"seems to give {unit}" in str(told)


@pytest.mark.parametrize(
    ("n", "spacing", "doubted"), [(112, 0.15, True), (112, 1.5, False), (35, 1.0, False), (112, 0.0015, False)]
)
def test_the_voxels_of_a_head_on_a_few_mm_are_doubted(n: int, spacing: float, doubted: bool) -> None:
    assert (size_doubt(grid(n, spacing)) is not None) is doubted


def test_pictures_have_any_size() -> None:
    plane = Grid((4000, 4000), np.diag([0.0001, 0.0001, 1.0]))
    assert unlikely_size(plane) is unlikely_size(grid(9000, 1.0, "px")) is size_doubt(plane) is None


def test_such_an_image_is_refused_by_name_before_anything_is_made_of_it(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(1200, 90, (30, 30, 3)).astype(np.float32)
    values[:12] = 0
    for spacing, words in ((1500.0, "um"), (0.0015, "metres")):
        path = tmp_path / f"{words}.nii.gz"
        write_volume(Volume(values[None], grid(30, spacing)), path)
        for channel in ("adc", "t1"):
            with pytest.raises(GeometryError, match=rf"{words}\.nii\.gz: the field of view .* to give {words}"):
                load_images(Case(case="a", subject="a", images={channel: path}), [channel])
        with pytest.raises(GeometryError, match=rf"{words}\.nii\.gz: the field of view"):
            Template.read(path)


def test_an_adc_map_in_centimetres_has_a_note(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(1200, 90, (96, 96, 3)).astype(np.float32)
    values[:40] = 0
    write_volume(Volume(values[None], grid(96, 0.15)), tmp_path / "a.nii.gz")
    for channel, count in (("adc", 1), ("t1", 0)):
        loaded = load_images(Case(case="a", subject="a", images={channel: tmp_path / "a.nii.gz"}), [channel])
        assert sum("small for a head" in note for note in loaded.notes) == count
