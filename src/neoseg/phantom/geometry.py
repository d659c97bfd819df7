"""The grids that heads are scanned on: sizes, spacings and directions like those of clinical ADC maps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..volume import Grid, canonical

__all__ = ["IN_PLANE", "draw_grid", "rotation"]

IN_PLANE = ((128, 128), (128, 128), (128, 128), (128, 128), (144, 144), (160, 160), (160, 144), (144, 160), (128, 112))
"""Voxels along left-right and front-back; one row is drawn."""

_FIELD_MM = (135.0, 150.0)
"""Smallest field of view in the slice that leaves room for the largest head."""


def rotation(degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the rotation matrix of three angles about x, y and z, applied in this order."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x, dtype=np.float64)


def draw_grid(generator: np.random.Generator, height_mm: float) -> Grid:
    """Draw an axial grid, tilted by a few degrees, that covers a head of the given height.

    Slices are 2 to 4 mm thick and 22 to 43 in number, or, in one scan of eight, 5 mm and about 18. Half of the files
    keep their rows from right to left and front to back (LPS), the others run against one of these axes.

    Args:
        generator: source of randomness.
        height_mm: extent of the brain across the slices.

    Returns:
        A Grid in canonical order that remembers the file's axes.
    """
    rows, columns = IN_PLANE[generator.integers(len(IN_PLANE))]
    smallest = max(_FIELD_MM[0] / rows, _FIELD_MM[1] / columns)
    in_plane = max(
        float(generator.choice([1.2, 1.25, 1.3, 1.375, 1.4, 1.5, 1.5625])), float(np.ceil(smallest * 80) / 80)
    )
    thick = 5.0 if generator.random() < 0.125 else float(generator.choice([2.2, 2.4, 2.5, 2.8, 3.0, 3.3, 3.6, 4.0]))
    slices = int(np.clip(np.ceil((height_mm + 3.0) / thick), 16, 43))
    directions = rotation(generator.normal(0, [4.0, 2.0, 2.0])) @ np.diag(_file_axes(generator))
    affine = np.eye(4)
    affine[:3, :3] = directions * [in_plane, in_plane, thick]
    centre = generator.normal(0, [4.0, 8.0, 10.0])
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array([rows, columns, slices]) - 1) / 2)
    empty = np.zeros((1, rows, columns, slices), dtype=np.uint8)
    return canonical(empty, affine, file_format="phantom", name="the phantom").grid


def _file_axes(generator: np.random.Generator) -> list[float]:
    choices = [[-1.0, -1.0, 1.0], [-1.0, -1.0, 1.0], [1.0, -1.0, 1.0], [-1.0, -1.0, -1.0]]
    return choices[generator.integers(len(choices))]
