"""Mutual information of two images as a smooth function of where the moving image is read, with its exact gradient."""

from __future__ import annotations

from copy import copy
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from ..volume import Grid

__all__ = ["MattesInformation", "read_linear"]

MARGIN = 2
"""Empty bins at each end of the moving histogram, so that the cubic window never leaves it."""

FEWEST_SHARE = 0.1
"""Share of the samples that have to fall where the moving image is known; below it the information counts as zero."""


@final
class MattesInformation:
    """Mattes' estimate: fixed intensities fall into bins, moving ones through a cubic B-spline window.

    Samples that fall where the moving image is not known (beyond a face that cuts through the head) lose their weight
    smoothly, and the gradient knows of it.

    Source: Mattes et al., IEEE Trans Med Imaging 22 (2003) 120-128, eq. 5-12.
    """

    def __init__(
        self,
        fixed: NDArray[Any],
        moving: NDArray[Any],
        grid: Grid,
        *,
        bins: int,
        window: NDArray[Any],
        known: NDArray[Any] | None = None,
    ) -> None:
        """Fix the samples and the histogram.

        Args:
            fixed: ``(n,)`` intensities of the samples.
            moving: ``(x, y, z)`` moving image.
            grid: where the moving image lies.
            bins: bins of each axis of the histogram.
            window: moving intensities whose range the histogram spans.
            known: ``(x, y, z)``, 1 where the moving image is known and 0 elsewhere; by default it is known everywhere.
        """
        self.bins = bins
        self.moving = np.ascontiguousarray(moving, dtype=np.float64)
        everywhere = known is None or bool(np.all(known))
        self.known = None if everywhere else np.ascontiguousarray(known, dtype=np.float64)
        self.linear = np.linalg.inv(grid.affine[:3, :3])
        self.offset = -self.linear @ grid.affine[:3, 3]
        low, high = float(fixed.min()), float(fixed.max())
        self.rows = np.clip(((fixed - low) / max(high - low, 1e-12) * bins).astype(np.int64), 0, bins - 1)
        self.low = float(window.min())
        self.width = max(float(window.max()) - self.low, 1e-12) / (bins - 2 * MARGIN)

    def of(self, samples: NDArray[Any]) -> MattesInformation:
        """Return the same measure over some of the samples, chosen by index."""
        part = copy(self)
        part.rows = self.rows[samples]
        return part

    def __call__(self, points: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Return the mutual information in nats at moving points ``(n, 3)`` in RAS mm and its gradient, per mm."""
        index = points @ self.linear.T + self.offset
        values, slopes = read_linear(self.moving, index)
        weights, total = None, float(len(values))
        if self.known is not None:
            weights, weight_slopes = read_linear(self.known, index)
            total = float(weights.sum())
            if total < FEWEST_SHARE * len(values):
                return 0.0, np.zeros_like(points)
        position = np.clip((values - self.low) / self.width + MARGIN, MARGIN, self.bins - MARGIN - 1e-9)
        cell = position.astype(np.int64)
        f = position - cell
        g = 1 - f
        f2, g2 = f * f, g * g
        taps = (g2 * g / 6, 2 / 3 - f2 + f2 * f / 2, 2 / 3 - g2 + g2 * g / 2, f2 * f / 6)
        turned = (-g2 / 2, -2 * f + 1.5 * f2, 2 * g - 1.5 * g2, f2 / 2)
        first = self.rows * (self.bins + 2) + cell - 1
        size = self.bins * (self.bins + 2)
        counts = np.zeros(size)
        for k, tap in enumerate(taps):
            counts += np.bincount(first + k, weights=tap if weights is None else tap * weights, minlength=size)
        joint = counts.reshape(self.bins, -1) / total
        both = joint.sum(axis=1)[:, None] * joint.sum(axis=0)
        ratio = np.zeros_like(joint)
        np.log(joint / np.maximum(both, 1e-300), out=ratio, where=joint > 1e-12)
        information = float(np.sum(joint * ratio))
        flat = ratio.ravel()
        found = [flat[first + k] for k in range(4)]
        pull = sum(t * r for t, r in zip(turned, found, strict=True)) / (total * self.width)
        if weights is None:
            return information, (pull[:, None] * slopes) @ self.linear
        share = (sum(t * r for t, r in zip(taps, found, strict=True)) - information) / total
        return information, ((pull * weights)[:, None] * slopes + share[:, None] * weight_slopes) @ self.linear


def read_linear(
    image: NDArray[np.float64], index: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read an image at voxel positions ``(n, 3)``: linear values and their exact slopes ``(n, 3)`` per voxel.

    Beyond the border the nearest voxel's value is read and the slope is zero.
    """
    shape = np.asarray(image.shape)
    inside = np.clip(index, 0, shape - 1)
    cell = np.minimum(inside.astype(np.int64), shape - 2)
    f = inside - cell
    strides = (int(shape[1] * shape[2]), int(shape[2]), 1)
    first = cell @ np.asarray(strides)
    flat = image.ravel()
    corner = [flat[first + (i * strides[0] + j * strides[1] + k)] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    x, y, z = f.T
    along_z = [a + z * (b - a) for a, b in zip(corner[::2], corner[1::2], strict=True)]
    slope_z = [b - a for a, b in zip(corner[::2], corner[1::2], strict=True)]
    low, high = along_z[0] + y * (along_z[1] - along_z[0]), along_z[2] + y * (along_z[3] - along_z[2])
    slopes = np.empty_like(f)
    slopes[:, 0] = high - low
    slopes[:, 1] = (1 - x) * (along_z[1] - along_z[0]) + x * (along_z[3] - along_z[2])
    slopes[:, 2] = (1 - x) * ((1 - y) * slope_z[0] + y * slope_z[1]) + x * ((1 - y) * slope_z[2] + y * slope_z[3])
    slopes[index != inside] = 0
    return low + x * (high - low), slopes
