"""What makes a run folder self-contained is written whole, and left alone where it is there already."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assembled_run import assembled
from neoseg.atomic import write_json
from neoseg.config import load_config
from neoseg.data.cases import Case
from neoseg.errors import StateError
from neoseg.pipeline.plan import is_planned
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.run_folder import _copy_atlas, _keep_template, _stacked
from neoseg.pipeline.scan_files import Stacked
from neoseg.pipeline.session import open_session
from neoseg.pipeline.train import training_settings
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.standardise import Template
from neoseg.training.loop import TrainingResult
from neoseg.training.segments import length_of
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
    path = tmp_path / "stack.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5, 2), dtype=np.float32), np.eye(4)), path)
    cases = [Case(case=str(n), subject="", images={"a": path, "b": path}, channel_index=i) for n, i in enumerate(index)]
    assert _stacked(cases) == expected


def test_a_refused_training_leaves_the_records_of_the_finished_one(tmp_path: Path) -> None:
    """The label of a case is changed after the training; the run's own files still tell of the former one."""
    session, _ = assembled(tmp_path, [])
    run, settings = session.run, training_settings(session.config.training, session.plan)
    names = {"train": ("a",), "validation": ()}
    for index in range(2):
        identity = {"config": {}, "inputs": "those of then", **names}
        segment = {"first": 0, "last": 10, "epoch": 0, "length": length_of(settings)}
        write_json(run.fold(index) / "training.json", {"segments": [segment], "identity": identity})
        result = TrainingResult(0, 0.5, 1, 10, 1.0, False, "float32", "cpu")
        write_json(run.fold(index) / "finished.json", asdict(result))
    before = {path.name: path.read_bytes() for path in run.folder.glob("*.json")}
    label = tmp_path / "p0_label.nii.gz"
    image = nib.load(label)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(image.dataobj), 1, 0), image.affine), label)
    session = open_session(load_config(tmp_path / "neoseg.toml"))
    for stage in ("plan", "prepare"):
        run_stage(session, stage)
    with pytest.raises(StateError, match=r"was trained on other data: images, labels.*another `name`"):
        run_stage(session, "train")
    assert {path.name: path.read_bytes() for path in run.folder.glob("*.json")} == before


def test_a_plan_by_a_budget_is_made_anew_for_another_precision(tmp_path: Path) -> None:
    assembled(tmp_path, [])
    by_budget = ("plan.core_minutes=3", "name=budget")
    session = open_session(load_config(tmp_path / "neoseg.toml", by_budget))
    run_stage(session, "plan")
    assert is_planned(session)
    assert not is_planned(
        open_session(load_config(tmp_path / "neoseg.toml", (*by_budget, 'training.precision="float32"')))
    )
