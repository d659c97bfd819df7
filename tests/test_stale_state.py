"""After a stale.folder run something changes: what is out of date is made again or refused, and never passed on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from assembled_run import SHAPE, open_table, save
from fault_scene import Done
from neoseg.data.cases import Case
from neoseg.pipeline.run import _key as stage_key
from neoseg.pipeline.session import Session
from small_run import SETS, arguments

pytestmark = pytest.mark.slow


@dataclass
class Stale:
    """A finished workspace with data of its own, and the command line on it."""

    folder: Path
    neoseg: Callable[..., Done]

    def again(self, *changes: str, command: str = "run") -> Done:
        sets = [part for change in ("training.steps=4", *changes) for part in ("--set", change)]
        return self.neoseg(*arguments(command, self.folder, *SETS, *sets)[1:])


@pytest.fixture
def stale(small_trained: Path, small_prepared: Path, tmp_path: Path, neoseg: Callable[..., Done]) -> Stale:
    data = small_prepared.parent / "data"
    shutil.copytree(small_trained, tmp_path / "work")
    shutil.copytree(data, tmp_path / "data")
    # The table names files outside its folder by their full path, so the copy has to be told of its own.
    table = tmp_path / "work" / "cases.csv"
    assert str(data) in table.read_text()
    table.write_text(table.read_text().replace(str(data), str(tmp_path / "data")))
    return Stale(tmp_path / "work", neoseg)


def times(workspace: Path, pattern: str) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in workspace.glob(pattern)}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("loss.dice_weight=0.5", "loss"),
        ("prepare.bias_field={}", "prepare"),
        ("training.learning_rate=0.5", "training"),
        ("network.heads=2", "plan"),
        ("seed=5", ""),
    ],
)
def test_weights_of_other_settings_are_not_taken_over(stale: Stale, change: str, words: str) -> None:
    run = stale.folder / "runs" / "default"
    config = (run / "config.json").read_text()
    done = stale.again(change)
    assert done.code == 2, done.err
    assert words in done.err and "another `name`" in done.err
    assert (run / "config.json").read_text() == config


def test_a_changed_label_file_is_noticed(stale: Stale) -> None:
    path = stale.folder.parent / "data" / "labels" / "scan0.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 2, axis=0), label.affine), path)
    done = stale.again()
    assert done.code == 2
    assert "another" in done.err


def test_another_window_predicts_again_and_another_threshold_list_does_not(stale: Stale) -> None:
    before = times(stale.folder, "runs/default/probabilities/cv/*.npy")
    assert stale.again("postprocess.thresholds=[0.4, 0.5, 0.6]").code == 0
    assert times(stale.folder, "runs/default/probabilities/cv/*.npy") == before
    chosen = json.loads((stale.folder / "runs" / "default" / "postprocess.json").read_text())
    assert chosen["threshold"] in (0.4, 0.5, 0.6)
    weights = times(stale.folder, "runs/default/fold*/best/*")
    assert stale.again("window.mirror_axes=[0]").code == 0
    after = times(stale.folder, "runs/default/probabilities/cv/*.npy")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert times(stale.folder, "runs/default/fold*/best/*") == weights
    kept = json.loads((stale.folder / "runs" / "default" / "config.json").read_text())
    assert kept["window"]["mirror_axes"] == [0]


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("evaluate", "window.mirror_axes=[0]", "run `neoseg predict`"),
        ("report", "evaluate.tolerance_mm=3.0", "run `neoseg evaluate`"),
        ("evaluate", "training.learning_rate=0.5", "run `neoseg train`"),
        ("predict", "plan.patch=[16, 16, 8]", "run `neoseg plan`"),
        ("predict", "network.heads=2", "run `neoseg plan`"),
        ("train", "plan.patch=[16, 16, 8]", "run `neoseg plan`"),
    ],
)
def test_a_single_stage_does_not_build_on_what_is_out_of_date(
    stale: Stale, command: str, change: str, words: str
) -> None:
    run = stale.folder / "runs" / "default"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    done = stale.again(change, command=command)
    assert done.code == 2, done.err
    assert words in done.err and len(done.err.strip().splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(workspace: Path) -> None:
        table = workspace / "cases.csv"
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new, 1))

    return change


def test_a_subject_that_moves_to_both_sides_is_noticed(stale: Stale) -> None:
    edit("scan5,scan5,,patient,train", "scan5,scan0,,patient,test")(stale.folder)
    done = stale.again()
    assert done.code == 2
    assert "scan0" in done.err


def test_a_removed_case_makes_new_folds(stale: Stale) -> None:
    table = stale.folder / "cases.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("scan5,")) + "\n")
    assert stale.again(command="check").code == 0
    assert stale.again(command="plan").code == 0
    folds = json.loads((stale.folder / "folds.json").read_text())["folds"]
    assert "scan5" not in json.dumps(folds)


@pytest.mark.parametrize("command", ["predict", "evaluate", "report"])
def test_a_stage_before_its_time_is_told(stale: Stale, command: str) -> None:
    done = stale.again("name=other", command=command)
    assert done.code == 2
    assert "has not finished" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("plan.patch=[33, 33, 33]", "multiples"),
        ("plan.spacing_mm=[0, 1, 1]", "greater than 0"),
        ("prepare.normalise.imgae.rule=case", "not a channel"),
        ('rules=[{name="network", channel="image", low=1, high=2}]', "network"),
        ('rules=[{name="a", channel="image", low=3, high=2}]', "smaller"),
    ],
)
def test_values_that_cannot_be_are_told(stale: Stale, change: str, words: str) -> None:
    done = stale.again(change, command="plan")
    assert done.code == 2, done.err
    assert words in done.err
    assert "Traceback" not in done.err


RULE = 'rules=[{name="bright", channel="image", side="above", low=110, high=150, count=5}]'


@pytest.mark.parametrize("changes", [(), (RULE,)], ids=["network alone", "beside a rule"])
def test_scores_of_an_evaluation_that_was_stopped_are_not_shown(stale: Stale, changes: tuple[str, ...]) -> None:
    run = stale.folder / "runs" / "default"
    if changes:
        assert stale.again(*changes, command="evaluate").code == 0
    # what an evaluation that is killed leaves: its record is removed when it begins, the former scores are still there
    (run / "stages" / "evaluate.json").unlink()
    assert (run / "scores.csv").is_file()
    done = stale.again(*changes, command="report")
    assert done.code == 0, done.err
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["cv"], summary["held_out"], summary["rules"]) == (None, None, {})
    page = " ".join((run / "report.html").read_text().split())
    assert "were not scored yet" in page and "<code>neoseg evaluate</code>" in page and 'id="scores"' not in page


def two_channels(folder: Path, more: str) -> Session:
    """Patients with T1 and ADC, one of them healthy too."""
    cases = []
    for number in range(3):
        generator = np.random.default_rng(number)
        files = {name: generator.normal(1200, 90, SHAPE).astype(np.float32) for name in ("adc", "t1")}
        paths = {name: save(folder / f"p{number}_{name}.nii.gz", array) for name, array in files.items()}
        label = save(folder / f"p{number}_label.nii.gz", (files["adc"] > 1350).astype(np.uint8))
        cases.append(Case(case=f"p{number}", subject=f"p{number}", images=paths, label=label))
    healthy = replace(cases[0], case="h", subject="h", group="healthy", label=None)
    return open_table(folder, [*cases, healthy], more)


def test_an_atlas_of_another_version_is_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = 'channels = ["zadc"]\n[prepare.zmap]\n'
    before = two_channels(tmp_path, more).atlas_key
    assert before is not None and two_channels(tmp_path, more).atlas_key == before
    monkeypatch.setattr("neoseg.pipeline.session.__version__", "0.0.0")
    assert two_channels(tmp_path, more).atlas_key != before


def test_another_reference_channel_is_checked_too(tmp_path: Path) -> None:
    more = 'channels = ["adc"]\ntemplate = "p0_adc.nii.gz"\n[prepare]\nspace = "template"\n'
    before = stage_key(two_channels(tmp_path, more), "check")
    assert stage_key(two_channels(tmp_path, more), "check") == before
    assert stage_key(two_channels(tmp_path, f'{more}reference = "t1"\n'), "check") != before
