"""SIGKILL at any moment, inside steps and inside checkpoint writes: the same command ends with the same bits."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from test_training_loop import assert_same_bits
from training_to_kill import work


@pytest.mark.slow
def test_twenty_kills_at_seeded_moments_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the server of forks does not look for what it preloads where this process does
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    work(tmp_path / "whole", None, None)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_to_kill"])

    def ended_by(folder: Path, at_write: int | None = None, cpu_seconds: float | None = None) -> int | None:
        process = context.Process(target=work, args=(folder, at_write, cpu_seconds))
        process.start()
        process.join(300)
        return process.exitcode

    generator, kills = np.random.default_rng(20), 0
    for number in range(2):
        folder = tmp_path / f"killed{number}"
        for attempt in range(10):
            if attempt % 2:
                code = ended_by(folder, cpu_seconds=float(generator.uniform(0.01, 0.3)))
            else:
                code = ended_by(folder, at_write=int(generator.integers(60)))
            kills += code in (-signal.SIGKILL, -signal.SIGPROF)
        assert not (folder / "finished.json").exists()
        assert ended_by(folder) == 0
        assert_same_bits(tmp_path / "whole", folder)
        assert not [path.name for path in folder.rglob(".*")]
    assert kills == 20
