"""Whether the disk can take what a work will write, asked before it starts."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError, MachineError
from ..plan.fingerprint import CaseFacts
from ..plan.plan import Plan

__all__ = ["prepared_bytes", "require_space", "require_writable"]

FLOAT, LABEL = 4, 1
"""Bytes a voxel of an image and of a label."""


def prepared_bytes(facts: Sequence[CaseFacts], plan: Plan, cases: int) -> int:
    """Return a forecast of the bytes that the arrays of so many prepared cases take, from the training cases' boxes.

    Counted are the network's image and label on the plan's grid, and the physical maps, the mask and the label on the
    scan's own.
    """
    if not facts or not cases:
        return 0
    channels = len(plan.channels)
    sizes = []
    for case in facts:
        box = math.prod(case.foreground_shape)
        scale = math.prod(case.spacing_mm) / math.prod(plan.spacing_mm)
        own = box * (channels * FLOAT + LABEL) + math.prod(case.shape) * LABEL
        sizes.append(box * scale * (channels * FLOAT + LABEL) + own)
    return int(cases * float(np.mean(sizes)))


def require_space(folder: Path, needed: int, what: str) -> None:
    """Refuse a work whose results the disk cannot take.

    Args:
        folder: where they will lie; it need not exist yet.
        needed: forecast of their bytes.
        what: how they are called.

    Raises:
        MachineError: naming what is needed and what is free.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise MachineError(
            f"{folder}: {what} will take about {_mb(needed)}, but the disk has {_mb(free)} free; free some space, or "
            "give another `workspace`."
        )


def require_writable(folder: Path) -> None:
    """Refuse a folder for results that cannot be made or written.

    Raises:
        InputError: it, or the folder above it that exists, is a file or may not be written.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    effective = os.access in os.supports_effective_ids
    if not there.is_dir():
        raise InputError(f"{folder}: this folder cannot be written, since {there} is a file; give another --output.")
    if not os.access(there, os.W_OK | os.X_OK, effective_ids=effective):
        raise InputError(f"{folder}: this folder cannot be written (no permission in {there}); give another --output.")


def _mb(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
