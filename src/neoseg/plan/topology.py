"""Grid, stem and patch of a network whose stages halve every axis after a stem of its own stride."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["median_shape", "patch_for", "stem_for", "target_spacing"]

LARGE_VOLUME = 600_000
"""Voxels of the typical foreground box above which the stem strides by 4 instead of 2."""


def target_spacing(spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]]) -> tuple[float, ...]:
    """Return the spacing of the network's grid by nnU-Net's rule (v2, full resolution).

    The median of each axis; when the coarsest axis is more than 3 times coarser than the others and has less than a
    third of their voxels, its 10th percentile, but never finer than the coarsest of the others.
    """
    table = np.asarray(spacings, dtype=np.float64)
    target = np.median(table, axis=0)
    sizes = np.median(np.asarray(shapes, dtype=np.float64), axis=0)
    worst = int(np.argmax(target))
    others = [i for i in range(len(target)) if i != worst]
    if target[worst] > 3 * target[others].max() and 3 * sizes[worst] < sizes[others].min():
        target[worst] = max(float(np.percentile(table[:, worst], 10)), target[others].max() + 1e-5)
    return tuple(float(round(t, 4)) for t in target)


def median_shape(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]], target: Sequence[float]
) -> tuple[int, ...]:
    """Return the median size in voxels of the cases once they have the target spacing."""
    resampled = np.rint(np.asarray(spacings) / np.asarray(target) * np.asarray(shapes))
    return tuple(int(n) for n in np.median(resampled, axis=0))


def stem_for(spacing: Sequence[float], shape: Sequence[int]) -> tuple[int, ...]:
    """Return the stride of the first layer: tokens as near to cubes as powers of two allow.

    The finest axis is divided by 4 (by 2 when the typical volume has fewer than 600,000 voxels, where small lesions
    matter more than speed); a coarser axis is divided by as much less as it is coarser.
    """
    finest = min(spacing)
    base = 4 if math.prod(shape) > LARGE_VOLUME else 2
    powers = (round(math.log2(max(1.0, base * finest / s))) for s in spacing)
    return tuple(int(2**p) for p in powers)


def patch_for(
    largest: Sequence[int], typical: Sequence[int], multiple: Sequence[int], most_voxels: int
) -> tuple[tuple[int, ...], bool]:
    """Return the patch and whether it covers the largest training volume in one piece.

    The largest volume is rounded up to the network's multiples. While that exceeds ``most_voxels``, the axis with the
    largest ratio of patch to typical size loses one multiple (nnU-Net's rule), down to one multiple an axis.
    """
    patch = [max(m, math.ceil(n / m) * m) for n, m in zip(largest, multiple, strict=True)]
    whole = True
    while math.prod(patch) > most_voxels and any(p > m for p, m in zip(patch, multiple, strict=True)):
        ratio = [p / max(t, 1) if p > m else -1.0 for p, t, m in zip(patch, typical, multiple, strict=True)]
        axis = int(np.argmax(ratio))
        patch[axis] -= multiple[axis]
        whole = False
    return tuple(patch), whole
