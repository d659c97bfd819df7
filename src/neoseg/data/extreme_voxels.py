"""A few voxels far from all others: spikes of a reconstruction, markers, damaged bytes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["extreme_voxels"]

SHARE, FEWEST = 1e-4, 8
"""Share of the voxels that counts as a few, and the least number of them."""

LEAST_VOXELS = 100
"""Of fewer, no few can be told from the others."""

MOST_SPREAD = 2.0
"""A few voxels may raise the standard deviation to so many times that of the others before they are told: an image
that is divided by it loses half of its contrast then."""

BLOCK = 2**20
"""Voxels that are looked at together, so that no copy of a large volume is made."""


def extreme_voxels(values: NDArray[Any]) -> str | None:
    """Return in words what a few voxels reach that raise the standard deviation :data:`MOST_SPREAD` times, else None.

    Args:
        values: of the voxels to look at, finite, of any shape.
    """
    flat = values.reshape(-1)
    few = max(FEWEST, int(SHARE * flat.size))
    if flat.size < LEAST_VOXELS:
        return None
    mean, sd = _mean_and_sd(flat)
    low, high = float(flat.min()), float(flat.max())
    # What so many voxels at the largest distance would take away is too little in nearly every image.
    if few * max(high - mean, mean - low) ** 2 < (1 - MOST_SPREAD**-2) * sd**2 * flat.size:
        return None
    # from the median, since the mean lies where a large spike has drawn it
    distance = np.abs(flat.astype(np.float32) - np.float32(np.median(flat)))
    last = flat.size - few - 1
    others = flat[distance <= np.partition(distance, last)[last]]
    spread = _mean_and_sd(others)[1]
    if spread == 0 or not sd > MOST_SPREAD * spread:
        return None
    farthest = high if high - mean > mean - low else low
    return f"a few voxels reach {farthest:.4g}, while the others lie between {others.min():.4g} and {others.max():.4g}"


def _mean_and_sd(flat: NDArray[Any]) -> tuple[float, float]:
    starts = range(0, flat.size, BLOCK)
    mean = math.fsum(float(flat[s : s + BLOCK].sum(dtype=np.float64)) for s in starts) / flat.size
    squares = (float(np.square(flat[s : s + BLOCK].astype(np.float64) - mean).sum()) for s in starts)
    return mean, math.sqrt(math.fsum(squares) / flat.size)
