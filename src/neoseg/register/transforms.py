"""Spatial transforms: maps from FIXED world points to MOVING world points (RAS mm), and resampling through them.

A transform answers the question of the resampler: which point of the moving image belongs at this point of the fixed
one? Chains are evaluated point by point, so an image is interpolated once however many transforms stand between.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..volume import Grid, Volume
from .splines import basis, spline_at, spline_slopes

__all__ = [
    "Affine",
    "Chain",
    "Ffd",
    "InverseFfd",
    "Transform",
    "from_arrays",
    "grid_points",
    "jacobian_determinant",
    "resample",
    "sample",
    "to_arrays",
]

Points = NDArray[np.float64]

RESIDUAL_MM = 1e-3
"""Largest distance in mm between a point and the image of its numerical pre-image."""


class Transform(ABC):
    """A map of FIXED world points to MOVING world points, both ``(n, 3)`` in RAS mm."""

    @abstractmethod
    def points(self, xyz: Points) -> Points:
        """Map points ``(n, 3)`` in RAS mm."""

    @abstractmethod
    def jacobians(self, xyz: Points) -> NDArray[np.float64]:
        """Return the Jacobian matrices ``(n, 3, 3)`` at points ``(n, 3)``; entry ``[i, j]`` is d output_i / d x_j."""

    @abstractmethod
    def inverse(self) -> Transform:
        """Return the map from MOVING to FIXED world points."""

    def on_grid(self, grid: Grid) -> Points:
        """Map the world points of all voxels of a grid, in the order of its flattened array."""
        return self.points(grid_points(grid))


@final
class Affine(Transform):
    """A homogeneous 4 x 4 matrix that maps fixed RAS mm to moving RAS mm."""

    def __init__(self, matrix: NDArray[Any] | Sequence[Sequence[float]]) -> None:
        """Keep the matrix.

        Raises:
            GeometryError: the matrix is not 4 x 4, not finite, not affine or not invertible.
        """
        value = np.array(matrix, dtype=np.float64)
        if value.shape != (4, 4) or not np.isfinite(value).all() or not np.array_equal(value[3], [0, 0, 0, 1]):
            raise GeometryError(
                f"An affine transform needs a finite 4 x 4 matrix with the last row 0 0 0 1, not {value.tolist()}."
            )
        if abs(np.linalg.det(value)) < 1e-12:
            raise GeometryError(f"An affine transform has to be invertible, but {value.tolist()} has determinant 0.")
        value.setflags(write=False)
        self.matrix = value

    @staticmethod
    def identity() -> Affine:
        """Return the transform that moves nothing."""
        return Affine(np.eye(4))

    def points(self, xyz: Points) -> Points:
        """Map points ``(n, 3)`` in RAS mm."""
        return np.asarray(xyz @ self.matrix[:3, :3].T + self.matrix[:3, 3], dtype=np.float64)

    def jacobians(self, xyz: Points) -> NDArray[np.float64]:
        """Return the linear part for every point, ``(n, 3, 3)``."""
        return np.broadcast_to(self.matrix[:3, :3], (len(xyz), 3, 3))

    def inverse(self) -> Affine:
        """Return the exact inverse."""
        matrix = np.linalg.inv(self.matrix)
        matrix[3] = [0, 0, 0, 1]
        return Affine(matrix)


@final
class Ffd(Transform):
    """A free-form deformation x + u(x), u a cubic B-spline on a lattice along the world axes (Rueckert et al., 1999).

    Outside the lattice the coefficients are zero, so the displacement fades to exactly zero within two cells.
    """

    def __init__(self, origin: NDArray[Any], spacing: NDArray[Any], coefficients: NDArray[Any]) -> None:
        """Keep the lattice.

        Args:
            origin: ``(3,)`` RAS mm of the first control point.
            spacing: ``(3,)`` mm between control points.
            coefficients: ``(3, a, b, c)`` spline coefficients of the displacement in mm.

        Raises:
            GeometryError: shapes do not fit, a spacing is not positive or a number is not finite.
        """
        self.origin = np.array(origin, dtype=np.float64)
        self.spacing = np.array(spacing, dtype=np.float64)
        self.coefficients = np.array(coefficients, dtype=np.float64)
        shapes = self.origin.shape == (3,) and self.spacing.shape == (3,)
        if not shapes or self.coefficients.ndim != 4 or self.coefficients.shape[0] != 3:
            raise GeometryError(
                "A free-form deformation needs an origin (3,), a spacing (3,) and coefficients (3, a, b, c), but was "
                f"given {self.origin.shape}, {self.spacing.shape} and {self.coefficients.shape}."
            )
        finite = all(np.isfinite(a).all() for a in (self.origin, self.spacing, self.coefficients))
        if not finite or self.spacing.min() <= 0:
            raise GeometryError(
                f"A free-form deformation needs finite numbers and positive spacings, not {self.spacing.tolist()} mm."
            )

    def displacements(self, xyz: Points) -> NDArray[np.float64]:
        """Return u(x) in mm, ``(n, 3)``."""
        return spline_at(self.coefficients, (xyz - self.origin) / self.spacing)

    def points(self, xyz: Points) -> Points:
        """Map points ``(n, 3)`` in RAS mm."""
        return np.asarray(xyz + self.displacements(xyz), dtype=np.float64)

    def jacobians(self, xyz: Points) -> NDArray[np.float64]:
        """Return the analytic Jacobian matrices ``(n, 3, 3)``."""
        slopes = spline_slopes(self.coefficients, (xyz - self.origin) / self.spacing)
        return np.asarray(np.eye(3) + slopes / self.spacing, dtype=np.float64)

    def inverse(self) -> InverseFfd:
        """Return the numerical inverse."""
        return InverseFfd(self)

    def on_grid(self, grid: Grid) -> Points:
        """Map the voxels of a grid; axis by axis, much faster, when the grid runs along the world axes."""
        axes = _world_axes(grid)
        if axes is None:
            return self.points(grid_points(grid))
        return np.asarray(grid_points(grid) + self.along(axes).reshape(3, -1).T, dtype=np.float64)

    def along(self, axes: Sequence[NDArray[Any]], derivatives: Sequence[int] = (0, 0, 0)) -> NDArray[np.float64]:
        """Return u, or a derivative of it, on the product of three lists of world coordinates.

        Args:
            axes: x, y and z coordinates in RAS mm.
            derivatives: how often to derive along x, y and z (0 to 2).

        Returns:
            ``(3, len(x), len(y), len(z))`` in mm (per mm per derivative).
        """
        result = self.coefficients
        for axis, (world, order) in enumerate(zip(axes, derivatives, strict=True)):
            positions = (np.asarray(world) - self.origin[axis]) / self.spacing[axis]
            matrix = basis(positions, self.coefficients.shape[axis + 1], order) / self.spacing[axis] ** order
            result = np.moveaxis(np.tensordot(matrix, result, axes=(1, axis + 1)), 0, axis + 1)
        return result

    def determinants_along(self, axes: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Return the Jacobian determinant on the product of three lists of world coordinates."""
        (a, d, g), (b, e, h), (c, f, i) = (self.along(axes, o) for o in ((1, 0, 0), (0, 1, 0), (0, 0, 1)))
        a, e, i = a + 1, e + 1, i + 1
        return np.asarray(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g), dtype=np.float64)

    def smallest_determinant(self, per_cell: int = 5) -> float:
        """Return the smallest Jacobian determinant anywhere, read this often per cell along each axis.

        The whole support counts, also the two cells beyond the lattice in which the displacement fades to zero.
        """
        axes = [
            origin + spacing * (np.arange((count + 3) * per_cell + 1) / per_cell - 2)
            for origin, spacing, count in zip(self.origin, self.spacing, self.coefficients.shape[1:], strict=True)
        ]
        return float(self.determinants_along(axes).min())


@final
class InverseFfd(Transform):
    """The numerical inverse of a free-form deformation: fixed point x = y - u(x), then Newton where that is slow."""

    def __init__(self, forward: Ffd) -> None:
        """Keep the deformation that is inverted."""
        self.forward = forward

    def points(self, xyz: Points) -> Points:
        """Map points ``(n, 3)`` in RAS mm.

        Raises:
            GeometryError: the deformation folds, so that a point has no pre-image that can be found.
        """
        y = np.asarray(xyz, dtype=np.float64)
        x = y.copy()
        left = np.arange(len(y))
        for step in range(60):
            residual = self.forward.points(x[left]) - y[left]
            far = np.linalg.norm(residual, axis=1) > RESIDUAL_MM
            left, residual = left[far], residual[far]
            if len(left) == 0:
                return x
            if step < 20:
                x[left] -= residual
            else:
                jacobians = self.forward.jacobians(x[left])
                safe = np.linalg.det(jacobians) > 1e-3
                residual[safe] = np.linalg.solve(jacobians[safe], residual[safe][..., None])[..., 0]
                x[left] -= residual
        raise GeometryError(
            f"The deformation cannot be inverted at {len(left)} of {len(y)} points because it folds there; register "
            "again with a larger bending weight."
        )

    def jacobians(self, xyz: Points) -> NDArray[np.float64]:
        """Return the inverses of the Jacobian matrices of the deformation at the pre-images."""
        return np.asarray(np.linalg.inv(self.forward.jacobians(self.points(xyz))), dtype=np.float64)

    def inverse(self) -> Ffd:
        """Return the deformation itself."""
        return self.forward


@final
class Chain(Transform):
    """Transforms applied one after another, first to last; nested chains are laid flat, neighbours affine are fused."""

    def __init__(self, transforms: Iterable[Transform]) -> None:
        """Keep the transforms in the order of application."""
        self.transforms: tuple[Transform, ...] = tuple(_flat(transforms))

    def points(self, xyz: Points) -> Points:
        """Map points ``(n, 3)`` in RAS mm."""
        for transform in self.transforms:
            xyz = transform.points(xyz)
        return xyz

    def on_grid(self, grid: Grid) -> Points:
        """Map the voxels of a grid."""
        if not self.transforms:
            return grid_points(grid)
        xyz = self.transforms[0].on_grid(grid)
        for transform in self.transforms[1:]:
            xyz = transform.points(xyz)
        return xyz

    def jacobians(self, xyz: Points) -> NDArray[np.float64]:
        """Return the product of the Jacobian matrices along the way, ``(n, 3, 3)``."""
        total = np.broadcast_to(np.eye(3), (len(xyz), 3, 3))
        for transform in self.transforms:
            total = transform.jacobians(xyz) @ total
            xyz = transform.points(xyz)
        return total

    def inverse(self) -> Chain:
        """Return the inverses in the opposite order."""
        return Chain(transform.inverse() for transform in reversed(self.transforms))


def jacobian_determinant(transform: Transform, grid: Grid) -> NDArray[np.float64]:
    """Return the Jacobian determinant of a transform at every voxel of a grid, ``(x, y, z)``."""
    return np.asarray(np.linalg.det(transform.jacobians(grid_points(grid))).reshape(grid.shape), dtype=np.float64)


def grid_points(grid: Grid) -> Points:
    """Return the world points ``(n, 3)`` of all voxels of a 3-D grid, in the order of its flattened array."""
    _need_3d(grid, "A spatial transform")
    index = np.indices(grid.shape, dtype=np.float64).reshape(3, -1).T
    return grid.to_world(index)


def sample(volume: Volume, xyz: Points, *, order: Literal[0, 1, 3] = 1, fill: float = 0.0) -> NDArray[Any]:
    """Read a volume at world points.

    Args:
        volume: any channels.
        xyz: ``(n, 3)`` RAS mm.
        order: 0 nearest (the type is kept), 1 linear, 3 cubic spline (float32).
        fill: value of points more than half a voxel outside the field of view.

    Returns:
        ``(c, n)``.
    """
    from scipy import ndimage

    index = volume.grid.to_index(xyz).T
    shape = np.asarray(volume.grid.shape)[:, None]
    outside = ((index < -0.5) | (index > shape - 0.5)).any(axis=0)
    dtype = volume.array.dtype if order == 0 else np.dtype(np.float32)
    result = np.empty((len(volume.array), len(xyz)), dtype=dtype)
    for channel, image in enumerate(volume.array):
        if order == 0:
            nearest = np.clip(np.rint(index).astype(np.int64), 0, shape - 1)
            result[channel] = image[tuple(nearest)]
        else:
            real = image.astype(np.float32, copy=False)
            result[channel] = ndimage.map_coordinates(real, index, order=order, mode="nearest", output=np.float32)
    result[:, outside] = fill
    return result


def resample(
    volume: Volume,
    grid: Grid,
    transform: Transform | None = None,
    *,
    order: Literal[0, 1, 3] = 1,
    fill: float = 0.0,
) -> Volume:
    """Bring a (moving) volume onto a (fixed) grid.

    Args:
        volume: the moving image, any channels.
        grid: the grid of the result.
        transform: fixed world to moving world; ``None`` is the identity.
        order: 0 nearest (the type is kept), 1 linear, 3 cubic spline (float32).
        fill: value outside the moving field of view.
    """
    _need_3d(volume.grid, "Resampling through a transform")
    xyz = grid_points(grid) if transform is None else transform.on_grid(grid)
    array = sample(volume, xyz, order=order, fill=fill)
    return Volume(array.reshape(len(array), *grid.shape), grid)


def to_arrays(transform: Transform) -> dict[str, NDArray[Any]]:
    """Return a transform as named arrays for an npz file (no objects, so nothing is pickled)."""
    steps = list(_flat([transform]))
    arrays: dict[str, NDArray[Any]] = {"kinds": np.array([_kind(step) for step in steps], dtype="U16")}
    for i, step in enumerate(steps):
        if isinstance(step, Affine):
            arrays[f"{i}.matrix"] = step.matrix
            continue
        ffd = step.forward if isinstance(step, InverseFfd) else step
        assert isinstance(ffd, Ffd)
        arrays |= {f"{i}.origin": ffd.origin, f"{i}.spacing": ffd.spacing, f"{i}.coefficients": ffd.coefficients}
    return arrays


def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Transform:
    """Return the transform that :func:`to_arrays` wrote.

    Raises:
        InputError: an array is missing or a kind is unknown.
    """
    steps: list[Transform] = []
    try:
        for i, kind in enumerate(np.asarray(arrays["kinds"]).tolist()):
            if kind == "affine":
                steps.append(Affine(arrays[f"{i}.matrix"]))
                continue
            if kind not in ("ffd", "inverse_ffd"):
                raise InputError(f"A saved transform has the kind {kind!r}; known are affine, ffd and inverse_ffd.")
            ffd = Ffd(arrays[f"{i}.origin"], arrays[f"{i}.spacing"], arrays[f"{i}.coefficients"])
            steps.append(ffd if kind == "ffd" else ffd.inverse())
    except KeyError as error:
        raise InputError(f"A saved transform lacks the array {error.args[0]}; make it again.") from None
    return steps[0] if len(steps) == 1 else Chain(steps)


def _kind(step: Transform) -> str:
    return "affine" if isinstance(step, Affine) else "ffd" if isinstance(step, Ffd) else "inverse_ffd"


def _flat(transforms: Iterable[Transform]) -> list[Transform]:
    steps: list[Transform] = []
    for transform in transforms:
        for step in transform.transforms if isinstance(transform, Chain) else (transform,):
            last = steps[-1] if steps else None
            if isinstance(step, Affine) and isinstance(last, Affine):
                steps[-1] = Affine(step.matrix @ last.matrix)
            else:
                steps.append(step)
    return steps


def _world_axes(grid: Grid) -> list[NDArray[np.float64]] | None:
    """Return the world coordinates along each axis of a grid that runs along the world axes, else None."""
    linear = grid.affine[:3, :3]
    if grid.ndim != 3 or np.abs(linear - np.diag(np.diag(linear))).max() > 1e-9:
        return None
    return [grid.affine[i, 3] + grid.affine[i, i] * np.arange(n) for i, n in enumerate(grid.shape)]


def _need_3d(grid: Grid, what: str) -> None:
    if grid.ndim != 3:
        raise GeometryError(f"{what} needs three spatial axes, but the grid has shape {grid.shape}.")
