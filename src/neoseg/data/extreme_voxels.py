"""A few voxels far from all others: spikes of a reconstruction, markers, damaged bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["extreme_voxels"]

FEW = 1e-4
"""Share of the voxels, at least one, that counts as a few."""

MOST_SPREAD = 2.0
"""A few voxels may raise the standard deviation to so many times that of the others before they are told: an image
that is divided by it loses half of its contrast then."""


def extreme_voxels(values: NDArray[Any]) -> str | None:
    """Return in words what a few voxels reach that raise the standard deviation :data:`MOST_SPREAD` times, else None.

    Args:
        values: of the voxels to look at, finite, of any shape.
    """
    flat = values.reshape(-1).astype(np.float64)
    few = max(1, int(FEW * flat.size))
    if flat.size <= 2 * few:
        return None
    distance = np.abs(flat - np.median(flat))
    order = np.argpartition(distance, flat.size - few)
    others, farthest = flat[order[:-few]], flat[distance.argmax()]
    spread = float(others.std())
    if spread == 0 or not flat.std() > MOST_SPREAD * spread:
        return None
    return f"a few voxels reach {farthest:.4g}, while the others lie between {others.min():.4g} and {others.max():.4g}"
