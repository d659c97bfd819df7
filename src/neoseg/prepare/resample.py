"""Images and labels onto another grid, through world coordinates; thick slices are not mixed with each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError
from ..volume import Grid, Volume, same_grid

__all__ = ["THICK", "index_map", "resample_image", "resample_label", "slice_axis"]

THICK = 3.0
"""Slices this many times thicker than the finest voxel side are taken as they are, not interpolated between."""

_SNAP = 1e-4
"""Voxels; nearer than this to a voxel centre, or to the middle between two, counts as on it: headers are rounded."""


def slice_axis(spacing_mm: Sequence[float], new_mm: Sequence[float]) -> int | None:
    """Return the axis across which slices are taken as they are, or None.

    nnU-Net's rule: the largest spacing is more than :data:`THICK` times the smallest, in the present spacing or else
    in the new one, and only one axis has it. Two-dimensional images have no such axis.

    Args:
        spacing_mm, new_mm: along the same axes.
    """
    for spacing in (spacing_mm, new_mm):
        if len(spacing) == 3 and max(spacing) > THICK * min(spacing):
            coarse = [a for a, s in enumerate(spacing) if s > 0.999 * max(spacing)]
            return coarse[0] if len(coarse) == 1 else None
    return None


def index_map(source: Grid, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (matrix, offset) that take voxel indices of ``target`` to voxel indices of ``source``."""
    both = np.linalg.inv(source.affine) @ target.affine
    return both[:-1, :-1], both[:-1, -1]


def resample_image(volume: Volume, grid: Grid, order: Literal[1, 3] = 3) -> Volume:
    """Interpolate every channel at the voxels of ``grid``; outside the field of view the nearest voxel counts.

    Between thick slices (:func:`slice_axis`) nothing is interpolated: each new slice is the nearest old one, resampled
    in its plane. Grids may differ in order and direction of their axes. On grids that are turned against each other
    all axes are interpolated alike. Where the new voxels coincide with old ones (a crop), values are copied.

    Args:
        volume: any numeric array; the result is float32.
        grid: where to interpolate.
        order: spline order; 3 for images, 1 where new extremes must not appear.

    Raises:
        GeometryError: the fields of view do not overlap, or the grids differ in dimensions.
    """
    if same_grid(volume.grid, grid):
        return Volume(np.asarray(volume.array, dtype=np.float32), grid)
    _overlap(volume.grid, grid)
    lattice = _Lattice.between(volume.grid, grid)
    channels = [np.asarray(channel, dtype=np.float32) for channel in volume.array]
    if lattice is None:
        return Volume(np.stack([_turned(channel, volume.grid, grid, order) for channel in channels]), grid)
    axis = slice_axis(lattice.spacing_mm, grid.spacing)
    return Volume(np.stack([lattice.image(channel, order, axis) for channel in channels]), grid)


def resample_label(label: Volume, grid: Grid) -> Volume:
    """Interpolate each class linearly as a 0/1 image and take the largest, so that borders stay where they are.

    Thick slices are treated as in :func:`resample_image`. Outside the field of view (the outer voxel faces) is class 0.
    Of two classes with the same share the lower one is taken.

    Args:
        label: classes 0..n, an integer type, one channel.
        grid: where to interpolate.

    Raises:
        GeometryError: the fields of view do not overlap, or the grids differ in dimensions.
    """
    if same_grid(label.grid, grid):
        return Volume(label.array, grid)
    inside = _overlap(label.grid, grid)
    lattice = _Lattice.between(label.grid, grid)
    axis = None if lattice is None else slice_axis(lattice.spacing_mm, grid.spacing)
    best = np.full(grid.shape, -1.0, dtype=np.float32)
    result = np.zeros(grid.shape, dtype=label.array.dtype)
    for index in np.unique(label.array):
        whole = (label.array[0] == index).astype(np.float32)
        share = _turned(whole, label.grid, grid, 1) if lattice is None else lattice.linear(whole, axis)
        larger = share > best + 1e-6
        best[larger], result[larger] = share[larger], index
    result[~inside] = 0
    return Volume(result[None], grid)


@dataclass(frozen=True)
class _Lattice:
    """How the voxels of a source lie along the axes of a target, where no grid is turned against the other.

    Attributes:
        axes, flips: the source's axes and directions that run along the target's.
        step, offset: target index to index of the source once it is transposed and flipped; steps are positive.
        shape: of the target.
        spacing_mm: of the source, along the target's axes.
        upward: whether a target axis runs to larger world coordinates; it decides between two equally near slices, so
            that the way a file is stored does not.
    """

    axes: tuple[int, ...]
    flips: tuple[int, ...]
    step: tuple[float, ...]
    offset: tuple[float, ...]
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    upward: tuple[bool, ...]

    @classmethod
    def between(cls, source: Grid, target: Grid) -> Self | None:
        matrix, offset = index_map(source, target)
        axes = tuple(int(a) for a in np.abs(matrix).argmax(axis=0))
        if len(set(axes)) < len(axes):
            return None
        rest = matrix.copy()
        rest[list(axes), range(len(axes))] = 0
        if np.abs(rest * np.asarray(target.shape)).max() > 1e-4:  # voxels, from one end of the target to the other
            return None
        along = [matrix[a, i] for i, a in enumerate(axes)]
        start = [source.shape[a] - 1 - offset[a] if s < 0 else offset[a] for a, s in zip(axes, along, strict=True)]
        world = target.directions
        return cls(
            axes=axes,
            flips=tuple(i for i, s in enumerate(along) if s < 0),
            step=tuple(abs(float(s)) for s in along),
            offset=tuple(float(o) for o in start),
            shape=target.shape,
            spacing_mm=tuple(source.spacing[a] for a in axes),
            upward=tuple(bool(d[np.abs(d).argmax()] > 0) for d in world.T),
        )

    def image(self, channel: NDArray[np.float32], order: Literal[1, 3], axis: int | None) -> NDArray[np.float32]:
        """Interpolate one channel; ``axis``: across which the nearest slice is taken."""
        from scipy.ndimage import affine_transform

        if order == 1 or all(self._copies(i) for i in range(len(self.shape)) if i != axis):
            return self.linear(channel, axis)
        values, where = self._upright(channel), list(range(len(self.shape)))
        if axis is not None:
            where.remove(axis)
            values = np.moveaxis(values, axis, 0)
            slices, back = np.unique(self._nearest(axis, len(values)), return_inverse=True)
            values = values[slices]
        arguments: dict[str, Any] = {
            "matrix": [self.step[i] for i in where],
            "offset": [self._snapped(i) for i in where],
            "output_shape": tuple(self.shape[i] for i in where),
            "order": order,
            "mode": "nearest",
        }
        if axis is None:
            return np.asarray(affine_transform(values, **arguments), dtype=np.float32)
        done = np.stack([affine_transform(plane, **arguments) for plane in values])
        return np.ascontiguousarray(np.moveaxis(done[back], 0, axis), dtype=np.float32)

    def linear(self, channel: NDArray[np.float32], axis: int | None) -> NDArray[np.float32]:
        """Interpolate linearly along every axis but ``axis``, across which the nearest slice is taken."""
        values = self._upright(channel)
        for i in range(len(self.shape)):
            if i == axis:
                values = np.take(values, self._nearest(i, values.shape[i]), axis=i)
                continue
            place = np.clip(self._places(i), 0, values.shape[i] - 1)
            low = np.floor(place).astype(np.intp)
            share = (place - low).astype(np.float32).reshape([-1 if j == i else 1 for j in range(values.ndim)])
            first = np.take(values, low, axis=i)
            if share.any():
                first += share * (np.take(values, np.minimum(low + 1, values.shape[i] - 1), axis=i) - first)
            values = first
        return np.ascontiguousarray(values, dtype=np.float32)

    def _upright(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.flip(np.transpose(channel, self.axes), self.flips)

    def _copies(self, i: int) -> bool:
        return bool((self._places(i) % 1 == 0).all())

    def _snapped(self, i: int) -> float:
        """Return the offset so that a grid of the same spacing meets voxel centres exactly."""
        return float(self._places(i)[0])

    def _places(self, i: int) -> NDArray[np.float64]:
        place = self.step[i] * np.arange(self.shape[i]) + self.offset[i]
        whole = np.rint(place)
        return np.where(np.abs(place - whole) < _SNAP, whole, place)

    def _nearest(self, i: int, count: int) -> NDArray[np.intp]:
        place = self._places(i)
        # Half-way between two slices the upper one in the world is taken.
        shift = _SNAP if self.upward[i] else -_SNAP
        return np.clip(np.floor(place + 0.5 + shift), 0, count - 1).astype(np.intp)


def _turned(channel: NDArray[np.float32], source: Grid, target: Grid, order: Literal[1, 3]) -> NDArray[np.float32]:
    from scipy.ndimage import affine_transform

    matrix, offset = index_map(source, target)
    values = affine_transform(channel, matrix, offset, output_shape=target.shape, order=order, mode="nearest")
    return np.asarray(values, dtype=np.float32)


def _overlap(source: Grid, target: Grid) -> NDArray[np.bool_]:
    """Return which voxel centres of the target lie in the source's field of view.

    Raises:
        GeometryError: none does, or the grids differ in dimensions.
    """
    if source.ndim != target.ndim:
        raise GeometryError(f"A {source.ndim}-D volume cannot be resampled to a {target.ndim}-D grid.")
    matrix, offset = index_map(source, target)
    inside = np.ones(target.shape, dtype=np.bool_)
    lines = np.ogrid[tuple(slice(n) for n in target.shape)]
    for row, start, count in zip(matrix, offset, source.shape, strict=True):
        place = sum((slope * line for slope, line in zip(row, lines, strict=True)), start=np.asarray(start))
        inside &= (place >= -0.5 - _SNAP) & (place <= count - 0.5 + _SNAP)
    if not inside.any():
        raise GeometryError(
            f"The fields of view do not overlap: the volume is centred at {_shown(source)} mm and the grid at "
            f"{_shown(target)} mm; check the positions in the files' headers."
        )
    return inside


def _shown(grid: Grid) -> str:
    return "(" + ", ".join(f"{c:.0f}" for c in grid.centre) + ")"
