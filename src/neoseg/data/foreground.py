"""Where in an image there is something: the mask of values other than 0, and boxes around masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["bounding_box", "foreground_mask"]


def foreground_mask(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return ``(x, y, z)``: where any channel of ``(c, x, y, z)`` is finite and not 0, with enclosed holes filled.

    In a skull-stripped image this is the brain; an image without exact zeros is foreground everywhere.
    """
    from scipy.ndimage import binary_fill_holes

    mask = (np.isfinite(array) & (array != 0)).any(axis=0)
    return np.asarray(binary_fill_holes(mask), dtype=np.bool_)


def bounding_box(mask: NDArray[np.bool_], margin: int = 0) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return (start, shape) of the smallest box around the mask, grown by ``margin`` voxels within the array.

    An empty mask gives the whole array.
    """
    start, shape = [], []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        low = max(0, int(hit[0]) - margin) if hit.size else 0
        high = min(mask.shape[axis], int(hit[-1]) + 1 + margin) if hit.size else mask.shape[axis]
        start.append(low)
        shape.append(high - low)
    return tuple(start), tuple(shape)
