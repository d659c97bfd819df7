"""One resolution of a free-form registration: both images on one grid, the control points, the bending energy."""

from __future__ import annotations

from typing import final

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..volume import Volume
from .configs import FfdConfig
from .images import around, dilated, isotropic, isotropic_mask, known
from .splines import basis
from .transforms import Ffd, Transform

__all__ = ["Level", "times"]

Floats = NDArray[np.float64]

BENDING = (((2, 0, 0), 1), ((0, 2, 0), 1), ((0, 0, 2), 1), ((1, 1, 0), 2), ((1, 0, 1), 2), ((0, 1, 1), 2))
"""Orders of the second derivatives along x, y and z, and how often each stands in the Hessian."""


@final
class Level:
    """The images and the lattice of one resolution; they depend on the fixed mask and the config, not on the method.

    Attributes:
        grid: isotropic, along the world axes, around the fixed mask.
        side: its voxel side in mm.
        mask: where the similarity is measured, ``grid.shape``: the head and a margin, less what lies behind a face of
            either field of view that cuts through a head.
        samples: flat indices of the voxels of the mask.
        index: ``(samples, 3)`` their voxel indices.
        fixed: the fixed image on the grid, float64.
        moving: the moving image read through the start transform on the grid, float64.
        axes: world coordinates (mm) of the grid along x, y and z.
        origin: RAS mm of the first control point.
        spacing: ``(3,)`` mm between control points.
        counts: ``(3,)`` control points along each axis; the outermost ones lie one cell outside of the grid.
    """

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        start: Transform,
        *,
        inside: NDArray[np.bool_],
        other: NDArray[np.bool_] | None = None,
        sizes: tuple[float, float],
        config: FfdConfig,
    ) -> None:
        """Resample both images and lay the lattice.

        Args:
            fixed: one channel, 3-D.
            moving: one channel, 3-D.
            start: fixed world to moving world.
            inside: the fixed mask on the grid of the fixed image.
            other: where the moving head is, on the grid of its image; ``None``: nothing of it lies behind a face.
            sizes: distance of the control points and voxel side in mm.
            config: margins.

        Raises:
            InputError: the fixed mask is thinner than half a voxel of this level everywhere, or nothing of it
                lies in the field of view of the moving image.
        """
        spacing, self.side = sizes
        self.grid = around(fixed.grid, inside, self.side, config.mask_margin_mm + 2 * max(config.image_mm))
        head = dilated(isotropic_mask(inside, fixed.grid, self.grid), self.side, config.mask_margin_mm)
        if not head.any():
            raise InputError(
                f"The fixed mask is too thin for a free-form registration with voxels of {self.side:g} mm; choose a "
                "smaller image_mm."
            )
        self.mask = head & known(inside, fixed.grid, self.grid)
        if other is not None:
            self.mask &= known(other, moving.grid, self.grid, start)
        self.samples = np.flatnonzero(self.mask)
        if len(self.samples) == 0:
            raise InputError(
                "Under the start no part of the fixed head lies in the field of view of the moving image; give one "
                "under which the heads overlap."
            )
        self.index = np.stack(np.unravel_index(self.samples, self.grid.shape), axis=1).astype(np.float64)
        self.fixed = isotropic(fixed, self.grid).array[0].astype(np.float64)
        self.moving = isotropic(moving, self.grid, start).array[0].astype(np.float64)
        first = self.grid.affine[:3, 3]
        self.axes = [first[i] + self.side * np.arange(n) for i, n in enumerate(self.grid.shape)]
        extent = self.side * (np.asarray(self.grid.shape) - 1)
        self.counts = np.ceil(extent / spacing).astype(int) + 3
        self.spacing = np.full(3, spacing)
        self.origin = first + extent / 2 - spacing * (self.counts - 1) / 2
        self.matrices = [
            [
                basis((a - o) / spacing, n, d) / spacing**d
                for a, o, n in zip(self.axes, self.origin, self.counts, strict=True)
            ]
            for d in (0, 1, 2)
        ]
        self.grams = [[m.T @ m / len(m) for m in of_order] for of_order in self.matrices]

    def ffd(self, coefficients: Floats) -> Ffd:
        """Return the deformation of coefficients ``(3, a, b, c)`` or flat, in mm."""
        return Ffd(self.origin, self.spacing, coefficients.reshape(3, *self.counts))

    def coefficients(self, before: Ffd | None) -> Floats:
        """Return the coefficients on this lattice nearest to a deformation in the least squares over the grid."""
        if before is None:
            return np.zeros((3, *self.counts))
        result = before.along(self.axes)
        for axis, matrix in enumerate(self.matrices[0]):
            result = times(np.asarray(np.linalg.pinv(matrix), dtype=np.float64), result, axis)
        return result

    def places(self, coefficients: Floats) -> Floats:
        """Return the voxel positions ``(samples, 3)`` at which the moving image is read."""
        field = coefficients
        for axis, matrix in enumerate(self.matrices[0]):
            field = times(matrix, field, axis)
        return np.asarray(self.index + field.reshape(3, -1)[:, self.samples].T / self.side)

    def by_coefficients(self, by_places: Floats) -> Floats:
        """Turn a gradient by :meth:`places` into one by the coefficients."""
        full = np.zeros((3, self.fixed.size))
        full[:, self.samples] = by_places.T / self.side
        slope = full.reshape(3, *self.grid.shape)
        for axis, matrix in enumerate(self.matrices[0]):
            slope = times(matrix.T, slope, axis)
        return slope

    def bending(self, coefficients: Floats) -> tuple[float, Floats]:
        """Return the mean over the grid of the squared second derivatives (1/mm2 each) and its gradient.

        Source: Rueckert et al., IEEE Trans Med Imaging 18 (1999) 712-721, eq. 8.
        """
        total = np.zeros_like(coefficients)
        for orders, count in BENDING:
            part = coefficients
            for axis, order in enumerate(orders):
                part = times(self.grams[order][axis], part, axis)
            total += count * part
        return float(np.sum(total * coefficients)), 2 * total


def times(matrix: Floats, field: Floats, axis: int) -> Floats:
    """Multiply a matrix onto one spatial axis (0, 1 or 2) of ``(k, a, b, c)``."""
    if axis == 2:
        return np.asarray(field @ matrix.T)
    if axis == 1:
        return np.asarray(matrix @ field)
    shape = field.shape
    return np.asarray((matrix @ field.reshape(shape[0], shape[1], -1)).reshape(shape[0], len(matrix), *shape[2:]))
