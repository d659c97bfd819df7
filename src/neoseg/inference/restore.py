"""Bring probabilities from the prepared grid back onto the grid of the scan."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError
from ..register.transforms import Transform
from ..volume import Grid

__all__ = ["restore"]

_SNAP = 1e-5
"""Voxels; nearer than this to a voxel centre counts as on it, so that a crop comes back with the same bits."""


def restore(
    probabilities: NDArray[np.float32], prepared: Grid, native: Grid, transform: Transform | None = None
) -> NDArray[np.float32]:
    """Resample class probabilities onto the native grid, linearly, through world coordinates.

    A native voxel whose centre lies outside the field of view of the prepared grid (its outer voxel faces) is
    background with probability 1. Where prepared voxels coincide with native ones (a crop, a flip) the values are
    copied bit by bit.

    Args:
        probabilities: ``(classes, x, y, z)`` or ``(classes, x, y)`` on the prepared grid, class 0 background.
        prepared: the grid that the network saw.
        native: the scan's grid.
        transform: native world to the world of ``prepared``, the one whose inverse brought the image there; ``None``:
            both are one world.

    Returns:
        ``(classes, *native.shape)`` float32; the sum over the classes stays 1.

    Raises:
        GeometryError: the array does not fit the prepared grid, or the grids differ in dimensions.
    """
    if probabilities.shape[1:] != prepared.shape or prepared.ndim != native.ndim:
        raise GeometryError(
            f"Probabilities of shape {probabilities.shape} on a prepared grid {prepared.shape} cannot be restored to "
            f"a grid {native.shape}: (classes, *prepared shape) and equal dimensions are wanted."
        )
    result = np.zeros((probabilities.shape[0], *native.shape), dtype=np.float32)
    result[0] = 1
    if transform is not None:
        _fill(probabilities, prepared.to_index(transform.on_grid(native)).T, result)
        return result
    to_prepared = np.linalg.inv(prepared.affine) @ native.affine
    axes = _aligned_axes(to_prepared[:-1, :-1])
    if axes is None:
        _restore_oblique(probabilities, to_prepared, result)
        return result
    lines = [
        _Line.of(to_prepared[axes[i], i], to_prepared[axes[i], -1], native.shape[i], prepared.shape[axes[i]])
        for i in range(native.ndim)
    ]
    if any(line.first >= line.last for line in lines):
        return result
    place = tuple(slice(line.first, line.last) for line in lines)
    for source, target in zip(probabilities, result, strict=True):
        values = np.transpose(source, axes)
        for axis, line in enumerate(lines):
            values = line.interpolate(values, axis)
        target[place] = values
    return result


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
        inside = np.flatnonzero((place >= -0.5 - _SNAP) & (place <= sources - 0.5 + _SNAP))
        if not len(inside):
            none = np.zeros(0, dtype=np.intp)
            return _Line(0, 0, none, none, np.zeros(0, dtype=np.float32))
        first, last = int(inside[0]), int(inside[-1]) + 1
        place = np.clip(place[first:last], 0, sources - 1)
        low = np.floor(place).astype(np.intp)
        return _Line(first, last, low, np.minimum(low + 1, sources - 1), (place - low).astype(np.float32))

    def interpolate(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        result = np.take(values, self.low, axis=axis)
        if self.share.any():
            share = self.share.reshape([-1 if i == axis else 1 for i in range(values.ndim)])
            result += share * (np.take(values, self.high, axis=axis) - result)
        return result


def _aligned_axes(matrix: NDArray[np.float64]) -> tuple[int, ...] | None:
    """Return for each native axis the prepared axis that runs along it, ``None`` when the grids are turned."""
    axes = tuple(int(i) for i in np.abs(matrix).argmax(axis=0))
    rest = np.abs(matrix) / np.abs(matrix).max(axis=0)
    rest[list(axes), range(len(axes))] = 0
    # over a whole field of view of some hundred voxels a smaller slope moves less than a thousandth of a voxel
    return axes if len(set(axes)) == len(axes) and rest.max() < 1e-6 else None


def _restore_oblique(
    probabilities: NDArray[np.float32], to_prepared: NDArray[np.float64], result: NDArray[np.float32]
) -> None:
    """Fill the result slab by slab along its first axis, for grids that are turned against each other."""
    rest = np.indices(result.shape[2:], dtype=np.float64).reshape(result.ndim - 2, -1)
    for i in range(result.shape[1]):
        index = np.vstack([np.full((1, rest.shape[1]), i), rest])
        _fill(probabilities, to_prepared[:-1, :-1] @ index + to_prepared[:-1, -1:], result[:, i])


def _fill(probabilities: NDArray[np.float32], place: NDArray[np.float64], result: NDArray[np.float32]) -> None:
    """Interpolate at the places ``(d, n)`` (prepared voxels) of a result ``(classes, ...)`` of n voxels."""
    from scipy.ndimage import map_coordinates

    sources = np.array(probabilities.shape[1:])[:, None]
    inside = ((place >= -0.5) & (place <= sources - 0.5)).all(axis=0)
    if not inside.any():
        return
    place = np.clip(place[:, inside], 0, sources - 1)
    for source, target in zip(probabilities, result, strict=True):
        target[inside.reshape(target.shape)] = map_coordinates(source, place, order=1, mode="nearest")
