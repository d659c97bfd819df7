"""Where in an image there is something: the background's value, the mask of values other than 0, boxes around masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["background_share", "bounding_box", "foreground_mask", "head_levels"]


def background_share(image: NDArray[Any]) -> tuple[float, float]:
    """Return the value that most corners of an image ``(x, y, z)`` share, and the share of all voxels that have it."""
    corners = image[tuple(np.meshgrid(*[(0, n - 1) for n in image.shape], indexing="ij"))].ravel()
    values, counts = np.unique(corners, return_counts=True)
    value = values[np.argmax(counts)]
    return float(value), float(np.mean(image == value))


def head_levels(image: NDArray[Any]) -> tuple[float, float]:
    """Return the median and the 90th percentile of what lies in the middle of a head, skull-stripped or not.

    The middle is the inner two thirds along each axis of the box around what is finite and not background, or the
    inner third where that box is the whole slice, as with noise in the air; the background is left out there too. Of
    an unstripped scan that is mostly brain. The upper level lies in healthy white matter, so that injury, which lowers
    the ADC of part of the brain, moves it little.

    Args:
        image: ``(x, y, z)`` or ``(x, y)``.

    Returns:
        In the image's unit; NaN for an image without content.
    """
    value, share = background_share(image)
    kept = np.isfinite(image) & (image != 0)
    if share > 0.02:
        kept &= image != value
    if not kept.any():
        return float("nan"), float("nan")
    start, shape = bounding_box(kept)
    part = 3 if shape[:2] == image.shape[:2] else 6
    middle = tuple(slice(a + n // part, a + n - n // part) for a, n in zip(start, shape, strict=True))
    inside = image[middle][kept[middle]]
    if not inside.size:
        inside = image[kept]
    median, upper = np.percentile(inside, (50, 90))
    return float(median), float(upper)


def foreground_mask(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Return ``(x, y, z)``: where any channel of ``(c, x, y, z)`` is finite and not 0, with enclosed holes filled.

    In a skull-stripped image this is the brain; an image without exact zeros is foreground everywhere. So is a plane
    ``(c, x, y)``: in a picture 0 is black, a grey level like others.
    """
    if array.ndim == 3:
        return np.ones(array.shape[1:], dtype=np.bool_)
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
