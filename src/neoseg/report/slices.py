"""From a volume to the pictures that a reader sees: which slices, which side is left, where the outline runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Convention",
    "Sides",
    "Slice",
    "bounding_box",
    "choose_slices",
    "cut",
    "interlaced",
    "outline",
    "pixel_mm",
    "sides",
]

Convention = Literal["radiological", "neurological"]
"""Radiological: the patient's right is at the left of the picture. Neurological: it is at the right."""

ORTHOGONAL_BELOW_MM = 80.0
"""A field of view smaller than this on each side is shown in its three planes, a larger one in axial slices."""


@dataclass(frozen=True)
class Slice:
    """The plane across one axis: 0 sagittal, 1 coronal, 2 axial, at one voxel index."""

    axis: int
    index: int

    @property
    def plane(self) -> str:
        """Name of the plane."""
        return ("sagittal", "coronal", "axial")[self.axis]


@dataclass(frozen=True)
class Sides:
    """The anatomical letters at the four sides of a picture."""

    left: str
    right: str
    top: str
    bottom: str


def cut(array: NDArray[Any], where: Slice, convention: Convention = "radiological") -> NDArray[Any]:
    """Return a slice of ``(x, y, z)`` (RAS+) as a picture ``(rows, columns)``, row 0 at the top, column 0 at the left.

    Axial: anterior on top. Coronal and sagittal: superior on top. Sagittal: anterior at the left. Left and right
    follow the convention.
    """
    plane: NDArray[Any] = np.take(array, where.index, axis=where.axis)
    mirrored = where.axis == 0 or convention == "radiological"
    picture = plane.T[::-1]
    return picture[:, ::-1] if mirrored else picture


def sides(where: Slice, convention: Convention = "radiological") -> Sides:
    """Return the letters that belong to the picture of :func:`cut`."""
    left, right = ("R", "L") if convention == "radiological" else ("L", "R")
    return (Sides("A", "P", "S", "I"), Sides(left, right, "S", "I"), Sides(left, right, "A", "P"))[where.axis]


def pixel_mm(spacing_mm: Sequence[float], where: Slice) -> tuple[float, float]:
    """Return the height and the width (mm) of one pixel of the picture of :func:`cut`."""
    across = [spacing_mm[axis] for axis in range(3) if axis != where.axis]
    return float(across[1]), float(across[0])


def choose_slices(
    masks: Sequence[NDArray[Any]], head: NDArray[Any], spacing_mm: Sequence[float], count: int = 3
) -> tuple[Slice, ...]:
    """Choose the slices that tell most: axial ones, or the three planes through the middle of a small volume.

    Axial slices are taken by the area of all masks together, largest first, each at least a tenth of the head's
    height away from those already taken; without (enough) marked slices, the widest gaps of the head are filled.

    Args:
        masks: truth and prediction, ``(x, y, z)``, whatever is not 0 counts.
        head: ``(x, y, z)`` bool, where the image has content.
        spacing_mm: voxel size.
        count: axial slices at most.
    """
    area = np.zeros(head.shape[2])
    for mask in masks:
        area += (mask != 0).sum(axis=(0, 1))
    if max(n * s for n, s in zip(head.shape, spacing_mm, strict=True)) < ORTHOGONAL_BELOW_MM:
        marked = np.any([mask != 0 for mask in masks], axis=0)
        return tuple(Slice(axis, _densest(marked if marked.any() else head, axis)) for axis in (2, 1, 0))
    content = np.flatnonzero(head.any(axis=(0, 1)) | (area > 0))
    if content.size == 0:
        content = np.arange(head.shape[2])
    first, last = int(content[0]), int(content[-1])
    gap = max(1, round((last - first + 1) / 10))
    chosen: list[int] = []
    for index in np.argsort(-area, kind="stable"):
        if len(chosen) < count and area[index] > 0 and all(abs(index - other) >= gap for other in chosen):
            chosen.append(int(index))
    while len(chosen) < min(count, content.size):
        chosen.append(_widest_gap([first - 1, *sorted(chosen), last + 1]))
    return tuple(Slice(2, index) for index in sorted(set(chosen)))


def bounding_box(mask: NDArray[Any], margin: int = 2) -> tuple[slice, ...]:
    """Return the smallest box around what is not 0, grown by a margin in voxels; everything when all is 0."""
    box = []
    for axis in range(mask.ndim):
        found = np.flatnonzero((mask != 0).any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        ends = (found[0], found[-1]) if found.size else (0, mask.shape[axis] - 1)
        box.append(slice(max(0, int(ends[0]) - margin), min(mask.shape[axis], int(ends[1]) + 1 + margin)))
    return tuple(box)


def outline(mask: NDArray[Any]) -> NDArray[np.float64]:
    """Return the edges between marked and unmarked pixels: ``(n, 2, 2)`` segments of (column, row) end points.

    Pixel ``(r, c)`` covers ``r - 0.5 .. r + 0.5``; a pixel at the border of the picture has its outer edge drawn too.
    """
    padded = np.pad(mask != 0, 1)
    row, column = np.nonzero(padded[1:, :] != padded[:-1, :])
    level = np.stack([np.stack([column - 1.5, row - 0.5], -1), np.stack([column - 0.5, row - 0.5], -1)], 1)
    row, column = np.nonzero(padded[:, 1:] != padded[:, :-1])
    upright = np.stack([np.stack([column - 0.5, row - 1.5], -1), np.stack([column - 0.5, row - 0.5], -1)], 1)
    return np.concatenate([level, upright]).astype(np.float64)


def interlaced(segments: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Leave out, two by two, the segments that lie among the others too: two outlines on one edge then alternate."""
    middles = np.rint(2 * segments.mean(axis=1)).astype(int)
    known = {(int(x), int(y)) for x, y in np.rint(2 * others.mean(axis=1))}
    shared = np.array([(int(x), int(y)) in known for x, y in middles], dtype=bool)
    upright = segments[:, 0, 0] == segments[:, 1, 0]
    along = np.where(upright, middles[:, 1], middles[:, 0]) // 4
    kept = ~(shared & ((along + upright) % 2 == 1))
    return np.asarray(segments[kept], dtype=np.float64)


def _densest(mask: NDArray[Any], axis: int) -> int:
    return int(np.argmax(mask.sum(axis=tuple(a for a in range(3) if a != axis))))


def _widest_gap(marks: Sequence[int]) -> int:
    steps = np.diff(marks)
    widest = int(np.argmax(steps))
    return int(marks[widest] + steps[widest] // 2)
