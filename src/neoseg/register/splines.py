"""Cubic B-splines on a regular lattice: basis matrices for grids, tensor products for scattered points."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["basis", "spline_at", "spline_slopes"]

CHUNK = 32768
"""Points evaluated at once: the taps of one chunk stay in the cache."""


def basis(positions: NDArray[Any], count: int, derivative: int = 0) -> NDArray[np.float64]:
    """Return the matrix ``(len(positions), count)`` of the cubic B-splines centred at 0, 1, ... ``count - 1``.

    Args:
        positions: positions in lattice units.
        count: number of control points.
        derivative: 0, 1 or 2, taken per lattice unit.

    Source: Unser, IEEE Signal Processing Magazine 16 (1999), eq. 4 and its derivatives.
    """
    t = np.asarray(positions, dtype=np.float64)[:, None] - np.arange(count)[None, :]
    a = np.abs(t)
    inner, outer = a < 1, (a >= 1) & (a < 2)
    if derivative == 0:
        return np.where(inner, 2 / 3 - a**2 + a**3 / 2, np.where(outer, (2 - a) ** 3 / 6, 0.0))
    if derivative == 1:
        return np.sign(t) * np.where(inner, -2 * a + 1.5 * a**2, np.where(outer, -((2 - a) ** 2) / 2, 0.0))
    return np.where(inner, 3 * a - 2, np.where(outer, 2 - a, 0.0))


def spline_at(coefficients: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evaluate a vector-valued cubic spline at scattered positions; coefficients outside the lattice are zero.

    Args:
        coefficients: ``(k, a, b, c)``, k values at each control point.
        positions: ``(n, 3)`` in lattice units.

    Returns:
        ``(n, k)``.
    """
    return _sum_of_taps(coefficients, positions, (0, 0, 0))


def spline_slopes(coefficients: NDArray[np.float64], positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivatives ``(n, k, 3)`` of the same spline, per lattice unit."""
    return np.stack(
        [_sum_of_taps(coefficients, positions, orders) for orders in ((1, 0, 0), (0, 1, 0), (0, 0, 1))], axis=-1
    )


def _sum_of_taps(
    coefficients: NDArray[np.float64], positions: NDArray[np.float64], orders: tuple[int, int, int]
) -> NDArray[np.float64]:
    k, shape = coefficients.shape[0], np.asarray(coefficients.shape[1:])
    # Positions are cut at 2.5 cells outside, where all taps read the zeros of the border.
    padded = np.pad(coefficients, ((0, 0), (4, 4), (4, 4), (4, 4))).reshape(k, -1).T.copy()
    strides = ((int(shape[1]) + 8) * (int(shape[2]) + 8), int(shape[2]) + 8, 1)
    values = np.empty((len(positions), k))
    for start in range(0, len(positions), CHUNK):
        part = slice(start, start + CHUNK)
        t = np.clip(positions[part], -2.5, shape + 1.5)
        cell = np.floor(t).astype(np.int64)
        along = [_taps((t - cell)[:, axis], order) for axis, order in enumerate(orders)]
        first = (cell + 3) @ np.asarray(strides)
        total = np.zeros((len(t), k))
        for i in range(4):
            for j in range(4):
                pair = along[0][i] * along[1][j]
                for m in range(4):
                    tap = padded[first + (i * strides[0] + j * strides[1] + m)]
                    total += (pair * along[2][m])[:, None] * tap
        values[part] = total
    return values


def _taps(f: NDArray[np.float64], derivative: int) -> NDArray[np.float64]:
    """Return the four weights ``(4, n)`` of the control points -1, 0, 1, 2 around the fractions ``f``."""
    g = 1 - f
    if derivative == 0:
        return np.stack([g**3 / 6, 2 / 3 - f**2 + f**3 / 2, 2 / 3 - g**2 + g**3 / 2, f**3 / 6])
    return np.stack([-(g**2) / 2, -2 * f + 1.5 * f**2, 2 * g - 1.5 * g**2, f**2 / 2])
