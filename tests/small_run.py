"""A very small run through the command line, called in this process: its settings, and how to look at it."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from neoseg.cli.app import run as command_line
from neoseg.data.store import file_digest

__all__ = ["QUIET", "SETS", "arguments", "called", "command_line", "in_this_process", "read", "weights"]

QUIET: tuple[str, ...] = ("--quiet",)

SMALL = (
    "folds.count=2",
    "threads=1",
    "plan.patch=[16, 16, 16]",
    "training.steps_per_epoch=2",
    "training.batch_size=2",
    "network.dims=[8, 16, 32]",
    "network.depths=[1, 1, 1]",
    "network.proj=[8, 8, 8]",
    "network.decoder_proj=8",
    "network.feature_size=8",
    "evaluate.resamples=100",
)
SETS = tuple(part for change in SMALL for part in ("--set", change))


def arguments(command: str, workspace: Path, *more: str) -> list[str]:
    return ["neoseg", command, str(workspace / "neoseg.toml"), *QUIET, *more]


def called(patch: pytest.MonkeyPatch, command: str, workspace: Path, *more: str) -> int:
    """Call the command line on a workspace in this process and return its exit code."""
    return in_this_process(patch, *arguments(command, workspace, *more))


def in_this_process(patch: pytest.MonkeyPatch, *words: str) -> int:
    """Call the command line in this process, signals put back afterwards, and return its exit code."""
    patch.setattr(sys, "argv", list(words))
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return command_line()
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def weights(workspace: Path, name: str = "default") -> dict[str, str]:
    """Hashes of the last and the best weights of all folds."""
    run = workspace / "runs" / name
    return {p.parent.relative_to(run).as_posix(): file_digest(p) for p in run.glob("fold*/[bl]*t/model.safetensors")}
