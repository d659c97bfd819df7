"""What an atlas says about heads that it did not see: each head is left out in turn and compared with the others.

A left-out head goes the way of a scan whose Z map is made. It is registered again, from the scan to the mean of the
others, and its voxels are not interpolated. So its residuals hold all that separates a new healthy head from the mean:
the subjects' differences, the noise of single voxels and the error of the registration.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..prepare.atlas import Atlas, Calibration
from ..prepare.zmap import deviation, masked_smoothing, t_to_normal
from ..register.transforms import Transform, sample
from ..volume import Volume
from .configs import AtlasConfig
from .heads import HealthyHead

__all__ = ["WIDTHS_MM", "calibrate", "left_out_z", "residuals_at"]

WIDTHS_MM = (0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)
"""Smoothings of Z at which the spread is measured."""

SHOWN_WIDTH = WIDTHS_MM.index(2.0)
STRIDE = 5
"""One voxel in so many is kept of each left-out Z map; neighbours say nearly the same."""


def residuals_at(
    job: tuple[HealthyHead, Volume, NDArray[np.bool_], Transform, NDArray[np.float64]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a head's value less the mean of the others at places of the template: that of the nearest voxel.

    Args:
        job: the head; mean and mask of the others; head world to template world; ``(n, 3)`` template world.

    Returns:
        Residuals and where they are known, each ``(n,)``.
    """
    from scipy.spatial import cKDTree

    head, mean, mask, transform, places = job
    points = transform.points(head.image.grid.to_world(np.argwhere(head.mask)))
    both = Volume(np.stack([np.where(mask, mean.array[0], 0), mask.astype(np.float32)]), mean.grid)
    expected, weight = sample(both, points)
    inside = weight >= 0.5
    residuals = head.image.array[0][head.mask][inside] - expected[inside] / weight[inside]
    if not inside.any():
        return np.zeros(len(places), np.float32), np.zeros(len(places), bool)
    reach = 0.75 * max(head.image.spacing)
    distance, index = cKDTree(points[inside]).query(places, distance_upper_bound=reach)
    known = np.isfinite(distance)
    return np.where(known, residuals[np.where(known, index, 0)], 0).astype(np.float32), known


def left_out_z(job: tuple[HealthyHead, Atlas, Transform, float]) -> NDArray[np.float32]:
    """Return Z of a left-out head at every ``STRIDE``-th voxel, not calibrated.

    Args:
        job: the head, the atlas of the others, head world to atlas world, floor of the sd.

    Returns:
        ``(2, widths, n)``: without and with the small-sample correction, at each of ``WIDTHS_MM``.
    """
    head, atlas, transform, floor = job
    found = deviation(head.image, head.mask, atlas, transform, sd_floor=floor)
    covered = np.zeros(head.mask.shape, bool)
    covered[head.mask] = found.known
    rows = []
    for values in (found.t, t_to_normal(found.t, found.count)):
        z = np.zeros(head.mask.shape, np.float32)
        z[head.mask] = values
        rows.append([masked_smoothing(z, covered, head.image.spacing, w)[covered][::STRIDE] for w in WIDTHS_MM])
    return np.asarray(rows, dtype=np.float32)


def calibrate(
    maps: Sequence[NDArray[np.float32]], config: AtlasConfig, sd_floor: float
) -> tuple[Calibration, list[tuple[float, float]]]:
    """Pool what :func:`left_out_z` gave, each head with the same weight.

    With a robust estimator the spread is half the distance of the percentiles 15.87 and 84.13, which is the standard
    deviation of a normal distribution, so that a head that is not healthy does not widen it.

    Returns:
        The calibration, and of each head the mean and standard deviation of its Z map (2 mm) in units of the median
        head's root mean square, which one odd head does not move.
    """
    if config.estimator == "mean":
        means = np.mean([m.mean(axis=-1, dtype=np.float64) for m in maps], axis=0)
        squares = np.mean([np.square(m.astype(np.float64)).mean(axis=-1) for m in maps], axis=0)
        spreads = np.sqrt(np.maximum(squares - means**2, 1e-12))
    else:
        low, high = np.percentile(np.concatenate(maps, axis=-1), (15.865525, 84.134475), axis=-1)
        spreads = np.maximum((high - low) / 2, 1e-6)
    plain, small = (tuple(round(float(s), 5) for s in row) for row in spreads)
    calibration = Calibration(smooth_mm=WIDTHS_MM, plain=plain, small_sample=small, sd_floor=sd_floor, heads=len(maps))
    shown = [m[0, SHOWN_WIDTH] for m in maps]
    usual = max(float(np.median([np.sqrt(np.mean(np.square(z))) for z in shown])), 1e-6)
    return calibration, [(float(z.mean()) / usual, float(z.std()) / usual) for z in shown]
