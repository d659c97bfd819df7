"""A smooth log field of second order from the differences between nearby voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["fit_pairs"]

Floats = NDArray[np.float64]

DISTANCES_MM = (3.0, 6.0, 12.0)
"""Distances of the voxels of a pair."""

DIRECTIONS = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1))

BRIGHTEST, DARKEST = 0.3, 1.2
"""How far the logarithm may lie above and below its median; above it in an ADC map is fluid, mostly noise."""

PAIRS = 80_000
"""About as many pairs are used; more change the field little."""

FEWEST_PAIRS = 512

ROUNDS = 12
"""Rounds of weighting; more find a little more of the field and of the slow variation of the anatomy alike."""

UNIT_MM = 50.0
"""Coordinates are in this unit, so that all terms are of like size in a head."""


def fit_pairs(
    image: NDArray[Any], mask: NDArray[np.bool_], spacing: tuple[float, ...], *, smooth_mm: float, edge: float
) -> Floats:
    """Return the logarithm of the field, a polynomial of second order in the coordinates, on the whole grid.

    Two nearby voxels of one tissue differ by the field and by noise; voxels on two sides of a border differ by more.
    So the polynomial is fitted to the differences of the logarithm between voxels ``DISTANCES_MM`` apart, and a
    difference r that it leaves is weighted by ``exp(-r^2 / (2 edge^2))`` (Welsch), in ``ROUNDS`` rounds. No
    tissue classes are needed, and the inside of a lesion is worth as much as healthy tissue.

    Args:
        image: ``(x, y, z)``, positive in the mask.
        mask: the voxels that are used.
        spacing: mm.
        smooth_mm: standard deviation of the smoothing inside the mask, in mm; 0 for none.
        edge: standard deviation of the weight.

    Source: the idea to read the field from local ratios and to leave out edges: Vokurka, Thacker and Jackson, J Magn
    Reson Imaging 10 (1999) 550-562. The weights: Holland and Welsch, Commun Stat A 6 (1977) 813-827.
    """
    logarithm = _smoothed_log(image, mask, spacing, smooth_mm)
    offset = logarithm - np.median(logarithm[mask])
    tissue = mask & (offset < BRIGHTEST) & (offset > -DARKEST)
    axes = [(np.arange(n) - (n - 1) / 2) * s / UNIT_MM for n, s in zip(image.shape, spacing, strict=True)]
    first, second = _pairs(tissue, spacing)
    if len(first) < FEWEST_PAIRS:
        raise InputError(
            f"The mask of the bias correction holds {len(first)} pairs of nearby voxels of tissue, but a bias field "
            f"needs {FEWEST_PAIRS}; give a mask of connected tissue, or turn the bias correction off for this image."
        )
    flat = logarithm.ravel()
    change = flat[second] - flat[first]
    terms = _terms(axes, second, image.shape) - _terms(axes, first, image.shape)
    coefficients: Floats = np.zeros(terms.shape[1])
    for _ in range(ROUNDS):
        weight = np.exp(-0.5 * ((change - terms @ coefficients) / edge) ** 2)
        weighted = terms * weight[:, None]
        # terms that no pair tells apart (a stack of one or two slices) share the least-norm solution
        coefficients = np.asarray(np.linalg.lstsq(weighted.T @ terms, weighted.T @ change, rcond=1e-8)[0], np.float64)
    return _polynomial(axes, coefficients)


def _smoothed_log(image: NDArray[Any], mask: NDArray[np.bool_], spacing: tuple[float, ...], smooth_mm: float) -> Floats:
    """Return the logarithm averaged over neighbours inside the mask, 0 outside."""
    from scipy.ndimage import gaussian_filter

    logarithm = np.zeros(image.shape)
    logarithm[mask] = np.log(image[mask])
    if smooth_mm > 0:
        sigma = [smooth_mm / s for s in spacing]
        share = gaussian_filter(mask.astype(np.float64), sigma)
        logarithm = gaussian_filter(logarithm, sigma) / np.maximum(share, 1e-6)
    return np.asarray(np.where(mask, logarithm, 0))


def _pairs(tissue: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the flat indices of the two voxels of each pair; every k-th pair of an offset when there are many."""
    # a set would do but for its order: the same scan gives the same bits
    offsets = dict.fromkeys(_offset(mm, direction, spacing) for mm in DISTANCES_MM for direction in DIRECTIONS)
    every = np.arange(tissue.size).reshape(tissue.shape)
    first, second = [], []
    for offset in offsets:
        here = tuple(slice(max(0, -k), max(0, n - max(0, k))) for k, n in zip(offset, tissue.shape, strict=True))
        there = tuple(slice(max(0, k), max(0, n + min(0, k))) for k, n in zip(offset, tissue.shape, strict=True))
        both = tissue[here] & tissue[there]
        step = max(1, int(both.sum()) * len(offsets) // PAIRS)
        first.append(every[here][both][::step])
        second.append(every[there][both][::step])
    return np.concatenate(first), np.concatenate(second)


def _offset(distance: float, direction: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
    """Return a step in voxels of about this length; the nearest neighbour where voxels are larger than that."""
    length = np.sqrt(sum(d * d for d in direction))
    step = tuple(round(distance * d / length / s) for d, s in zip(direction, spacing, strict=True))
    return step if any(step) else direction


def _terms(axes: list[Floats], flat: NDArray[np.intp], shape: tuple[int, ...]) -> Floats:
    """Return the nine terms of first and second order at voxels, ``(n, 9)``."""
    x, y, z = (axis[i] for axis, i in zip(axes, np.unravel_index(flat, shape), strict=True))
    return np.stack([x, y, z, x * x, y * y, z * z, x * y, x * z, y * z], axis=1)


def _polynomial(axes: list[Floats], coefficients: Floats) -> Floats:
    """Return the sum of the terms of :func:`_terms` on the whole grid, without an array of each of them."""
    x, y, z = np.ix_(*axes)
    a, b, c, aa, bb, cc, ab, ac, bc = coefficients
    return np.asarray((a + aa * x) * x + (b + bb * y + ab * x) * y + (c + cc * z + ac * x + bc * y) * z)
