"""How sure a prediction is: entropy of its probabilities, disagreement of the folds, and a range for each volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["entropy", "range_ml", "spread"]


def entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the entropy of class probabilities as a share of the largest possible one.

    The entropy is that of Shannon, -sum(p ln p), over ln(number of classes): 0 where one class is certain, 1 where all
    are equally probable. With two classes it is the entropy in bits.

    Args:
        probabilities: ``(classes, ...)``, the mean over the folds.

    Returns:
        ``(...)``, 0..1.
    """
    total = np.zeros(probabilities.shape[1:], dtype=np.float32)
    for p in probabilities:
        total -= p * np.log(np.maximum(p, np.finfo(np.float32).tiny))
    return np.asarray(np.clip(total / np.float32(np.log(len(probabilities))), 0, 1), dtype=np.float32)


def spread(members: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the standard deviation (divisor folds - 1) of the foreground probability over the folds.

    The foreground probability is 1 - that of the background, so with several classes it says where the folds disagree
    on whether there is something, not on what.

    Args:
        members: ``(folds, classes, ...)``, two folds or more.

    Returns:
        ``(...)``, 0 to 0.71.
    """
    return np.asarray((1 - members[:, 0]).std(axis=0, ddof=1), dtype=np.float32)


def range_ml(masks: Sequence[NDArray[np.uint8]], index: int, voxel_ml: float) -> tuple[float, float]:
    """Return the smallest and the largest volume that a class has in the masks of the single folds.

    It is in the unit of ``voxel_ml``, mL of a voxel or the area of a pixel.

    It is no confidence interval: it says how far networks agree that saw different parts of the training cases.
    """
    volumes = [float(np.count_nonzero(mask == index)) * voxel_ml for mask in masks]
    return min(volumes), max(volumes)
