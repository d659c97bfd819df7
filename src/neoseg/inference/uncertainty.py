"""How sure a prediction is: entropy of its probabilities, disagreement of the folds, and a range for each volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..targets import Targets, inside

__all__ = ["entropy", "range_ml", "spread"]


def entropy(probabilities: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """Return the entropy of probabilities as a share of the largest possible one.

    The entropy is that of Shannon, -sum(p ln p), over ln(number of classes): 0 where one class is certain, 1 where all
    are equally probable. With two classes it is the entropy in bits. Of regions, each a question of its own, it is the
    mean of their entropies in bits.

    Args:
        probabilities: ``(channels, ...)``, the mean over the folds.
        targets: what the channels stand for.

    Returns:
        ``(...)``, 0..1.
    """
    total = np.zeros(probabilities.shape[1:], dtype=np.float32)
    for p in probabilities:
        total += _of_one(p)
        if targets.overlapping:
            total += _of_one(1 - p)
    largest = len(probabilities) * np.log(2) if targets.overlapping else np.log(len(probabilities))
    return np.asarray(np.clip(total / np.float32(largest), 0, 1), dtype=np.float32)


def spread(members: NDArray[np.float32], targets: Targets) -> NDArray[np.float32]:
    """Return the standard deviation (divisor folds - 1) of the foreground probability over the folds.

    The foreground probability is 1 - that of the background, so with several classes it says where the folds disagree
    on whether there is something, not on what. Of regions it is the largest of their probabilities: of nested ones that
    of the outermost.

    Args:
        members: ``(folds, channels, ...)``, two folds or more.
        targets: what the channels stand for.

    Returns:
        ``(...)``, 0 to 0.71.
    """
    foreground = members.max(axis=1) if targets.overlapping else 1 - members[:, 0]
    return np.asarray(foreground.std(axis=0, ddof=1), dtype=np.float32)


def range_ml(masks: Sequence[NDArray[np.uint8]], members: Sequence[int], voxel_ml: float) -> tuple[float, float]:
    """Return the smallest and the largest volume that some classes together have in the masks of the single folds.

    It is in the unit of ``voxel_ml``, mL of a voxel or the area of a pixel.

    It is no confidence interval: it says how far networks agree that saw different parts of the training cases.
    """
    volumes = [float(np.count_nonzero(inside(mask, members))) * voxel_ml for mask in masks]
    return min(volumes), max(volumes)


def _of_one(p: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(-p * np.log(np.maximum(p, np.finfo(np.float32).tiny)), dtype=np.float32)
