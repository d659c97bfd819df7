"""From probabilities to a mask; what the choice of threshold and smallest lesion needs, computed once a threshold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .configs import PostprocessConfig

__all__ = ["PostprocessConfig", "apply", "dice_by_volume", "remove_small"]

_SLACK = 1e-6
"""Voxels; a component that equals the smallest size but for rounding is kept."""


def apply(
    probabilities: NDArray[np.float32], spacing_mm: Sequence[float], config: PostprocessConfig
) -> NDArray[np.uint8]:
    """Return the class indices ``(x, y, z)`` of class probabilities ``(classes, x, y, z)`` (2-D alike).

    With one foreground class the foreground is where its probability reaches the threshold, with more the most
    probable class is taken; then small components are removed.
    """
    if probabilities.shape[0] == 2:
        mask = np.asarray(probabilities[1] >= config.threshold, dtype=np.uint8)
    else:
        mask = np.asarray(probabilities.argmax(axis=0), dtype=np.uint8)
    return remove_small(mask, config.minimum_lesion_mm3 / float(np.prod(spacing_mm)))


def remove_small(mask: NDArray[np.uint8], minimum_voxels: float) -> NDArray[np.uint8]:
    """Return the mask without the connected components that are smaller.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``; each class has its own components (26 or 8 neighbours).
        minimum_voxels: least size that is kept, not necessarily whole.
    """
    if minimum_voxels <= 1 or not mask.any():
        return mask
    components = _components(mask)
    small = np.bincount(components.ravel()) < minimum_voxels - _SLACK
    small[0] = False
    return np.where(small[components], np.uint8(0), mask)


def dice_by_volume(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, minimum_voxels: ArrayLike
) -> NDArray[np.float64]:
    """Return the Dice that a mask has after :func:`remove_small` with each of several smallest sizes.

    The components are found once; their sizes and true positives give every score.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``.
        truth: class indices of the same shape.
        classes: with background; the Dice is the mean over the others. A class that is absent from the truth scores 1
            when nothing of it is left in the mask, else 0, so false alarms on empty cases weigh as much as misses.
        minimum_voxels: the smallest sizes.

    Returns:
        One Dice (0..1) for each smallest size.
    """
    least = np.asarray(minimum_voxels, dtype=np.float64)
    result = np.zeros(len(least))
    for wanted, sizes, hits in _sizes_and_hits(mask, truth, classes):
        for i, size in enumerate(least):
            kept = sizes >= size - _SLACK
            total = int(sizes[kept].sum()) + wanted
            result[i] += 2 * int(hits[kept].sum()) / total if total else 1.0
    return result / (classes - 1)


def _components(mask: NDArray[np.uint8]) -> NDArray[Any]:
    import cc3d

    components: NDArray[Any] = cc3d.connected_components(
        np.ascontiguousarray(mask), connectivity=26 if mask.ndim == 3 else 8
    )
    return components


def _sizes_and_hits(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int
) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.intp]]]:
    """Give for each foreground class its voxels in the truth, and size and true positives of its components."""
    inside = mask > 0
    components, values, truths = _components(mask)[inside], mask[inside], truth[inside]
    for index in range(1, classes):
        own = components[values == index]
        hit = components[(values == index) & (truths == index)]
        count = int(own.max()) + 1 if len(own) else 0
        sizes, hits = np.bincount(own, minlength=count), np.bincount(hit, minlength=count)
        occurs = sizes > 0
        yield int((truth == index).sum()), sizes[occurs], hits[occurs]
