"""Free-form deformation: a cubic B-spline grid moved by normalised cross-correlation and a bending penalty."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume
from .configs import FfdConfig
from .images import around, dilated, isotropic, isotropic_mask, require_image
from .mutual_information import read_linear
from .splines import basis
from .transforms import Chain, Ffd, Transform

__all__ = ["FfdRegistration", "register_ffd"]


@dataclass(frozen=True)
class FfdRegistration:
    """What a free-form registration found.

    Attributes:
        transform: the whole chain, fixed world to moving world: the deformation, then the start.
        ncc_before: normalised cross-correlation in the mask with the start alone, -1 to 1.
        ncc_after: the same with the deformation.
        bending: the bending weight in mm2 that was used in the end.
        smallest_jacobian: smallest Jacobian determinant of the deformation that was found, also when it was refused.
        accepted: whether the deformation is part of ``transform``.
        warning: one sentence for the report when it is not.
        seconds: wall time.
    """

    transform: Transform
    ncc_before: float
    ncc_after: float
    smallest_jacobian: float
    bending: float
    accepted: bool
    warning: str | None
    seconds: float


def register_ffd(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    *,
    config: FfdConfig,
    fixed_mask: NDArray[Any] | None = None,
) -> FfdRegistration:
    """Deform the fixed space so that the moving head, read through ``start``, fits the fixed one.

    The deformation acts first, in fixed world space, so grids of heads registered to one template can be averaged:
    their lattice depends on the fixed mask and the config alone. The same call gives the same bits.

    Args:
        fixed: one channel, 3-D.
        moving: one channel, 3-D, of the same contrast up to gain and offset.
        start: fixed world to moving world, usually affine.
        config: levels, bending weight, limits.
        fixed_mask: where the fixed head is; by default the voxels that are not 0.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, a constant image or numbers that are not finite.

    Source: Rueckert et al., IEEE Trans Med Imaging 18 (1999) 712-721, with correlation in place of mutual information.
    """
    begin = time.perf_counter()
    inside = require_image(fixed, fixed_mask, "fixed")
    require_image(moving, None, "moving")
    levels = [
        _Level(fixed, moving, start, inside=inside, sizes=sizes, config=config)
        for sizes in zip(config.grid_mm, config.image_mm, strict=True)
    ]
    last = levels[-1]
    before = last.correlation(None)
    for attempt in range(config.stiffer + 1):
        bending = config.bending * 4**attempt
        ffd = levels[0].fit(None, bending)
        for level in levels[1:]:
            ffd = level.fit(ffd, bending)
        after, smallest = last.correlation(ffd), float(ffd.determinants_along(last.axes).min())
        warning = _refusal(before, after, smallest, config)
        if warning is None:
            break
    return FfdRegistration(
        transform=start if warning else Chain([ffd, start]),
        ncc_before=before,
        ncc_after=before if warning else after,
        smallest_jacobian=smallest,
        bending=bending,
        accepted=warning is None,
        warning=warning,
        seconds=time.perf_counter() - begin,
    )


def _refusal(before: float, after: float, smallest: float, config: FfdConfig) -> str | None:
    """Return why a deformation cannot be used, as a sentence for the report."""
    tried = f" (also with {4**config.stiffer} times the bending weight)" if config.stiffer else ""
    if smallest < config.smallest_jacobian:
        return (
            f"The free-form deformation was refused because its Jacobian determinant falls to {smallest:.2f}, below "
            f"{config.smallest_jacobian:g}{tried}; the affine alignment is used alone."
        )
    if after < before:
        return (
            f"The free-form deformation was refused because it lowers the correlation from {before:.3f} to "
            f"{after:.3f}{tried}; the affine alignment is used alone."
        )
    return None


@final
class _Level:
    """One resolution: both images on one isotropic world grid, the spline's basis along each axis, the cost."""

    def __init__(
        self,
        fixed: Volume,
        moving: Volume,
        start: Transform,
        *,
        inside: NDArray[np.bool_],
        sizes: tuple[float, float],
        config: FfdConfig,
    ) -> None:
        spacing, self.side = sizes
        self.config = config
        self.grid = around(fixed.grid, inside, self.side, config.mask_margin_mm + 2 * max(config.image_mm))
        mask = dilated(isotropic_mask(inside, fixed.grid, self.grid), self.side, config.mask_margin_mm)
        self.samples = np.flatnonzero(mask)
        values = isotropic(fixed, self.grid).array[0].ravel()[self.samples].astype(np.float64)
        values -= values.mean()
        self.fixed = values / max(float(np.linalg.norm(values)), 1e-12)
        self.moving = isotropic(moving, self.grid, start).array[0].astype(np.float64)
        self.index = np.stack(np.unravel_index(self.samples, self.grid.shape), axis=1).astype(np.float64)
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

    def fit(self, before: Ffd | None, bending: float) -> Ffd:
        """Minimise 1 - NCC + bending, from the deformation of the coarser level."""
        from scipy.optimize import minimize

        coefficients = np.zeros((3, *self.counts))
        if before is not None:
            coefficients = before.along(self.axes)
            for axis, matrix in enumerate(self.matrices[0]):
                coefficients = _times(np.asarray(np.linalg.pinv(matrix), dtype=np.float64), coefficients, axis)
        result = minimize(
            self.cost,
            coefficients.ravel(),
            args=(bending,),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": self.config.iterations, "ftol": 1e-6},
        )
        return Ffd(self.origin, self.spacing, result.x.reshape(3, *self.counts))

    def cost(self, parameters: NDArray[np.float64], weight: float) -> tuple[float, NDArray[np.float64]]:
        """Return the cost and its gradient by the coefficients (mm)."""
        coefficients = parameters.reshape(3, *self.counts)
        field = coefficients
        for axis, matrix in enumerate(self.matrices[0]):
            field = _times(matrix, field, axis)
        shift = field.reshape(3, -1)[:, self.samples].T / self.side
        correlation, pull = self._correlate(self.index + shift)
        full = np.zeros((3, len(field[0].ravel())))
        full[:, self.samples] = -pull.T / self.side
        slope = full.reshape(field.shape)
        for axis, matrix in enumerate(self.matrices[0]):
            slope = _times(matrix.T, slope, axis)
        bending, bend = self._bending(coefficients, weight)
        return 1 - correlation + bending, (slope + bend).ravel()

    def correlation(self, ffd: Ffd | None) -> float:
        """Return the normalised cross-correlation in the mask."""
        if ffd is None:
            return self._correlate(self.index)[0]
        shift = ffd.along(self.axes).reshape(3, -1)[:, self.samples].T / self.side
        return self._correlate(self.index + shift)[0]

    def _correlate(self, index: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        values, slopes = read_linear(self.moving, index)
        values = values - values.mean()
        norm = max(float(np.linalg.norm(values)), 1e-12)
        values /= norm
        correlation = float(self.fixed @ values)
        return correlation, ((self.fixed - correlation * values) / norm)[:, None] * slopes

    def _bending(self, coefficients: NDArray[np.float64], weight: float) -> tuple[float, NDArray[np.float64]]:
        """Return the weighted mean of the squared second derivatives (1/mm2 each) and its gradient."""
        total = np.zeros_like(coefficients)
        for orders, times in (
            ((2, 0, 0), 1),
            ((0, 2, 0), 1),
            ((0, 0, 2), 1),
            ((1, 1, 0), 2),
            ((1, 0, 1), 2),
            ((0, 1, 1), 2),
        ):
            part = coefficients
            for axis, order in enumerate(orders):
                part = _times(self.grams[order][axis], part, axis)
            total += times * part
        total *= weight
        return float(np.sum(total * coefficients)), 2 * total


def _times(matrix: NDArray[np.float64], field: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Multiply a matrix onto one spatial axis of ``(3, a, b, c)``."""
    if axis == 2:
        return np.asarray(field @ matrix.T)
    if axis == 1:
        return np.asarray(matrix @ field)
    shape = field.shape
    return np.asarray((matrix @ field.reshape(3, shape[1], -1)).reshape(3, len(matrix), *shape[2:]))
