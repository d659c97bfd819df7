"""Training of folds through the command line: lengths, longer trainings, folds side by side, failures and signals."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from small_run import SETS, arguments, called, read, weights

pytestmark = pytest.mark.slow


def test_a_finished_run_gets_longer_and_what_follows_is_redone(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, before = finished / "runs" / "default", weights(finished)
    stamps = {p.name: p.stat().st_mtime_ns for p in run.glob("probabilities/cv/*.npy")}
    assert called(monkeypatch, "run", finished, *SETS, "--epochs", "3") == 0
    for fold in (0, 1):
        segments = read(run / f"fold{fold}" / "training.json")["segments"]
        assert [(s["first"], s["last"], s["epoch"]) for s in segments] == [(0, 4, 0), (4, 6, 2)]
        assert read(run / "stages" / f"train.fold{fold}.json")["summary"]["steps"] == 6
        assert weights(finished)[f"fold{fold}/last"] != before[f"fold{fold}/last"]
    changed = {fold for fold in (0, 1) if weights(finished)[f"fold{fold}/best"] != before[f"fold{fold}/best"]}
    new = {p.name for p in run.glob("probabilities/cv/*.npy") if p.stat().st_mtime_ns != stamps[p.name]}
    folds = read(run / "folds.json")
    assert new == {f"{case}.npy" for fold in changed for case in folds[fold]["validation"]}
    assert read(run / "config.json")["training"]["epochs"] == 3
    capsys.readouterr()

    files = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert called(monkeypatch, "run", finished, *SETS, "--steps", "5") == 2
    told = capsys.readouterr().err
    assert "6 steps" in told and "steps = 5" in told and "--epochs 3" in told
    assert called(monkeypatch, "predict", finished, *SETS, "--set", "training.steps=4") == 2
    assert "--set training.epochs=3" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == files
    assert called(monkeypatch, "predict", finished, *SETS, "--set", "training.epochs=3") == 0


def test_an_unfinished_training_keeps_its_length(
    finished: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = finished / "runs" / "default"
    (run / "fold1" / "finished.json").unlink()
    files = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    assert called(monkeypatch, "train", finished, *SETS, "--steps", "6") == 2
    told = capsys.readouterr().err
    assert "fold1" in told and "unfinished" in told and "`--steps 4`" in told
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == files
    assert called(monkeypatch, "train", finished, *SETS, "--steps", "4") == 0


def test_a_length_on_the_command_line_wins_over_the_file(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = workspace / "neoseg.toml"
    config.write_text(config.read_text() + "\n[training]\ntime_budget_s = 900\nepochs = 50\n")
    assert called(monkeypatch, "train", workspace, *SETS, "--fold", "0", "--steps", "1") == 0
    assert read(workspace / "runs" / "default" / "fold0" / "finished.json")["steps"] == 1
    assert called(monkeypatch, "train", workspace, *SETS, "--fold", "1", "--epochs", "1") == 0
    assert read(workspace / "runs" / "default" / "fold1" / "finished.json")["steps"] == 2
    config.write_text(config.read_text().replace("time_budget_s = 900", "steps = 7"))
    shutil.rmtree(workspace / "runs" / "default" / "fold1")
    assert called(monkeypatch, "train", workspace, *SETS, "--fold", "1", "--time", "1s") == 0
    made = read(workspace / "runs" / "default" / "fold1" / "training.json")["segments"]
    assert made[0]["length"]["time_budget_s"] == 1.0 and made[0]["length"]["steps"] is None


@pytest.mark.parametrize(
    ("command", "more", "words"),
    [
        ("train", ("--epochs", "3", "--steps", "4"), "--epochs 3 and --steps 4"),
        ("run", ("--time", "1h", "--steps", "4"), "--steps 4 and --time 1h"),
        ("run", ("--time", "30x"), "--time 30x"),
        ("train", ("--time", "0m"), "longer than zero"),
        ("train", ("--time", ""), "90s, 30m"),
        ("run", ("--steps", "0"), "--steps"),
        ("train", ("--epochs", "two"), "--epochs"),
        ("train", ("--steps", "4", "--set", "training.epochs=2"), "training.epochs=2"),
        ("train", ("--folds", "0,x"), "--folds 0,x"),
        ("train", ("--folds", "0,,1"), "--folds 0,,1"),
        ("train", ("--folds", "0,7", *SETS), "--fold 7"),
        ("train", ("--fold", "0", "--folds", "all"), "--fold 0 and --folds all"),
        ("train", ("--jobs", "0"), "--jobs"),
        ("run", ("--jobs", "-1"), "--jobs"),
        ("train", ("--set", "threads=0"), "threads"),
    ],
)
def test_wrong_options_are_told(
    small_prepared: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    more: Sequence[str],
    words: str,
) -> None:
    assert called(monkeypatch, command, small_prepared, *more) == 2
    told = capsys.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1 and "Traceback" not in told
    assert not (small_prepared / "runs" / "default" / "fold0").exists()


def test_folds_side_by_side_have_the_bits_of_folds_one_after_the_other(
    small_trained: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments("train", workspace, *SETS, "--steps", "4", "--folds", "0,1", "--jobs", "2")],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert weights(workspace) == weights(small_trained) and len(weights(workspace)) == 4
    assert [read(workspace / "runs/default/stages" / f"train.fold{i}.json")["threads"] for i in (0, 1)] == [1, 1]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_fold_that_fails_does_not_stop_the_others(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], jobs: str
) -> None:
    run = workspace / "runs" / "default"
    folds = read(workspace / "folds.json")["folds"]
    lost = next(case for case in folds[0]["train"] if case in folds[1]["validation"])
    next(workspace.glob(f"prepared/*/{lost}/image.npy")).write_bytes(b"damaged")
    assert called(monkeypatch, "train", workspace, *SETS, "--steps", "1", "--jobs", jobs) == 2
    told = capsys.readouterr().err
    assert "1 of 2 folds could not be trained" in told and "Fold 0:" in told and lost in told
    assert "Traceback" not in told and "Fold 1:" not in told
    assert not (run / "fold0" / "finished.json").exists() and (run / "fold1" / "finished.json").is_file()
    assert list(read(run / "stages" / "train.fold1.json")["summary"]) and not (run / "stages/train.fold0.json").exists()


def children_of(parent: int) -> list[int]:
    path = Path(f"/proc/{parent}/task/{parent}/children")
    found = [int(word) for word in path.read_text().split()] if path.exists() else []
    return [p for p in found if b"multiprocessing.spawn" in Path(f"/proc/{p}/cmdline").read_bytes()]


def begun(workspace: Path) -> tuple[subprocess.Popen[str], list[int]]:
    """Start two folds side by side in a group of their own and wait until both are at work."""
    process = subprocess.Popen(
        [sys.executable, "-m", *arguments("train", workspace, *SETS, "--steps", "100000", "--jobs", "2")],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    run = workspace / "runs" / "default"
    limit = time.monotonic() + 600
    while not all((run / f"fold{i}" / "log.jsonl").is_file() for i in (0, 1)):
        if process.poll() is not None or time.monotonic() > limit:
            process.kill()
            pytest.fail(f"no two folds at work: {process.communicate()[1]}")
        time.sleep(0.05)
    children = children_of(process.pid)
    assert len(children) == 2
    return process, children


def ended(pids: Sequence[int], within_s: float = 60) -> bool:
    limit = time.monotonic() + within_s
    while time.monotonic() < limit:
        if not any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids):
            return True
        time.sleep(0.05)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="this system has no /proc")


@needs_proc
def test_ctrl_c_stops_all_folds_after_their_checkpoint(workspace: Path) -> None:
    process, children = begun(workspace)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to all
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130, told
    assert "Stopped by SIGINT; what was done is kept" in told and "Traceback" not in told
    assert ended(children, 5)
    for fold in (0, 1):
        folder = workspace / "runs" / "default" / f"fold{fold}"
        state = read(folder / "last" / "state.json")
        epochs = len((folder / "log.jsonl").read_text().splitlines())
        # A step after the last whole epoch, or the epoch itself when the signal came between two.
        assert state["step"] >= 2 * epochs > 0 and state["epoch"] == epochs


@needs_proc
def test_no_fold_outlives_the_first_process(workspace: Path) -> None:
    process, children = begun(workspace)
    process.kill()
    process.communicate(timeout=60)
    assert ended(children)
    for fold in (0, 1):
        assert read(workspace / "runs" / "default" / f"fold{fold}" / "last" / "state.json")["step"] >= 2
