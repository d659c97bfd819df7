"""A training that kills its own process at a given write or after a given time; for tests of resumption."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # what the first optimiser imports: processes that are forked have it then

from test_training_loop import CONFIG, fit

WRITES = CONFIG.model_copy(update={"epochs": 4, "ema_decay": 0.9, "checkpoint_every_seconds": 1e-9})
"""A checkpoint after every step: about half of the time is spent in writing."""


def dying(function: Callable[..., Any], calls: Any, at: int) -> Callable[..., Any]:
    """The function, but the process is killed in front of one of its calls."""

    def call(*args: Any, **named: Any) -> Any:
        if next(calls) == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **named)

    return call


def work(folder: Path, at_write: int | None, cpu_seconds: float | None) -> None:
    torch.set_num_threads(1)
    if at_write is not None:
        calls = itertools.count()
        for owner, name in ((os, "fsync"), (Path, "replace"), (shutil, "rmtree"), (Path, "unlink")):
            setattr(owner, name, dying(getattr(owner, name), calls, at_write))
    if cpu_seconds is not None:
        # SIGPROF ends a process as SIGKILL does, and its clock does not run while others have the processor
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
    fit(folder, WRITES)
