"""A run made again from its own records, and compared with what it was."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from neoseg.atomic import write_json
from neoseg.config import load_resolved
from neoseg.io import read_label, write_volume
from neoseg.pipeline.comparison import compare_runs, surroundings
from neoseg.pipeline.environment import _checked_out, environment
from neoseg.pipeline.manifest import given_config
from neoseg.workspace import Run
from small_run import SETS, called, command_line, read


@pytest.fixture
def finished(small_trained: Path, tmp_path: Path) -> Path:
    """A workspace with a finished run."""
    shutil.copytree(small_trained, tmp_path / "work")
    return tmp_path / "work"


def reproduced(patch: pytest.MonkeyPatch, run: Path, *more: str) -> int:
    patch.setattr(sys, "argv", ["neoseg", "reproduce", str(run), "--quiet", *more])
    return command_line()


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(read(path))), encoding="utf-8")


@pytest.mark.slow
def test_steps_that_a_time_gave_are_done_again_by_a_version_that_knows_more_of_a_training(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = finished / "runs" / "default", tmp_path / "again"
    # more than the training took that is made longer, however busy the machine was
    budget = 2 + math.ceil(max(read(run / f"fold{index}" / "finished.json")["seconds"] for index in range(2)))
    assert called(monkeypatch, "run", finished, *SETS, "--time", f"{budget}s") == 0
    for index in range(2):
        rewrite(
            run / f"fold{index}" / "training.json",
            lambda t: {**t, "identity": {k: v for k, v in t["identity"].items() if k != "spacing_mm"}},
        )
    assert reproduced(monkeypatch, run, "--output", str(again)) == 0, capsys.readouterr()
    assert read(again / "reproduction.json")["same"]
    there, here = (read(r / "fold1" / "training.json") for r in (run, again / "runs" / "default"))
    assert there["segments"] == here["segments"] and here["segments"][-1]["length"]["time_budget_s"] == budget
    assert "spacing_mm" in here["identity"]


@pytest.mark.slow
def test_a_run_that_was_made_longer_is_made_again_bit_by_bit(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, again = finished / "runs" / "default", tmp_path / "again"
    rewrite(finished / "plan.json", lambda p: {**p, "reasons": p["reasons"][:1]})
    assert called(monkeypatch, "run", finished, *SETS, "--epochs", "3") == 0
    write_json(run / "notice.json", {"notice": "Every ball is made up."})
    capsys.readouterr()
    assert reproduced(monkeypatch, run, "--output", str(again), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["same"] and [row["what"] for row in told["results"]] == [
        "weights of fold 0, best epoch",
        "weights of fold 0, last step",
        "weights of fold 1, best epoch",
        "weights of fold 1, last step",
        "post-processing",
        "masks, cross-validation",
        "scores",
    ]
    assert all(row["same"] for row in (*told["results"], *told["surroundings"]))
    new = again / "runs" / "default"
    assert Path(told["folder"]) == new and "Every ball is made up." in (new / "report.html").read_text()
    segments = [read(r / "fold1" / "training.json")["segments"] for r in (run, new)]
    assert segments[0] == segments[1] and len(segments[0]) == 2
    assert read(again / "reproduction.json")["same"]

    # The same command compares again; what was changed since is found.
    path = run / "fold0" / "best" / "model.safetensors"
    tensors = load_file(path)
    name = next(n for n in tensors if tensors[n].dtype == np.float32)
    save_file({**tensors, name: tensors[name] + np.float32(0.25)}, path)
    rewrite(run / "stages" / "predict.json", lambda r: {k: v for k, v in r.items() if k != "weights"})
    capsys.readouterr()
    assert reproduced(monkeypatch, run, "--output", str(again)) == 2
    assert "trained on after its stage 'predict'" in capsys.readouterr().err
    for stage in ("predict", "evaluate"):
        (run / "stages" / f"{stage}.json").unlink()
    assert reproduced(monkeypatch, run, "--output", str(again)) == 1
    shown = capsys.readouterr().out
    line = next(line for line in shown.splitlines() if line.startswith("weights of fold 0, best epoch"))
    assert "different" in line and "0.25" in line and "Not reproduced" in shown
    assert sum("different" in line for line in shown.splitlines()) == 1


def test_the_settings_as_given_are_those_of_the_run(small_trained: Path) -> None:
    run = Run(small_trained / "runs" / "default")
    given, whole = given_config(run), load_resolved(run.config)
    assert given == whole
    assert "optimiser" not in given.training.model_fields_set and "steps" in given.training.model_fields_set


def test_scores_and_masks_that_differ_are_counted(finished: Path, tmp_path: Path) -> None:
    import nibabel as nib

    first, second = Run(finished / "runs" / "default"), Run(tmp_path / "other")
    shutil.copytree(first.folder, second.folder)
    assert all(row.same for row in compare_runs(first, second))
    mask = sorted(second.predictions("cv").glob("*.nii.gz"))[0]
    image = nib.load(mask)
    array = np.asarray(image.dataobj).astype(np.uint8)
    array[0, 0, :2] = 1 - array[0, 0, :2]
    nib.save(nib.Nifti1Image(array, image.affine), mask)
    lines = second.scores.read_text().splitlines()
    column = lines[0].split(",").index("value")
    cells = lines[1].split(",")
    cells[column] = str(float(cells[column]) + 0.125)
    second.scores.write_text("\n".join([lines[0], ",".join(cells), *lines[2:]]) + "\n")
    rows = {row.what: row for row in compare_runs(first, second)}
    assert [row.what for row in rows.values() if not row.same] == ["masks, cross-validation", "scores"]
    assert "1 of 6 masks differ, in 2 of" in rows["masks, cross-validation"].told
    assert "1 of" in rows["scores"].told and "0.125" in rows["scores"].told
    mask.unlink()
    assert f"{mask.name} is missing" in {r.what: r for r in compare_runs(first, second)}["masks, cross-validation"].told


def test_voxels_beside_their_headers_are_no_masks_of_their_own(finished: Path, tmp_path: Path) -> None:
    first, second = Run(finished / "runs" / "default"), Run(tmp_path / "other")
    for number, mask in enumerate(sorted(first.predictions("cv").iterdir())):
        write_volume(read_label(mask), mask.with_name(f"{number}{('.mhd', '.nhdr')[number % 2]}"))
        mask.unlink()
    files = list(first.predictions("cv").iterdir())
    assert len(files) == 12, files
    shutil.copytree(first.folder, second.folder)
    (masks,) = (row for row in compare_runs(first, second) if row.what == "masks, cross-validation")
    assert masks.same and masks.told == "6 masks"


@pytest.mark.slow
def test_what_was_changed_after_the_training_is_made_again(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, later = finished / "runs" / "default", ("window", "postprocess", "rules", "evaluate")
    before = read(run / "manifest.json")
    rule = 'rules=[{name="bright", channel="image", side="above", low=110, high=150, count=5}]'
    changes = ("training.steps=4", "postprocess.thresholds=[0.3, 0.6]", "window.mirror_axes=[0]", rule)
    more = [*SETS, *(part for change in (*changes, "evaluate.tolerance_mm=5") for part in ("--set", change))]
    assert called(monkeypatch, "predict", finished, *more) == 0
    assert reproduced(monkeypatch, run, "--output", str(tmp_path / "again")) == 2
    assert "its scores are older than its predictions" in capsys.readouterr().err
    for command in ("evaluate", "report"):
        # where it is scored is no matter of the training
        assert called(monkeypatch, command, finished, *more, "--set", 'device="cpu"') == 0
    after = read(run / "manifest.json")
    assert (after["cases"], after["template"]) == (before["cases"], before["template"])
    kept = [{k: v for k, v in manifest["given"].items() if k not in later} for manifest in (before, after)]
    assert kept[0] == kept[1] and "device" not in kept[1]
    assert given_config(Run(run)).evaluate.tolerance_mm == 5
    capsys.readouterr()
    assert reproduced(monkeypatch, run, "--output", str(tmp_path / "again")) == 0, capsys.readouterr().out


def test_versions_and_hardware_are_compared() -> None:
    now = environment()
    assert all(row.same for row in surroundings(now, now))
    then = {**now, "cores": 99, "packages": {**now["packages"], "torch": "1.0"}}
    del then["cpu"]
    found = {row.what: row.told for row in surroundings(then, now) if not row.same}
    assert found.keys() == {"cores", "torch", "cpu"} and "1.0 then" in found["torch"] and "not known" in found["cpu"]


def without_a_case(manifest: dict[str, Any]) -> dict[str, Any]:
    return {**manifest, "cases": {n: c for n, c in manifest["cases"].items() if n != "scan2"}}


def with_another(key: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(manifest: dict[str, Any]) -> dict[str, Any]:
        return {**manifest, "cases": {**manifest["cases"], "scan1": {**manifest["cases"]["scan1"], key: value}}}

    return change


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no run": (shutil.rmtree, "not the folder of a run"),
    "no manifest": (lambda r: (r / "manifest.json").unlink(), "manifest.json"),
    "a damaged manifest": (lambda r: (r / "manifest.json").write_text("{"), "manifest.json"),
    "an unfinished fold": (lambda r: (r / "fold1" / "finished.json").unlink(), "fold1"),
    "other lengths": (
        lambda r: rewrite(r / "fold1" / "training.json", lambda t: {**t, "segments": t["segments"] * 2}),
        "different lengths",
    ),
    "a changed image": (
        lambda r: rewrite(r / "manifest.json", with_another("files", {"image": "0" * 16, "label": "0" * 16})),
        "the image file of scan1 has changed; the label file of scan1 has changed",
    ),
    "a moved case": (lambda r: rewrite(r / "manifest.json", with_another("split", "test")), "scan1 has another split"),
    "a new case": (lambda r: rewrite(r / "manifest.json", without_a_case), "scan2 is new in the table"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_made_again_is_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    run = finished / "runs" / "default"
    change, words = FAULTS[fault]
    change(run)
    assert reproduced(monkeypatch, run, "--output", str(tmp_path / "again")) == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "again").exists()


@pytest.mark.slow
@pytest.mark.parametrize("device", ["gpu", "CPU", "meta", "cuda:x", "cuda:99"])
def test_a_device_that_is_not_there_leaves_no_workspace(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], device: str
) -> None:
    again = tmp_path / "again"
    assert reproduced(monkeypatch, finished / "runs" / "default", "--output", str(again), "--device", device) == 2
    told = capsys.readouterr().err
    assert f"device = {device!r}" in told and "Traceback" not in told
    assert not again.exists()


@pytest.mark.slow
def test_a_folder_with_something_else_is_left_alone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduced(monkeypatch, finished / "runs" / "default", "--output", str(finished)) == 2
    assert "not an empty folder" in capsys.readouterr().err
    assert not (finished / "reproduction.json").exists()


def test_the_commit_of_a_checkout_is_read_from_its_files(tmp_path: Path) -> None:
    git, commit, other = tmp_path / ".git", "a" * 40, "b" * 40
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    (git / "refs" / "heads" / "main").write_text(f"{commit}\n")
    assert _checked_out(git) == commit
    (git / "refs" / "heads" / "main").unlink()
    (git / "packed-refs").write_text(f"# pack-refs\n{other} refs/heads/main2\n{commit} refs/heads/main\n")
    assert _checked_out(git) == commit
    further = git / "worktrees" / "more"
    further.mkdir(parents=True)
    (further / "HEAD").write_text("ref: refs/heads/main2\n")
    (further / "commondir").write_text("../..\n")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / ".git").write_text(f"gitdir: {further}\n")
    assert _checked_out(tmp_path / "more" / ".git") == other
    (git / "HEAD").write_text(f"{other}\n")
    assert _checked_out(git) == other
