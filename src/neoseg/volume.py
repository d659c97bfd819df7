"""Arrays that know where they lie: Grid (shape, affine, how the file stored it) and Volume (array on a Grid).

Inside neoseg every array is ``(c, x, y, z)`` (2-D: ``(c, x, y)``) with its axes in the canonical order: x runs to the
patient's right, y to anterior, z to superior, as near as the stored axes allow (RAS+). World coordinates are RAS
millimetres. Files store axes in any order and direction; :func:`canonical` is the one door in and :func:`to_stored`
the one door out, so a result returns to exactly the grid that came in.

Pictures have no patient: their x is the column, y the row from the top, and their world is in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import GeometryError

__all__ = [
    "Grid",
    "Stored",
    "Volume",
    "canonical",
    "grid_difference",
    "repair_affine",
    "rounded_length",
    "same_grid",
    "to_stored",
    "upright",
    "without_file",
]

FLATTEST = 1e-6
"""Smallest volume that the directions of three axes may span, of 1 for right angles: below it they lie in a plane."""

SHEAR_LIMIT = 1e-2
"""Largest cosine between two axes (0.57 degrees) that counts as rounding in a file and is repaired."""


@dataclass(frozen=True, eq=False)
class Stored:
    """How a file kept a volume, complete enough to write another array onto the very same grid.

    Attributes:
        file_format: the file format that the volume came from ("nifti", "mha", "nrrd", "png", "tiff").
        shape: spatial shape in file order.
        affine: file voxel indices to RAS mm, exactly as read (not repaired).
        axes: ``axes[i]`` is the file axis that became canonical axis ``i``.
        flips: whether canonical axis ``i`` runs against that file axis.
        header: what else the format needs to write the same geometry (NIfTI: form codes and matrices).
    """

    file_format: str
    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    axes: tuple[int, ...]
    flips: tuple[bool, ...]
    header: Mapping[str, Any] = field(default_factory=dict)

    @property
    def order(self) -> tuple[int, ...]:
        """The canonical axis that each axis of the file became."""
        return tuple(int(axis) for axis in np.argsort(self.axes))

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array ``(c, x, y, z)``, of this volume or a box of it, in the order and direction of the file."""
        straight = np.flip(array, tuple(i + 1 for i, flip in enumerate(self.flips) if flip))
        return np.ascontiguousarray(np.transpose(straight, (0, *(axis + 1 for axis in self.order))))


@dataclass(frozen=True, eq=False)
class Grid:
    """A lattice of voxels in the world.

    Attributes:
        shape: voxels along the canonical axes, ``(x, y, z)`` or ``(x, y)``.
        affine: ``(d+1, d+1)``, voxel indices to RAS mm; its columns are orthogonal.
        stored: how the file kept it; ``None`` for a grid that was made here.
        unit: of the world: "mm", or "px" where the file does not tell how large a pixel is. What is documented as mm
            is in this unit.
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]
    stored: Stored | None = None
    unit: Literal["mm", "px"] = "mm"

    def __post_init__(self) -> None:
        d = len(self.shape)
        if d not in (2, 3) or min(self.shape) < 1:
            raise GeometryError(f"A grid needs 2 or 3 axes of at least one voxel, but its shape is {self.shape}.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (d + 1, d + 1) or not np.isfinite(affine).all():
            raise GeometryError(f"A {d}-D grid needs a finite {d + 1} x {d + 1} affine, but it is {affine.tolist()}.")
        lengths = np.linalg.norm(affine[:-1, :-1], axis=0)
        if not lengths.all() or abs(np.linalg.det(affine[:-1, :-1] / lengths)) < FLATTEST:
            raise GeometryError(
                f"A grid needs axes of some length in different directions, but its affine is {affine.tolist()}."
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))

    @staticmethod
    def of_spacing(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> Grid:
        """Return an axis-aligned grid with its first voxel at the world's origin."""
        return Grid(shape, np.diag([*spacing_mm, 1.0]))

    @property
    def ndim(self) -> int:
        """Number of spatial axes, 2 or 3."""
        return len(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along the canonical axes."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:-1, :-1], axis=0))

    @property
    def directions(self) -> NDArray[np.float64]:
        """Unit direction of each axis in RAS, as columns."""
        return np.asarray(self.affine[:-1, :-1] / np.asarray(self.spacing), dtype=np.float64)

    @property
    def centre(self) -> NDArray[np.float64]:
        """World position (mm) of the middle of the field of view."""
        return self.to_world((np.asarray(self.shape, dtype=np.float64) - 1) / 2)

    @property
    def voxel_volume(self) -> float:
        """Volume of one voxel in mm3 (2-D: area in mm2)."""
        return float(abs(np.linalg.det(self.affine[:-1, :-1])))

    @property
    def size_unit(self) -> Literal["mL", "mm²", "px²"]:
        """Unit that the size of a structure is told in: mL in a volume, an area in a plane."""
        return "mL" if self.ndim == 3 else "mm²" if self.unit == "mm" else "px²"

    @property
    def voxel_size(self) -> float:
        """Size of one voxel in :attr:`size_unit`."""
        return self.voxel_volume / 1000 if self.ndim == 3 else self.voxel_volume

    def to_world(self, index: NDArray[Any]) -> NDArray[np.float64]:
        """Map voxel indices ``(..., d)`` to RAS mm."""
        return np.asarray(np.asarray(index) @ self.affine[:-1, :-1].T + self.affine[:-1, -1], dtype=np.float64)

    def to_index(self, world_mm: NDArray[Any]) -> NDArray[np.float64]:
        """Map RAS mm ``(..., d)`` to (fractional) voxel indices."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(np.asarray(world_mm) @ inverse[:-1, :-1].T + inverse[:-1, -1], dtype=np.float64)

    def cropped(self, start: tuple[int, ...], shape: tuple[int, ...]) -> Grid:
        """Return the sub-lattice (or, for negative starts, the extension) that begins at voxel ``start``."""
        affine = self.affine.copy()
        affine[:-1, -1] = self.to_world(np.asarray(start, dtype=np.float64))
        return Grid(shape, affine, unit=self.unit)

    def with_spacing(self, spacing_mm: tuple[float, ...]) -> Grid:
        """Return a grid over the same field of view (outer voxel faces) with the nearest whole number of voxels.

        The spacing asked for is kept exactly; the field of view is kept centred, so it may grow or shrink by less
        than one voxel.
        """
        old, new = np.asarray(self.spacing), np.asarray(spacing_mm, dtype=np.float64)
        shape = np.maximum(1, np.rint(np.asarray(self.shape) * old / new)).astype(int)
        affine = self.affine.copy()
        affine[:-1, :-1] = self.directions * new
        affine[:-1, -1] = self.centre - affine[:-1, :-1] @ ((shape - 1) / 2)
        return Grid(tuple(int(n) for n in shape), affine, unit=self.unit)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array ``(c, x, y, z)`` on its Grid. A label is a Volume of one channel and an integer type."""

    array: NDArray[Any]
    grid: Grid

    def __post_init__(self) -> None:
        if self.array.ndim != self.grid.ndim + 1 or self.array.shape[1:] != self.grid.shape:
            raise GeometryError(
                f"An array of shape {self.array.shape} does not fit a grid of shape {self.grid.shape}: "
                "channels come first, then the grid's axes."
            )

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm."""
        return self.grid.spacing

    def with_array(self, array: NDArray[Any]) -> Volume:
        """Return another array, ``(c, x, y, z)`` or ``(x, y, z)``, on the same grid."""
        return Volume(array if array.ndim == self.grid.ndim + 1 else array[None], self.grid)


def repair_affine(affine: NDArray[Any], name: str = "the affine") -> NDArray[np.float64]:
    """Return the affine with exactly orthogonal axes, each keeping its length.

    Args:
        affine: ``(d+1, d+1)`` voxel indices to mm.
        name: what to call it in an error, usually the file.

    Raises:
        GeometryError: an axis has no length, the matrix is not finite, or two axes are further than 0.57 degrees
            from a right angle (a sheared grid, such as a tilted gantry, has to be resampled first).
    """
    matrix = np.asarray(affine, dtype=np.float64)[:-1, :-1]
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(np.asarray(affine, dtype=np.float64)).all() or lengths.min() <= 0:
        raise GeometryError(f"{name}: the affine {np.asarray(affine).tolist()} has an axis without a length in mm.")
    directions = matrix / lengths
    cosines = directions.T @ directions - np.eye(len(lengths))
    if np.abs(cosines).max() > SHEAR_LIMIT:
        degrees = 90 - np.degrees(np.arccos(min(1.0, float(np.abs(cosines).max()))))
        raise GeometryError(
            f"{name}: its axes are {degrees:.1f} degrees from right angles (a sheared grid, such as a tilted gantry); "
            "resample it to an orthogonal grid first."
        )
    left, _, right = np.linalg.svd(directions)
    repaired = np.array(affine, dtype=np.float64)
    repaired[:-1, :-1] = (left @ right) * lengths
    return repaired


def canonical(
    array: NDArray[Any],
    affine: NDArray[Any],
    *,
    file_format: str,
    name: str,
    header: Mapping[str, Any] | None = None,
    unit: Literal["mm", "px"] = "mm",
) -> Volume:
    """Turn an array in file order into a Volume in canonical order that remembers the file's grid.

    Args:
        array: ``(c, i, j, k)`` or ``(c, i, j)``: channels first, then the file's own axes.
        affine: file voxel indices to RAS mm.
        file_format: "nifti", "mha", "nrrd".
        name: the file, for errors.
        header: see :class:`Stored`.
        unit: of the affine.

    Raises:
        GeometryError: the affine is sheared or degenerate.
    """
    exact = np.array(affine, dtype=np.float64)
    repaired = repair_affine(exact, name)
    axes, flips = _nearest_axes(repaired)
    moved = np.transpose(array, (0, *(a + 1 for a in axes)))
    moved = np.flip(moved, tuple(i + 1 for i, flip in enumerate(flips) if flip))
    shape = array.shape[1:]
    to_file = np.zeros_like(repaired)
    to_file[-1, -1] = 1
    for i, (axis, flip) in enumerate(zip(axes, flips, strict=True)):
        to_file[axis, i] = -1 if flip else 1
        to_file[axis, -1] = shape[axis] - 1 if flip else 0
    stored = Stored(file_format, shape, exact, axes, flips, dict(header or {}))
    return Volume(np.ascontiguousarray(moved), Grid(moved.shape[1:], repaired @ to_file, stored, unit))


def to_stored(volume: Volume) -> NDArray[Any]:
    """Return the array ``(c, i, j, k)`` in the axis order and direction of the file that its grid came from."""
    stored = volume.grid.stored
    return volume.array if stored is None else stored.turned(volume.array)


def same_grid(first: Grid, second: Grid, tolerance_voxels: float = 0.05) -> bool:
    """Tell whether two grids put every voxel at the same place, up to a share of the smallest voxel side.

    Headers keep directions in float32 or as text, so equal grids rarely have equal bits.
    """
    return first.shape == second.shape and _gap(first, second) <= tolerance_voxels * min(first.spacing)


def grid_difference(first: Grid, second: Grid) -> str:
    """Return in words what most sets two grids of as many axes apart: shape, spacing, direction or position.

    Numbers have as many digits as it takes to tell them apart; the largest distance between equal corners follows.
    """
    if first.shape != second.shape:
        return f"shape {first.shape} against {second.shape}"
    gap, unit = _gap(first, second), first.unit
    shift = float(np.linalg.norm(first.centre - second.centre))
    sides = np.asarray(first.spacing) - np.asarray(second.spacing)
    stretch = float(np.linalg.norm((np.asarray(first.shape) - 1) * sides)) / 2
    turn = float(np.clip((first.directions * second.directions).sum(axis=0), -1, 1).min())
    degrees = float(np.degrees(np.arccos(turn)))
    if not np.allclose(first.spacing, second.spacing, rtol=1e-3):
        told = f"spacing {_apart(first.spacing, second.spacing, unit)}"
    elif degrees > 0.05:
        told = f"axes turned by {degrees:.2f} degrees"
    elif gap - shift - stretch > max(shift, stretch):
        told = f"axes turned by {degrees:.2g} degrees"
    elif stretch > shift:
        told = f"spacing {_apart(first.spacing, second.spacing, unit)}"
    else:
        told = f"centre {_apart(first.centre, second.centre, unit)}"
    return f"{told}, so corners lie up to {gap:.3g} {unit} apart"


def _gap(first: Grid, second: Grid) -> float:
    """Return the largest distance between corner voxels of two grids of one shape."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in first.shape], indexing="ij")).reshape(first.ndim, -1).T
    return float(np.linalg.norm(first.to_world(corners) - second.to_world(corners), axis=1).max())


def _apart(first: Any, second: Any, unit: str) -> str:
    """Return two rows of numbers with the digits that it takes to tell them apart."""
    for digits in (5, 7, 9, 12, 17):
        one, other = ("(" + ", ".join(f"{v:.{digits}g}" for v in np.asarray(row)) + ")" for row in (first, second))
        if one != other:
            break
    return f"{one} {unit} against {other} {unit}"


def without_file(grid: Grid) -> Grid:
    """Return the same lattice without the memory of a file."""
    return replace(grid, stored=None)


def rounded_length(side: float) -> float:
    """Return a length rounded to 0.0001 mm, or to four digits where it is below 0.1 mm, as under a microscope."""
    return round(float(side), max(4, 3 - math.floor(math.log10(side))))


def upright(grid: Grid) -> Grid:
    """Return an axis-aligned grid of the same shape and spacing, centred on the world's origin.

    What is computed on it depends on the voxels alone, and not on how the patient lay or how a header rounds its
    directions: the spacing is rounded.
    """
    spacing = np.array([rounded_length(side) for side in grid.spacing])
    affine = np.diag([*spacing, 1.0])
    affine[:-1, -1] = -spacing * (np.asarray(grid.shape) - 1) / 2
    return Grid(grid.shape, affine, unit=grid.unit)


def _nearest_axes(affine: NDArray[np.float64]) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Assign one file axis to each world axis, largest cosine first."""
    d = affine.shape[0] - 1
    cosines = affine[:-1, :-1] / np.linalg.norm(affine[:-1, :-1], axis=0)
    axes, flips, left = [-1] * d, [False] * d, np.abs(cosines)
    for _ in range(d):
        world, axis = np.unravel_index(int(np.argmax(left)), left.shape)
        axes[world], flips[world] = int(axis), bool(cosines[world, axis] < 0)
        left[world, :], left[:, axis] = -1, -1
    return tuple(axes), tuple(flips)
