"""The numbers of the epochs for TensorBoard, where its package is installed (``pip install neoseg[tensorboard]``)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["score_board"]

TAGS = {
    "loss": "loss/training",
    "validation_loss": "loss/validation",
    "validation_dice": "Dice/validation",
    "smoothed_dice": "Dice/validation, smoothed",
    "false_positive_voxels": "validation/false positive voxels",
    "learning_rate": "learning rate",
    "undone_steps": "undone steps",
    "peak_gib": "memory, GiB",
}


@contextmanager
def score_board(folder: Path, history: Sequence[Mapping[str, Any]]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """Give a function that adds the line of an epoch to a folder that TensorBoard reads.

    The folder is written anew from the lines that are there, so that a resumed training leaves no epoch twice.
    Without the package the lines are left out: ``log.jsonl`` and the picture hold the same numbers.
    """
    if find_spec("tensorboard") is None:
        yield lambda line: None
        return
    shutil.rmtree(folder, ignore_errors=True)
    writer: Any = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def add(line: Mapping[str, Any]) -> None:
        for key, tag in TAGS.items():
            if line.get(key) is not None:
                writer.add_scalar(tag, line[key], line["step"])
        writer.flush()

    try:
        for line in history:
            add(line)
        yield add
    finally:
        writer.close()
