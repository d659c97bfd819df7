"""Linear alignment at one resolution: samples of the fixed head, a pose, and the optimisers that climb to a better one.

The optimiser is quasi-Newton (L-BFGS) with exact gradients over parameters that are all in mm, which reaches the
optimum in some tens of evaluations where step-wise gradient descent needs hundreds and stops short of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..volume import Volume
from .configs import AffineConfig
from .images import around, dilated, isotropic, isotropic_mask, known
from .mutual_information import MattesInformation
from .transforms import grid_points

__all__ = ["Level", "Pose", "climb_affine", "climb_rigid", "left_jacobian", "make_level", "rotation"]

RADIUS_MM = 50.0
"""Distance at which a change of a rotation or scale parameter by 1 mm moves a point by 1 mm: about a head."""

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pose:
    """A linear map about the fixed head's centre.

    Attributes:
        linear: ``(3, 3)``.
        shift: ``(3,)``; a fixed point at ``centre + offset`` lies at ``linear @ offset + shift`` in the moving world.
        similarity: mutual information (nats) there.
    """

    linear: Array
    shift: Array
    similarity: float = 0.0


@dataclass(frozen=True, eq=False)
class Level:
    """Samples of the fixed head and the measure against the moving head.

    Attributes:
        offsets: ``(n, 3)`` mm from the fixed head's centre.
        measure: of the same samples.
    """

    offsets: Array
    measure: MattesInformation

    def thinned(self, samples: int, seed: int) -> Level:
        """Return a level with at most so many samples, drawn at random."""
        if len(self.offsets) <= samples:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.offsets), samples, replace=False))
        return Level(self.offsets[chosen], self.measure.of(chosen))

    def similarity(self, linear: Array, shift: Array) -> float:
        """Return the mutual information (nats) of a pose."""
        return self.measure(self.offsets @ linear.T + shift)[0]


def make_level(
    images: tuple[Volume, Volume],
    inside: tuple[NDArray[np.bool_], NDArray[np.bool_]],
    centre: Array,
    *,
    config: AffineConfig,
    spacing: float,
) -> Level:
    """Resample the fixed and the moving head to isotropic voxels and draw the samples.

    Args:
        images: fixed and moving, one channel each.
        inside: their masks, ``(x, y, z)``.
        centre: ``(3,)`` of the fixed head, RAS mm.
        config: margin of the mask, bins and number of samples.
        spacing: voxel side in mm.

    Raises:
        InputError: the fixed head is so thin that no voxel of this side lies half inside it.
    """
    fixed, moving = images
    margin = config.mask_margin_mm + 2 * spacing
    grid = around(fixed.grid, inside[0], spacing, margin)
    mask = dilated(isotropic_mask(inside[0], fixed.grid, grid), spacing, config.mask_margin_mm)
    chosen = np.flatnonzero(mask & known(inside[0], fixed.grid, grid))
    if len(chosen) == 0:
        raise InputError(
            f"The fixed head is too thin for a registration with voxels of {spacing:g} mm; give more of the head, a "
            "mask of it, or smaller levels_mm."
        )
    if len(chosen) > config.samples:
        chosen = np.sort(np.random.default_rng(config.seed).choice(chosen, config.samples, replace=False))
    values = isotropic(fixed, grid).array[0].ravel()[chosen]
    own = around(moving.grid, inside[1], spacing, margin)
    image = isotropic(moving, own).array[0]
    there = known(inside[1], moving.grid, own)
    measure = MattesInformation(values, image, own, bins=config.bins, window=image, known=there)
    return Level(grid_points(grid)[chosen] - centre, measure)


def rotation(vector: Array) -> Array:
    """Return the rotation matrix of a rotation vector in radians (Rodrigues' formula)."""
    angle = float(np.linalg.norm(vector))
    cross = _cross(vector)
    a = np.sinc(angle / np.pi)
    b = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    return np.asarray(np.eye(3) + a * cross + b * cross @ cross, dtype=np.float64)


def climb_rigid(level: Level, pose: Pose, iterations: int) -> Pose:
    """Turn, shift and scale (alike in all directions) a pose to the nearest optimum.

    The scale is free because a head and a template may differ in size by so much that no turn fits.
    """

    def model(p: Array) -> tuple[Array, Array]:
        return np.exp(p[6] / RADIUS_MM) * rotation(p[:3] / RADIUS_MM) @ pose.linear, pose.shift + p[3:6]

    def slopes(p: Array, by_linear: Array, by_shift: Array) -> Array:
        s = by_linear @ model(p)[0].T
        axial = np.array([s[2, 1] - s[1, 2], s[0, 2] - s[2, 0], s[1, 0] - s[0, 1]])
        by_turn = left_jacobian(p[:3] / RADIUS_MM).T @ axial
        return np.concatenate([by_turn / RADIUS_MM, by_shift, [np.trace(s) / RADIUS_MM]])

    return _climb(level, model, slopes, np.zeros(7), iterations)


def climb_affine(level: Level, pose: Pose, iterations: int) -> Pose:
    """Change all twelve numbers of a pose to the nearest optimum."""

    def model(p: Array) -> tuple[Array, Array]:
        return pose.linear + p[:9].reshape(3, 3) / RADIUS_MM, pose.shift + p[9:]

    def slopes(_: Array, by_linear: Array, by_shift: Array) -> Array:
        return np.concatenate([by_linear.ravel() / RADIUS_MM, by_shift])

    return _climb(level, model, slopes, np.zeros(12), iterations)


def _climb(
    level: Level,
    model: Callable[[Array], tuple[Array, Array]],
    slopes: Callable[[Array, Array, Array], Array],
    start: Array,
    iterations: int,
) -> Pose:
    """Maximise the information over parameters in mm, given their map to a pose and the gradient of that map."""
    from scipy.optimize import minimize

    def cost(p: Array) -> tuple[float, Array]:
        linear, shift = model(p)
        information, pull = level.measure(level.offsets @ linear.T + shift)
        return -information, -slopes(p, pull.T @ level.offsets, pull.sum(axis=0))

    found = minimize(cost, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations, "ftol": 1e-7})
    linear, shift = model(np.asarray(found.x))
    return Pose(linear, shift, -float(found.fun))


def _cross(v: Array) -> Array:
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


def left_jacobian(vector: Array) -> Array:
    """Return the matrix that takes a change of a rotation vector to the small turn that it adds on the left."""
    angle = float(np.linalg.norm(vector))
    cross = _cross(vector)
    a = 0.5 * np.sinc(angle / (2 * np.pi)) ** 2
    b = 1 / 6 if angle < 1e-3 else (angle - np.sin(angle)) / angle**3
    return np.asarray(np.eye(3) + a * cross + b * cross @ cross, dtype=np.float64)
