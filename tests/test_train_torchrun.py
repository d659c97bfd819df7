"""`torchrun --nproc-per-node 2 -m neoseg train`: one run of two processes, and what is refused under torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neoseg.cli.app import run as command_line
from neoseg.config import load_config
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import open_session
from training_together import free_port

MORE = (
    "training.steps=4", "training.steps_per_epoch=2", 'training.precision="float32"', "plan.patch=[32, 32, 16]",
)  # fmt: skip


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def torchrun(config: Path, changes: tuple[str, ...]) -> subprocess.Popen[str]:
    sets = [word for change in changes for word in ("--set", change)]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(free_port()), "-m", "neoseg", "train", str(config), "--fold", "0", *sets]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_a_fold_trained_by_two_processes_is_that_of_one_and_survives_a_signal(
    tmp_path: Path, blobs: Callable[[Path, int, int], None], blob_changes: tuple[str, ...]
) -> None:
    blobs(tmp_path / "data", 6, 0)
    file = import_folder(tmp_path / "data", tmp_path / "work").config
    changes = (*blob_changes, *MORE)
    sessions = {name: open_session(load_config(file, (*changes, f'name="{name}"'))) for name in ("one", "two", "long")}
    for session in sessions.values():
        for stage in ("check", "plan", "prepare"):
            run_stage(session, stage)
    run_stage(sessions["one"], "train", folds=[0])
    runs = tmp_path / "work" / "runs"

    two = torchrun(file, (*changes, 'name="two"'))
    told, errors = two.communicate(timeout=300)
    assert two.returncode == 0, errors
    assert told.count("fold 0: 4 steps") == 1 and "process 1" not in errors
    for one, both in zip(lines_of(runs / "one" / "fold0"), lines_of(runs / "two" / "fold0"), strict=True):
        assert both["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert both["validation_loss"] == pytest.approx(one["validation_loss"], abs=1e-4)

    long = (*changes, 'name="long"', "training.steps=2000")
    asked = torchrun(file, long)
    end = time.monotonic() + 300
    while not (runs / "long" / "fold0" / "last").exists() and asked.poll() is None and time.monotonic() < end:
        time.sleep(0.2)
    asked.send_signal(signal.SIGTERM)
    _, errors = asked.communicate(timeout=120)
    assert errors.count("Stopped by SIGTERM after step") == 2, errors
    state = json.loads((runs / "long" / "fold0" / "last" / "state.json").read_text())
    assert f"after step {state['step']} of 2000, which is kept" in errors


@pytest.mark.parametrize("command", ["plan", "run", "predict"])
def test_other_commands_refuse_torchrun(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["neoseg", command])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert command_line() == 2
    for number, handler in before.items():
        signal.signal(number, handler)
    told = capsys.readouterr().err
    assert told.startswith(f"neoseg, process 1: neoseg {command}: torchrun started 2 processes")
