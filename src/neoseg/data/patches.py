"""Where the next training patch is cut, and the cutting itself.

Small lesions are the hard part of a lesion data set and hold few of its voxels: when a voxel is drawn directly, one
large lesion hides twenty small ones. So a lesion is drawn first and a voxel of it second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["PatchSampler", "Position", "clamped_start", "clipped", "cut"]

VOXELS_PER_LESION = 2000
"""How many voxels of one lesion are remembered; more of them would change nothing but memory."""


@dataclass(frozen=True)
class Position:
    """One patch to cut.

    Attributes:
        case: index of the case.
        start: first voxel of the patch along each axis; negative where the patch is larger than the image.
        foreground: whether it was placed on a lesion (True) or anywhere (False).
    """

    case: int
    start: tuple[int, ...]
    foreground: bool


@dataclass(frozen=True)
class _Lesions:
    """The connected components of one class in one case."""

    voxels: tuple[NDArray[np.int64], ...]
    weights: NDArray[np.float64]


def clamped_start(centre: Sequence[int], shape: Sequence[int], patch: Sequence[int]) -> tuple[int, ...]:
    """Return the first voxel of the patch around a voxel, moved inside the image where the image is large enough.

    Along an axis on which the image is smaller than the patch, the image lies in the middle of the patch (the start is
    then negative, and the odd voxel of padding comes first).
    """
    return tuple(
        min(max(c - p // 2, 0), n - p) if n >= p else (n - p) // 2 for c, n, p in zip(centre, shape, patch, strict=True)
    )


def clipped(start: Sequence[int], size: Sequence[int], shape: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return first voxel and size of what of a box lies in an image of a shape; the two have to overlap."""
    low = tuple(max(s, 0) for s in start)
    return low, tuple(min(s + p, n) - a for a, s, p, n in zip(low, start, size, shape, strict=True))


def cut(
    array: NDArray[Any], start: Sequence[int], patch: Sequence[int], fill: float | Sequence[float] = 0.0
) -> NDArray[Any]:
    """Copy a patch out of an array ``(c, x, y, z)`` or ``(c, x, y)``; reads only the patch from a memory map.

    Args:
        array: channels first.
        start: first voxel along each spatial axis, may be negative.
        patch: voxels along each spatial axis.
        fill: value outside the image, one number or one a channel.

    Returns:
        A new array ``(c, *patch)`` of the same type.
    """
    shape = array.shape[1:]
    result = np.empty((array.shape[0], *patch), dtype=array.dtype)
    low = [max(s, 0) for s in start]
    high = [min(s + p, n) for s, p, n in zip(start, patch, shape, strict=True)]
    inside = all(a == s and b == s + p for a, b, s, p in zip(low, high, start, patch, strict=True))
    if not inside:
        result[...] = np.asarray(fill, dtype=array.dtype).reshape((-1,) + (1,) * len(shape))
    if all(b > a for a, b in zip(low, high, strict=True)):
        there = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, start, strict=True))
        here = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        result[(slice(None), *there)] = array[(slice(None), *here)]
    return result


class PatchSampler:
    """Draws patch positions: a share of them on lesions, the others anywhere.

    A position on a lesion is drawn in four steps: a case uniformly among those with any foreground; one of its classes
    uniformly; a connected component of that class (26 neighbours, 8 in 2-D) with probability proportional to
    ``volume ** lesion_power``; a voxel of it uniformly. The patch is centred on the voxel and then moved inside the
    image. Any other position is a case drawn uniformly among all and a start drawn uniformly inside it.
    """

    def __init__(
        self,
        labels: Sequence[NDArray[np.uint8]],
        patch: Sequence[int],
        *,
        foreground_fraction: float = 0.5,
        lesion_power: float = 0.5,
    ) -> None:
        """Find and remember the lesions.

        Args:
            labels: class indices ``(x, y, z)`` or ``(x, y)``, one array a case; 0 is background.
            patch: voxels along each axis.
            foreground_fraction: expected share of positions on a lesion, 0..1. Of a batch of b, ``b * fraction`` are
                (the fractional part by chance), so with 0.5 one patch of two always is.
            lesion_power: 0 draws every lesion equally often, 1 by its volume; 0.5 lies between: it follows the
                lesion's linear size to the power 1.5 and is not carried away by specks of one voxel.

        Raises:
            InputError: there is no case.
        """
        if not labels:
            raise InputError("There is no case to draw patches from; at least one labelled training case is wanted.")
        self._shapes = [label.shape for label in labels]
        self._patch = tuple(int(p) for p in patch)
        self._fraction = foreground_fraction
        self._lesions = [_lesions_of(label, lesion_power) for label in labels]
        self._with_foreground = [i for i, lesions in enumerate(self._lesions) if lesions]

    def draw(self, generator: np.random.Generator, count: int, patch: tuple[int, ...] | None = None) -> list[Position]:
        """Draw the positions of one batch, of the sampler's patch or another one; the lesion positions come first."""
        patch = patch or self._patch
        wanted = count * self._fraction
        on_lesion = math.floor(wanted) + int(generator.random() < wanted - math.floor(wanted))
        if not self._with_foreground:
            on_lesion = 0
        return [self._draw_lesion(generator, patch) for _ in range(on_lesion)] + [
            self._draw_anywhere(generator, patch) for _ in range(count - on_lesion)
        ]

    def _draw_lesion(self, generator: np.random.Generator, patch: tuple[int, ...]) -> Position:
        case = self._with_foreground[int(generator.integers(len(self._with_foreground)))]
        lesions = self._lesions[case][int(generator.integers(len(self._lesions[case])))]
        voxels = lesions.voxels[int(generator.choice(len(lesions.voxels), p=lesions.weights))]
        flat = int(voxels[int(generator.integers(len(voxels)))])
        centre = [int(i) for i in np.unravel_index(flat, self._shapes[case])]
        return Position(case, clamped_start(centre, self._shapes[case], patch), True)

    def _draw_anywhere(self, generator: np.random.Generator, patch: tuple[int, ...]) -> Position:
        case = int(generator.integers(len(self._shapes)))
        start = tuple(
            int(generator.integers(n - p + 1)) if n >= p else (n - p) // 2
            for n, p in zip(self._shapes[case], patch, strict=True)
        )
        return Position(case, start, False)


def _lesions_of(label: NDArray[np.uint8], power: float) -> list[_Lesions]:
    """Return the components of a label, grouped by class (classes that do not occur are left out)."""
    import cc3d

    label = np.ascontiguousarray(label)
    flat = np.flatnonzero(label)
    if not len(flat):
        return []
    components = cc3d.connected_components(np.array(label), connectivity=26 if label.ndim == 3 else 8).ravel()[flat]
    order = np.argsort(components, kind="stable")
    groups = np.split(flat[order], np.flatnonzero(np.diff(components[order])) + 1)
    values = label.ravel()
    few = np.random.default_rng(0)
    result = []
    for value in np.unique(values[flat]):
        own = [group for group in groups if values[group[0]] == value]
        weights = np.array([len(group) for group in own], dtype=np.float64) ** power
        kept = tuple(
            group if len(group) <= VOXELS_PER_LESION else few.choice(group, VOXELS_PER_LESION, replace=False)
            for group in own
        )
        result.append(_Lesions(kept, weights / weights.sum()))
    return result
