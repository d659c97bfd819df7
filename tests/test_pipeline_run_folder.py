"""What makes a run folder self-contained is written whole, and left alone where it is there already."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neoseg.data.cases import Case
from neoseg.pipeline.run_folder import _copy_atlas, _keep_template, _stacked
from neoseg.pipeline.scan_files import Stacked
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.standardise import Template
from neoseg.volume import Grid, Volume


def atlas(level: float) -> Atlas:
    grid = Grid((4, 5, 6), np.diag([2.0, 2.0, 2.0, 1.0]))
    mean = Volume(np.full((1, 4, 5, 6), level, dtype=np.float32), grid)
    one = Volume(np.ones((1, 4, 5, 6), dtype=np.uint8), grid)
    return Atlas(mean, Volume(mean.array / 10, grid), one, count=9, unit="1e-6 mm2/s")


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.iterdir()}


def test_an_atlas_is_copied_without_what_lies_beside_it_and_only_when_it_changed(tmp_path: Path) -> None:
    source, target = tmp_path / "atlas", tmp_path / "run"
    atlas(1000).save(source)
    (source / "healthy_child.nii.gz").write_bytes(b"not for others")
    _copy_atlas(source, target)
    assert sorted(p.name for p in target.iterdir()) == ["atlas.json", "atlas.npz"]
    before = stamps(target)
    _copy_atlas(source, target)
    assert stamps(target) == before
    atlas(1200).save(source)
    _copy_atlas(source, target)
    assert Atlas.load(target).mean.array.max() == 1200


def test_a_template_is_written_once(tmp_path: Path) -> None:
    _keep_template(Template.of_atlas(atlas(1000)), tmp_path)
    before = stamps(tmp_path)
    _keep_template(Template.of_atlas(atlas(1000)), tmp_path)
    assert stamps(tmp_path) == before
    _keep_template(Template.of_atlas(atlas(1200)), tmp_path)
    assert Template.load(tmp_path).image.array.max() == 1200


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        ([{"a": 0, "b": 1}] * 2, Stacked(2, {"a": 0, "b": 1})),
        ([{"a": 0, "b": 1}, {"a": 1, "b": 0}], None),
        ([{"a": 0, "b": 1}, {}], None),
        ([{}, {}], None),
        ([], None),
    ],
)
def test_4d_files_count_as_stacked_when_all_cases_have_them_alike(
    tmp_path: Path, index: list[dict[str, int]], expected: Stacked | None
) -> None:
    import nibabel as nib

    path = tmp_path / "stack.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 2), dtype=np.float32), np.eye(4)), path)
    cases = [Case(case=str(n), subject="", images={"a": path, "b": path}, channel_index=i) for n, i in enumerate(index)]
    assert _stacked(cases) == expected
