"""After a finished run something changes: what is out of date is made again or refused, and never passed on."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture
def finished(blob_run: tuple[Path, Path], tmp_path: Path) -> Path:
    """A copy of a finished workspace with its data."""
    root = blob_run[0].parents[2]
    shutil.copytree(root, tmp_path / "all")
    # The table names files outside its folder by their full path, so the copy has to be told of its own.
    table = tmp_path / "all" / "work" / "cases.csv"
    table.write_text(table.read_text().replace(str(root / "data"), str(tmp_path / "all" / "data")))
    return tmp_path / "all" / "work"


def again(
    workspace: Path, blob_changes: tuple[str, ...], *changes: str, command: str = "run"
) -> subprocess.CompletedProcess[str]:
    sets = [part for change in (*blob_changes, *changes) for part in ("--set", change)]
    return subprocess.run(
        [sys.executable, "-m", "neoseg", command, str(workspace / "neoseg.toml"), "--quiet", *sets],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


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
def test_weights_of_other_settings_are_not_taken_over(
    finished: Path, blob_changes: tuple[str, ...], change: str, words: str
) -> None:
    run = finished / "runs" / "default"
    config = (run / "config.json").read_text()
    done = again(finished, blob_changes, change)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr and "another `name`" in done.stderr
    assert (run / "config.json").read_text() == config


def test_a_changed_label_file_is_noticed(finished: Path, blob_changes: tuple[str, ...]) -> None:
    path = finished.parent / "data" / "labels" / "scan0.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.roll(np.asarray(label.dataobj), 2, axis=0), label.affine), path)
    done = again(finished, blob_changes)
    assert done.returncode == 2
    assert "another" in done.stderr


def test_another_window_predicts_again_and_another_threshold_list_does_not(
    finished: Path, blob_changes: tuple[str, ...]
) -> None:
    before = times(finished, "runs/default/probabilities/cv/*.npy")
    assert again(finished, blob_changes, "postprocess.thresholds=[0.4, 0.5, 0.6]").returncode == 0
    assert times(finished, "runs/default/probabilities/cv/*.npy") == before
    chosen = json.loads((finished / "runs" / "default" / "postprocess.json").read_text())
    assert chosen["threshold"] in (0.4, 0.5, 0.6)
    weights = times(finished, "runs/default/fold*/best/*")
    assert again(finished, blob_changes, "window.mirror_axes=[0, 1, 2]").returncode == 0
    after = times(finished, "runs/default/probabilities/cv/*.npy")
    assert after.keys() == before.keys()
    assert not set(after.values()) & set(before.values())
    assert times(finished, "runs/default/fold*/best/*") == weights
    kept = json.loads((finished / "runs" / "default" / "config.json").read_text())
    assert kept["window"]["mirror_axes"] == [0, 1, 2]


@pytest.mark.parametrize(
    ("command", "change", "words"),
    [
        ("evaluate", "window.mirror_axes=[0]", "run `neoseg predict`"),
        ("report", "evaluate.tolerance_mm=3.0", "run `neoseg evaluate`"),
        ("evaluate", "training.learning_rate=0.5", "run `neoseg train`"),
        ("predict", "plan.patch=[16, 16, 16]", "run `neoseg plan`"),
        ("predict", "network.heads=2", "run `neoseg plan`"),
        ("train", "plan.patch=[16, 16, 16]", "run `neoseg plan`"),
    ],
)
def test_a_single_stage_does_not_build_on_what_is_out_of_date(
    finished: Path, blob_changes: tuple[str, ...], command: str, change: str, words: str
) -> None:
    run = finished / "runs" / "default"
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    done = again(finished, blob_changes, change, command=command)
    assert done.returncode == 2, done.stdout + done.stderr
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def edit(old: str, new: str) -> Callable[[Path], None]:
    def change(workspace: Path) -> None:
        table = workspace / "cases.csv"
        text = table.read_text()
        assert old in text
        table.write_text(text.replace(old, new, 1))

    return change


def test_a_subject_that_moves_to_both_sides_is_noticed(finished: Path, blob_changes: tuple[str, ...]) -> None:
    edit("scan7,scan7,,patient,train", "scan7,scan0,,patient,test")(finished)
    done = again(finished, blob_changes)
    assert done.returncode == 2
    assert "scan0" in done.stderr


def test_a_removed_case_makes_new_folds(finished: Path, blob_changes: tuple[str, ...]) -> None:
    table = finished / "cases.csv"
    table.write_text("\n".join(line for line in table.read_text().splitlines() if not line.startswith("scan7,")) + "\n")
    assert again(finished, blob_changes, command="check").returncode == 0
    assert again(finished, blob_changes, command="plan").returncode == 0
    folds = json.loads((finished / "folds.json").read_text())["folds"]
    assert "scan7" not in json.dumps(folds)


@pytest.mark.parametrize("command", ["predict", "evaluate", "report"])
def test_a_stage_before_its_time_is_told(finished: Path, blob_changes: tuple[str, ...], command: str) -> None:
    done = again(finished, blob_changes, "name=other", command=command)
    assert done.returncode == 2
    assert "has not finished" in done.stderr
    assert "Traceback" not in done.stderr


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
def test_values_that_cannot_be_are_told(finished: Path, blob_changes: tuple[str, ...], change: str, words: str) -> None:
    done = again(finished, blob_changes, change, command="plan")
    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
