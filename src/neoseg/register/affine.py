"""Rigid, then affine registration by Mattes mutual information, on isotropic images of the head.

The optimiser is quasi-Newton (L-BFGS) with exact gradients over parameters that are all in mm, which reaches the
optimum in some tens of evaluations where step-wise gradient descent needs hundreds and stops short of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume
from .configs import AffineConfig
from .images import around, dilated, isotropic, isotropic_mask, require_image
from .moments import start_from_moments
from .mutual_information import MattesInformation
from .transforms import Affine, grid_points

__all__ = ["AffineRegistration", "register_affine"]

RADIUS_MM = 50.0
"""Distance at which a change of a rotation or scale parameter by 1 mm moves a point by 1 mm: about a head."""

Model = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class AffineRegistration:
    """What an affine registration found.

    Attributes:
        transform: fixed world to moving world.
        similarity: mutual information (nats) at the finest level; higher is better.
        seconds: wall time.
    """

    transform: Affine
    similarity: float
    seconds: float


@dataclass(frozen=True)
class _Level:
    """Samples of the fixed head about its centre and the measure against the moving head."""

    offsets: NDArray[np.float64]
    measure: MattesInformation


def register_affine(
    fixed: Volume,
    moving: Volume,
    *,
    config: AffineConfig,
    fixed_mask: NDArray[Any] | None = None,
    moving_mask: NDArray[Any] | None = None,
    start: Affine | None = None,
) -> AffineRegistration:
    """Find the affine map from the fixed to the moving head.

    The same call gives the same bits.

    Args:
        fixed: one channel, 3-D.
        moving: one channel, 3-D; any contrast.
        config: levels and optimiser.
        fixed_mask: where the fixed head is, ``(x, y, z)``; by default the voxels that are not 0.
        moving_mask: the same for the moving head; it crops the image and gives the start.
        start: a first guess; then the rigid search is left out. By default the centres of the masks are aligned.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, a constant image or numbers that are not finite.

    Source: Mattes et al., IEEE Trans Med Imaging 22 (2003) 120-128.
    """
    begin = time.perf_counter()
    inside = (require_image(fixed, fixed_mask, "fixed"), require_image(moving, moving_mask, "moving"))
    first = start or start_from_moments(fixed, moving, fixed_mask=inside[0], moving_mask=inside[1])
    centre = fixed.grid.to_world(np.argwhere(inside[0]).mean(axis=0))
    levels = [_level((fixed, moving), inside, centre, config=config, spacing=mm) for mm in config.levels_mm]
    linear, shift = first.matrix[:3, :3], first.points(centre[None])[0]
    if start is None:
        linear, shift = _rigid(levels[0], shift, config)
    similarity = 0.0
    for level in levels:
        parameters, similarity = _climb(level, _affine_model(linear, shift), np.zeros(12), config.iterations)
        change = _affine_model(linear, shift)(parameters)
        linear, shift = change[:, :3], change[:, 3]
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, shift - linear @ centre
    return AffineRegistration(Affine(matrix), similarity, time.perf_counter() - begin)


def _level(
    images: tuple[Volume, Volume],
    inside: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    centre: NDArray[np.float64],
    *,
    config: AffineConfig,
    spacing: float,
) -> _Level:
    fixed, moving = images
    grid = around(fixed.grid, inside[0], spacing, config.mask_margin_mm + 2 * spacing)
    mask = dilated(isotropic_mask(inside[0], fixed.grid, grid), spacing, config.mask_margin_mm).ravel()
    if config.sampling < 1:
        mask &= np.random.default_rng(config.seed).random(len(mask)) < config.sampling
    values = isotropic(fixed, grid).array[0].ravel()[mask]
    own = around(moving.grid, inside[1], spacing, config.mask_margin_mm + 2 * spacing)
    image = isotropic(moving, own).array[0]
    measure = MattesInformation(values, image, own, bins=config.bins, window=image)
    return _Level(grid_points(grid)[mask] - centre, measure)


def _rigid(
    level: _Level, shift: NDArray[np.float64], config: AffineConfig
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Search from the header's orientation and from turns about each axis; keep the best optimum."""
    turn = np.radians(config.turn_degrees) * RADIUS_MM
    starts = [np.zeros(6)]
    if turn > 0:
        starts += [sign * turn * np.eye(6)[axis] for axis in range(3) for sign in (1, -1)]
    model = _rigid_model(shift)
    found = [_climb(level, model, begin, config.iterations) for begin in starts]
    change = model(max(found, key=lambda pair: pair[1])[0])
    return change[:, :3], change[:, 3]


def _rigid_model(shift: NDArray[np.float64]) -> Model:
    from scipy.spatial.transform import Rotation

    def matrix(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([Rotation.from_rotvec(p[:3] / RADIUS_MM).as_matrix(), shift + p[3:]])

    return matrix


def _affine_model(linear: NDArray[np.float64], shift: NDArray[np.float64]) -> Model:
    def matrix(p: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.column_stack([linear + p[:9].reshape(3, 3) / RADIUS_MM, shift + p[9:]])

    return matrix


def _climb(
    level: _Level, model: Model, start: NDArray[np.float64], iterations: int
) -> tuple[NDArray[np.float64], float]:
    """Maximise the information over the parameters (mm) of a model that gives the matrix ``(3, 4)``."""
    from scipy.optimize import minimize

    step = 1e-4 * np.eye(len(start))

    def cost(p: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        change = model(p)
        information, pull = level.measure(level.offsets @ change[:, :3].T + change[:, 3])
        by_matrix = np.column_stack([pull.T @ level.offsets, pull.sum(axis=0)])
        slopes = [np.sum(by_matrix * (model(p + d) - model(p - d))) / 2e-4 for d in step]
        return -information, -np.asarray(slopes)

    result = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "ftol": 1e-7})
    return np.asarray(result.x), -float(result.fun)
