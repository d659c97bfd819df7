"""Images and labels onto another grid of the same axes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..volume import Grid, Volume, same_grid

__all__ = ["index_map", "resample_image", "resample_label"]


def index_map(source: Grid, target: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (matrix, offset) that take voxel indices of ``target`` to voxel indices of ``source``."""
    both = np.linalg.inv(source.affine) @ target.affine
    return both[:-1, :-1], both[:-1, -1]


def resample_image(volume: Volume, grid: Grid, order: Literal[1, 3] = 3) -> Volume:
    """Interpolate every channel at the voxels of ``grid``; outside the field of view the nearest voxel counts.

    Args:
        volume: any numeric array; the result is float32.
        grid: where to interpolate.
        order: spline order; 3 for images, 1 where new extremes must not appear.
    """
    from scipy.ndimage import affine_transform

    if same_grid(volume.grid, grid):
        return Volume(np.asarray(volume.array, dtype=np.float32), grid)
    matrix, offset = index_map(volume.grid, grid)
    channels = [
        affine_transform(
            np.asarray(channel, dtype=np.float32),
            _diagonal_or_full(matrix),
            offset,
            output_shape=grid.shape,
            order=order,
            mode="nearest",
        )
        for channel in volume.array
    ]
    return Volume(np.stack(channels), grid)


def resample_label(label: Volume, grid: Grid) -> Volume:
    """Interpolate each class linearly as a 0/1 image and take the largest, so that borders stay where they are.

    Args:
        label: classes 0..n, uint8, one channel.
        grid: where to interpolate.
    """
    if same_grid(label.grid, grid):
        return Volume(label.array, grid)
    classes = np.unique(label.array)
    best = np.full(grid.shape, -1.0, dtype=np.float32)
    result = np.zeros(grid.shape, dtype=label.array.dtype)
    for index in classes:
        share = resample_image(label.with_array((label.array == index).astype(np.float32)), grid, order=1).array[0]
        larger = share > best
        best[larger], result[larger] = share[larger], index
    return Volume(result[None], grid)


def _diagonal_or_full(matrix: NDArray[np.float64]) -> NDArray[Any]:
    """scipy runs several times faster when it is given the diagonal of a matrix that has nothing else."""
    diagonal = np.diag(matrix)
    return diagonal if np.abs(matrix - np.diag(diagonal)).max() < 1e-6 else matrix
