"""Images made ready for registration: one channel, cropped to what matters, isotropic along the world axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..volume import Grid, Volume
from .transforms import Transform, resample

__all__ = ["around", "dilated", "isotropic", "isotropic_mask", "require_image"]

FWHM = float(np.sqrt(8 * np.log(2)))


def require_image(volume: Volume, mask: NDArray[Any] | None, name: str) -> NDArray[np.bool_]:
    """Check an image and return its mask, by default the voxels that are not 0.

    Raises:
        GeometryError: not one channel in 3-D, or the mask has another shape.
        InputError: numbers that are not finite, an empty mask, or a constant image.
    """
    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(
            f"The {name} image has an array of shape {volume.array.shape}, but registration needs one channel in 3-D."
        )
    image = volume.array[0]
    if mask is not None and mask.shape != image.shape:
        raise GeometryError(f"The {name} mask has shape {mask.shape}, but its image has shape {image.shape}.")
    if not np.isfinite(image).all():
        raise InputError(f"The {name} image has {int((~np.isfinite(image)).sum())} voxels that are not numbers.")
    inside = image != 0 if mask is None else np.asarray(mask) != 0
    if inside.sum() < 64:
        raise InputError(f"The {name} image has {int(inside.sum())} voxels in its mask; registration needs 64 or more.")
    if np.ptp(image) == 0:
        raise InputError(f"The {name} image is constant ({float(image.flat[0])}), so there is nothing to align.")
    return np.asarray(inside, dtype=bool)


def around(grid: Grid, mask: NDArray[Any], spacing_mm: float, margin_mm: float) -> Grid:
    """Return an isotropic grid along the world axes that holds the mask and a margin."""
    index = np.argwhere(mask)
    low, high = index.min(axis=0) - 0.5, index.max(axis=0) + 0.5
    corners = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    world = grid.to_world(corners)
    first, last = world.min(axis=0) - margin_mm, world.max(axis=0) + margin_mm
    shape = np.maximum(4, np.ceil((last - first) / spacing_mm)).astype(int)
    affine = np.diag([spacing_mm] * 3 + [1.0])
    affine[:3, 3] = (first + last) / 2 - spacing_mm * (shape - 1) / 2
    return Grid(tuple(int(n) for n in shape), affine)


def isotropic(volume: Volume, grid: Grid, transform: Transform | None = None) -> Volume:
    """Resample an image onto a coarser isotropic grid, smoothed first so that nothing is aliased.

    The Gaussian along each axis makes up the difference between the two voxel sides, taken as widths at half height.
    """
    from scipy import ndimage

    target = grid.spacing[0]
    widths = [np.sqrt(max(0.0, target**2 - s**2)) / FWHM / s for s in volume.spacing]
    smooth = ndimage.gaussian_filter(volume.array[0].astype(np.float32), widths, mode="nearest", truncate=3.0)
    return resample(volume.with_array(smooth), grid, transform)


def isotropic_mask(mask: NDArray[Any], own: Grid, grid: Grid, transform: Transform | None = None) -> NDArray[np.bool_]:
    """Resample a mask onto another grid: inside where at least half is inside."""
    share = resample(Volume(mask[None].astype(np.float32), own), grid, transform).array[0]
    return np.asarray(share >= 0.5, dtype=bool)


def dilated(mask: NDArray[Any], spacing_mm: float, margin_mm: float) -> NDArray[np.bool_]:
    """Grow a mask on an isotropic grid by a distance."""
    from scipy import ndimage

    if margin_mm == 0 or not mask.any():
        return np.asarray(mask, dtype=bool)
    return np.asarray(ndimage.distance_transform_edt(~np.asarray(mask, dtype=bool)) * spacing_mm <= margin_mm)
