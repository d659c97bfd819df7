"""Bring probabilities from the prepared grid back onto the grid of the scan, slab by slab.

Whole volumes of float32, one a class, are what fills a memory at export. Here a slab of a few native planes is made at
a time, from the prepared planes next to it, and its reader (a mask, a map of entropy) keeps what it needs. Where the
axes of both grids run alike the interpolation is separable: each prepared plane is interpolated once within itself, and
a native plane is a mean of two of these.

The prepared grid covers the field of view with a whole number of voxels (:meth:`neoseg.volume.Grid.with_spacing`), so
it may end up to a quarter of its own voxel before the scan does, at either end of an axis: rounding makes it shorter by
half a voxel at most, and it stays centred. Native voxels there take the value of the nearest prepared plane.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import GeometryError
from ..register.transforms import Transform
from ..volume import Grid

__all__ = ["largest_class", "restore", "restored_classes", "restored_slabs", "slab_planes"]

_SNAP = 1e-5
"""Voxels; nearer than this to a voxel centre counts as on it, so that a crop comes back with the same bits."""

_ROUNDED = 0.25
"""Prepared voxels by which the prepared grid may end before the field of view that it was made for."""

SLAB_VOXELS = 2**18
"""Voxels of a slab: few enough for the processor's cache, enough to make little of the cost of starting one."""


def restore(
    probabilities: NDArray[np.float32],
    prepared: Grid,
    native: Grid,
    transform: Transform | None = None,
    *,
    outside: Sequence[float] | None = None,
) -> NDArray[np.float32]:
    """Resample class probabilities onto the native grid, linearly, through world coordinates.

    A native voxel whose centre lies outside the field of view of the prepared grid is background with probability 1.
    That field of view reaches to the outer voxel faces, and a quarter of a prepared voxel beyond: as far as the grid
    may have lost by holding whole voxels only. In a template's space it ends at the faces, for the template's grid was
    not made from the scan's. Where prepared voxels coincide with native ones (a crop, a flip) the values are copied bit
    by bit.

    Args:
        probabilities: ``(classes, x, y, z)`` or ``(classes, x, y)`` on the prepared grid, class 0 background.
        prepared: the grid that the network saw.
        native: the scan's grid.
        transform: native world to the world of ``prepared``, the one whose inverse brought the image there; ``None``:
            both are one world.
        outside: value of each channel outside the field of view; default that of class 0.

    Returns:
        ``(classes, *native.shape)`` float32; the sum over the classes stays 1.

    Raises:
        GeometryError: the array does not fit the prepared grid, or the grids differ in dimensions.
    """
    slabs = restored_slabs(probabilities, prepared, native, transform, outside=outside)
    result = np.empty((probabilities.shape[0], *native.shape), dtype=np.float32)
    for first, values in slabs:
        result[:, first : first + values.shape[1]] = values
    return result


def restored_classes(
    values: NDArray[np.float32],
    prepared: Grid,
    native: Grid,
    transform: Transform | None = None,
    *,
    decide: Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None = None,
) -> NDArray[np.uint8]:
    """Return the class of each native voxel without ever holding the native probabilities of a whole volume.

    Args:
        values: ``(classes, x, y, z)`` on the prepared grid: probabilities, or logits when ``decide`` only compares.
        prepared, native, transform: see :func:`restore`.
        decide: ``(classes, ...)`` to class indices ``(...)``; default :func:`largest_class`.

    Returns:
        uint8 on the native grid, equal to deciding on the result of :func:`restore`.

    Raises:
        GeometryError: as :func:`restore`.
    """
    decide = decide or largest_class
    slabs = restored_slabs(values, prepared, native, transform)
    result = np.zeros(native.shape, dtype=np.uint8)
    for first, slab in slabs:
        result[first : first + slab.shape[1]] = decide(slab)
    return result


def restored_slabs(
    values: NDArray[np.float32],
    prepared: Grid,
    native: Grid,
    transform: Transform | None = None,
    *,
    outside: Sequence[float] | None = None,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give the native volume as slabs along its first axis, in order; together they are :func:`restore`.

    Args:
        values: ``(channels, x, y, z)`` on the prepared grid, in memory or mapped from a file.
        prepared, native, transform: see :func:`restore`.
        outside: value of each channel outside the field of view; default 1 for the first, 0 for the others.

    Returns:
        Pairs (first plane, float32 ``(channels, planes, y, z)``); an array is valid until the next one is asked for.

    Raises:
        GeometryError: as :func:`restore`, before the first slab.
    """
    if values.shape[1:] != prepared.shape or prepared.ndim != native.ndim:
        raise GeometryError(
            f"Probabilities of shape {values.shape} on a prepared grid {prepared.shape} cannot be restored to "
            f"a grid {native.shape}: (classes, *prepared shape) and equal dimensions are wanted."
        )
    border = np.zeros(values.shape[0], dtype=np.float32)
    border[0] = 1
    if outside is not None:
        border[:] = outside
    if transform is not None:
        return _scattered(values, border, native, lambda part: prepared.to_index(transform.on_grid(part)).T, 0.0)
    to_prepared = np.linalg.inv(prepared.affine) @ native.affine
    axes = _aligned_axes(to_prepared[:-1, :-1])
    if axes is None:
        return _scattered(values, border, native, lambda part: prepared.to_index(_points(part)).T, _ROUNDED)
    lines = [
        _Line.of(to_prepared[axes[i], i], to_prepared[axes[i], -1], native.shape[i], prepared.shape[axes[i]])
        for i in range(native.ndim)
    ]
    return _separable(np.transpose(values, (0, *(a + 1 for a in axes))), lines, border, native.shape)


def slab_planes(shape: Sequence[int]) -> int:
    """Return how many planes along the first axis a slab of a volume has."""
    return int(max(1, min(shape[0], SLAB_VOXELS // int(np.prod(shape[1:])))))


def largest_class(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the index of the largest of the channels ``(classes, ...)``, the lower one of equals.

    Same as ``argmax``, without its array of int64.
    """
    channels = torch.from_numpy(values)
    best, found = channels[0].clone(), torch.zeros(values.shape[1:], dtype=torch.uint8)
    for index in range(1, len(channels)):
        found.masked_fill_(channels[index] > best, index)
        torch.maximum(best, channels[index], out=best)
    return np.asarray(found.numpy())


@dataclass(frozen=True)
class _Line:
    """Linear interpolation along one axis, for the targets ``first`` to ``last`` that lie in the field of view."""

    first: int
    last: int
    low: NDArray[np.intp]
    high: NDArray[np.intp]
    share: NDArray[np.float32]

    @staticmethod
    def of(step: float, offset: float, targets: int, sources: int) -> _Line:
        place = step * np.arange(targets) + offset
        whole = np.rint(place)
        place = np.where(np.abs(place - whole) < _SNAP, whole, place)
        reach = 0.5 + _ROUNDED + _SNAP
        inside = np.flatnonzero((place >= -reach) & (place <= sources - 1 + reach))
        if not len(inside):
            none = np.zeros(0, dtype=np.intp)
            return _Line(0, 0, none, none, np.zeros(0, dtype=np.float32))
        first, last = int(inside[0]), int(inside[-1]) + 1
        place = np.clip(place[first:last], 0, sources - 1)
        low = np.floor(place).astype(np.intp)
        return _Line(first, last, low, np.minimum(low + 1, sources - 1), (place - low).astype(np.float32))

    def interpolate(self, values: Tensor, axis: int) -> Tensor:
        """Interpolate along an axis, counted from the last as -1, -2."""
        result = values.index_select(axis, torch.from_numpy(self.low))
        if not self.share.any():
            return result
        share = torch.from_numpy(self.share).reshape(-1, *[1] * (-axis - 1))
        return torch.lerp(result, values.index_select(axis, torch.from_numpy(self.high)), share)


def _separable(
    values: NDArray[np.float32], lines: Sequence[_Line], border: NDArray[np.float32], shape: Sequence[int]
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give the slabs of a volume whose axes run along those of ``values`` (transposed to them already)."""
    across, *within = lines
    planes = slab_planes(shape)
    frame = torch.from_numpy(border).reshape(-1, *[1] * len(shape))
    buffer = torch.empty((len(border), planes, *shape[1:]))
    place = tuple(slice(line.first, line.last) for line in within)
    empty = any(line.first >= line.last for line in lines)
    whole = not empty and all((line.first, line.last) == (0, n) for line, n in zip(within, shape[1:], strict=True))
    source = _Planes(values, within)
    for first in range(0, shape[0], planes):
        count = min(planes, shape[0] - first)
        slab = buffer[:, :count]
        if not whole or first < across.first or first + count > across.last:
            slab[:] = frame
        for i in range(max(first, across.first), 0 if empty else min(first + count, across.last)):
            at = i - across.first
            low, share = source[int(across.low[at])], float(across.share[at])
            target = slab[:, i - first][(slice(None), *place)]
            if share == 0:
                target.copy_(low)
            elif target.is_contiguous():
                torch.lerp(low, source[int(across.high[at])], share, out=target)
            else:
                target.copy_(torch.lerp(low, source[int(across.high[at])], share))
        yield first, slab.numpy()


class _Planes:
    """The planes of a volume, each interpolated within itself; the last two are kept."""

    def __init__(self, values: NDArray[np.float32], within: Sequence[_Line]) -> None:
        self._values, self._within = values, within
        self._kept: dict[int, Tensor] = {}

    def __getitem__(self, index: int) -> Tensor:
        if index not in self._kept:
            while len(self._kept) > 1:
                del self._kept[next(iter(self._kept))]
            plane = torch.from_numpy(np.array(self._values[:, index], dtype=np.float32, order="C"))
            for axis in range(-1, -len(self._within) - 1, -1):
                plane = self._within[axis].interpolate(plane, axis)
            self._kept[index] = plane
        return self._kept[index]


def _aligned_axes(matrix: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Return for each native axis the prepared axis that runs along it, ``None`` when the grids are turned."""
    axes = tuple(int(i) for i in np.abs(matrix).argmax(axis=0))
    rest = np.abs(matrix) / np.abs(matrix).max(axis=0)
    rest[list(axes), range(len(axes))] = 0
    # over a whole field of view of some hundred voxels a smaller slope moves less than a thousandth of a voxel
    return axes if len(set(axes)) == len(axes) and rest.max() < 1e-6 else None


def _points(grid: Grid) -> NDArray[np.float64]:
    return grid.to_world(np.stack([i.ravel() for i in np.indices(grid.shape)], axis=1))


def _scattered(
    values: NDArray[np.float32],
    border: NDArray[np.float32],
    native: Grid,
    places: Callable[[Grid], NDArray[np.float64]],
    beyond: float,
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Give the slabs of a volume whose voxels lie anywhere.

    Args:
        values, border: as for the whole.
        native: the grid of the volume.
        places: of the voxels of a part of that grid, ``(d, n)`` in prepared voxels.
        beyond: prepared voxels beyond the outer faces where the nearest plane still counts.
    """
    planes, rest = slab_planes(native.shape), native.shape[1:]
    for first in range(0, native.shape[0], planes):
        count = min(planes, native.shape[0] - first)
        part = native.cropped((first, *(0 for _ in rest)), (count, *rest))
        slab = np.empty((len(border), count, *rest), dtype=np.float32)
        slab[:] = border.reshape(-1, *[1] * native.ndim)
        _fill(values, places(part), slab, beyond)
        yield first, slab


def _fill(values: NDArray[np.float32], place: NDArray[np.float64], result: NDArray[np.float32], beyond: float) -> None:
    """Interpolate at the places ``(d, n)`` (prepared voxels) of a result ``(channels, ...)`` of n voxels."""
    from scipy.ndimage import map_coordinates

    sources = np.array(values.shape[1:])[:, None]
    inside = ((place >= -0.5 - beyond) & (place <= sources - 0.5 + beyond)).all(axis=0)
    if not inside.any():
        return
    place = np.clip(place[:, inside], 0, sources - 1)
    # Only the part of the volume that the places touch is read: the rest may lie on the disk.
    low = np.floor(place.min(axis=1)).astype(int)
    high = np.ceil(place.max(axis=1)).astype(int) + 1
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    for source, target in zip(values, result, strict=True):
        block = np.asarray(source[box])
        target[inside.reshape(target.shape)] = map_coordinates(block, place - low[:, None], order=1, mode="nearest")
