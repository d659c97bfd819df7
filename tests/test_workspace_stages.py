"""The record of a stage: its seconds over interrupted and killed attempts, and the folds of a training as one."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neoseg.atomic import write_json
from neoseg.workspace import Run, write_if_changed

KILLED = """
import sys, time
from pathlib import Path
from neoseg import workspace
workspace.NOTED_EVERY_S = 0.1
with workspace.Run(Path(sys.argv[1])).recording("prepare", sys.argv[2]):
    time.sleep(60)
"""


def attempt_that_is_killed(folder: Path, key: str, after_s: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), key])
    started = folder / "stages" / "prepare.started.json"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (started.is_file() and json.loads(started.read_text())["seconds"] > after_s):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=30)


def attempt_that_fails(run: Run, key: str, lasting_s: float) -> None:
    with pytest.raises(RuntimeError), run.recording("prepare", key):
        time.sleep(lasting_s)
        raise RuntimeError


def attempt_that_ends(run: Run, key: str) -> float:
    with run.recording("prepare", key) as record:
        record["failed"] = {}
    found = run.need("prepare")
    assert found["failed"] == {}
    assert not (run.stages / "prepare.started.json").exists()
    return float(found["seconds"])


def test_the_seconds_of_failed_and_of_killed_attempts_are_counted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt_that_fails(run, "a", 0.2)
    attempt_that_is_killed(tmp_path, "a", 0.5)
    assert attempt_that_ends(run, "a") >= 0.5


def test_the_seconds_under_another_key_are_not_counted(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt_that_fails(run, "a", 0.3)
    assert attempt_that_ends(run, "b") < 0.3


def test_an_attempt_that_ends_well_does_not_count_into_the_next(tmp_path: Path) -> None:
    run = Run(tmp_path)
    attempt_that_fails(run, "a", 0.3)
    assert attempt_that_ends(run, "a") >= 0.3
    assert attempt_that_ends(run, "a") < 0.3


def test_the_folds_of_a_training_are_one_stage(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.stage_record("train") is None
    for index in (10, 2, 0):
        run.record_fold(index, "key", {"seconds": 1.5 + index, "steps": 7})
    record = run.need("train")
    assert record["seconds"] == 1.5 * 3 + 12
    assert [f["fold"] for f in record["folds"]] == [0, 2, 10]
    assert all(f["steps"] == 7 for f in record["folds"])
    assert not run.fold_is_current(0, "key")
    write_json(run.fold(0) / "finished.json", {})
    assert run.fold_is_current(0, "key")
    assert not run.fold_is_current(0, "other")
    assert not run.fold_is_current(1, "key")


def test_time_in_which_folds_were_trained_side_by_side_counts_once(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.record_fold(0, "key", {"seconds": 10.0}, span=(100.0, 110.0))
    run.record_fold(1, "key", {"seconds": 12.0}, span=(101.0, 113.0))
    run.record_fold(2, "key", {"seconds": 4.0}, span=(103.0, 107.0))
    assert run.need("train")["seconds"] == pytest.approx(13)
    # An hour later, after an attempt of 20 s that was interrupted at a time that nobody knows.
    run.record_fold(3, "key", {"seconds": 25.0}, span=(3700.0, 3705.0))
    assert run.need("train")["seconds"] == pytest.approx(13 + 25)


def test_a_file_that_holds_the_value_already_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_if_changed(path, {"folds": [("a", "b")]})
    before = path.stat().st_mtime_ns, path.stat().st_ino
    write_if_changed(path, {"folds": [("a", "b")]})
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    write_if_changed(path, {"folds": []})
    assert json.loads(path.read_text()) == {"folds": []}
    path.write_text("{ damaged")
    write_if_changed(path, 1)
    assert path.read_text() == "1\n"
