"""Voxelwise statistics over the heads of a group: centre, spread, regions by vote."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .configs import AtlasConfig

__all__ = ["centre", "spread", "vote"]

MAD_TO_SD = 1.482602218505602
"""Standard deviation of a normal distribution over its median absolute deviation."""


def centre(values: NDArray[np.float32], known: NDArray[np.bool_], config: AtlasConfig) -> NDArray[np.float32]:
    """Return the middle of each column's known values.

    Args:
        values: ``(heads, n)``.
        known: ``(heads, n)``, which of them count.
        config: the estimator.

    Returns:
        ``(n,)``; 0 where no head is known.
    """
    count = known.sum(axis=0)
    if config.estimator == "mean":
        total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
        return np.asarray(total / np.maximum(count, 1), dtype=np.float32)
    ordered = np.sort(np.where(known, values, np.inf), axis=0).astype(np.float64)
    ordered[~np.isfinite(ordered)] = 0
    if config.estimator == "median":
        low, high = np.maximum(count - 1, 0) // 2, count // 2
        low, high = np.minimum(low, len(values) - 1), np.minimum(high, len(values) - 1)
        middle = (np.take_along_axis(ordered, low[None], 0) + np.take_along_axis(ordered, high[None], 0))[0] / 2
        return np.asarray(np.where(count > 0, middle, 0), dtype=np.float32)
    cut = np.floor(config.trim * count).astype(int)
    place = np.arange(len(values))[:, None]
    kept = (place >= cut) & (place < count - cut)
    return np.asarray(np.where(kept, ordered, 0).sum(axis=0) / np.maximum(kept.sum(axis=0), 1), dtype=np.float32)


def spread(residuals: NDArray[np.float32], known: NDArray[np.bool_], config: AtlasConfig) -> NDArray[np.float32]:
    """Return the variance of each column's known residuals about 0; for normal residuals all estimators agree.

    Args:
        residuals: ``(heads, n)``, values of heads less what the others predict for them.
        known: ``(heads, n)``, which of them count.
        config: the estimator.

    Returns:
        ``(n,)``; 0 where no head is known.
    """
    square = np.square(residuals.astype(np.float64))
    count = known.sum(axis=0)
    if config.estimator == "mean":
        return np.asarray(np.where(known, square, 0).sum(axis=0) / np.maximum(count, 1), dtype=np.float32)
    if config.estimator == "median":
        middle = centre(np.abs(residuals), known, config)
        return np.asarray(np.square(MAD_TO_SD * middle.astype(np.float64)), dtype=np.float32)
    ordered = np.sort(np.where(known, square, np.inf), axis=0)
    keep = count - np.floor(2 * config.trim * count).astype(int)
    kept = np.arange(len(residuals))[:, None] < keep
    mean = np.where(kept, ordered, 0).sum(axis=0) / np.maximum(keep, 1)
    return np.asarray(mean / _trimmed_square(keep / np.maximum(count, 1)), dtype=np.float32)


def vote(labels: NDArray[np.integer[Any]]) -> NDArray[np.uint16]:
    """Return the most frequent label of each column; of several the smallest.

    Args:
        labels: ``(heads, n)``, 0 or above.
    """
    best = np.zeros(labels.shape[1], np.uint16)
    most = np.zeros(labels.shape[1], np.intp)
    for value in np.unique(labels):
        votes = (labels == value).sum(axis=0)
        best[votes > most] = value
        most = np.maximum(most, votes)
    return best


def _trimmed_square(share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean of x^2 over the central ``share`` of a standard normal distribution."""
    from scipy import stats

    edge = stats.norm.ppf(0.5 + np.clip(share, 0, 1) / 2)
    finite = np.minimum(edge, 40)
    return np.asarray(1 - 2 * finite * stats.norm.pdf(finite) / np.maximum(share, 1e-9), dtype=np.float64)
