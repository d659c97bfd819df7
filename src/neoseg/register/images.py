"""Images made ready for registration: one channel, cropped to what matters, isotropic along the world axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..volume import Grid, Volume
from .transforms import Transform, grid_points, resample

__all__ = ["around", "clipped", "dilated", "isotropic", "isotropic_mask", "known", "require_image"]

FWHM = float(np.sqrt(8 * np.log(2)))


FEWEST_VOXELS = 64
"""Of a head: fewer tell nothing of where it lies."""

FEWEST_SLICES = 3
"""Along any axis: a head seen in fewer slices says nothing about turns out of their plane."""

OPEN_SHARE = 0.95
"""A field of view with more than this share of voxels other than 0 has a background that is noise, not 0."""

OUTLIERS = (0.5, 99.5)
"""Percentiles of the head beyond which intensities are cut off: a few wild voxels would take the whole histogram."""


def require_image(volume: Volume, mask: NDArray[Any] | None, name: str) -> NDArray[np.bool_]:
    """Check an image and return its mask.

    Without a mask the head is where the image is not 0 or, where nearly no voxel is 0, above Otsu's threshold.

    Raises:
        GeometryError: not one channel in 3-D, or the mask has another shape.
        InputError: numbers that are not finite, an empty mask, fewer than 3 slices in it, or a constant image.
    """
    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(
            f"The {name} image has an array of shape {volume.array.shape}, but registration needs one channel in 3-D; "
            "give a single volume."
        )
    image = volume.array[0]
    if mask is not None and mask.shape != image.shape:
        raise GeometryError(
            f"The {name} mask has shape {mask.shape}, but its image has shape {image.shape}; give a mask on the grid "
            "of the image."
        )
    if not np.isfinite(image).all():
        raise InputError(
            f"The {name} image has {int((~np.isfinite(image)).sum())} voxels of {image.size} that are not numbers; "
            "write 0 in their place, or export the image again."
        )
    inside = _head(image) if mask is None else np.asarray(mask) != 0
    if inside.sum() < FEWEST_VOXELS:
        remedy = "give a mask of the whole head"
        if mask is None:
            remedy = "none was given, so they are the voxels that stand out from the background; give one of the head"
        raise InputError(
            f"The {name} image has {int(inside.sum())} voxels in its mask, but registration needs {FEWEST_VOXELS} or "
            f"more; {remedy}, or another image."
        )
    if np.ptp(image) == 0:
        raise InputError(
            f"The {name} image is constant ({float(image.flat[0])} in all {image.size} voxels), so there is nothing to "
            "align; export it again, or give another image."
        )
    slices = min(int(np.ptp(np.flatnonzero(inside.any(axis=others)))) + 1 for others in ((1, 2), (0, 2), (0, 1)))
    if slices < FEWEST_SLICES:
        raise InputError(
            f"The mask of the {name} image spans {slices} voxel(s) along one axis; registration in 3-D needs "
            f"{FEWEST_SLICES} or more, so give more of the head."
        )
    return np.asarray(inside, dtype=bool)


def _head(image: NDArray[Any]) -> NDArray[np.bool_]:
    inside = image != 0
    if inside.mean() <= OPEN_SHARE or np.ptp(image) == 0:
        return np.asarray(inside, dtype=bool)
    from skimage.filters import threshold_otsu

    low, high = np.percentile(image, OUTLIERS)
    return np.asarray(image > threshold_otsu(np.clip(image, low, high)), dtype=bool)


def clipped(volume: Volume, inside: NDArray[np.bool_]) -> Volume:
    """Cut off the outliers of an image; the range of the head and the usual value around it are kept."""
    image = volume.array[0].astype(np.float32)
    low, high = np.percentile(image[inside], OUTLIERS)
    if not inside.all():
        around_it = float(np.median(image[~inside]))
        low, high = min(low, around_it), max(high, around_it)
    return volume.with_array(np.clip(image, low, high)[None])


def known(inside: NDArray[np.bool_], own: Grid, grid: Grid, transform: Transform | None = None) -> NDArray[np.bool_]:
    """Tell which voxels of another grid an image says something about.

    All do that lie in its field of view; beyond a face of the field of view there is background where the head does not
    reach that face, and something unknown where the face cuts through the head.

    Args:
        inside: where the head is in the image, on ``own``.
        own: grid of the image.
        grid: the other one.
        transform: world of ``grid`` to world of the image; ``None`` is the identity.
    """
    index = own.to_index(grid_points(grid) if transform is None else transform.on_grid(grid))
    shape = np.asarray(own.shape)
    nearest = np.clip(np.rint(index), 0, shape - 1).astype(np.int64)
    beyond = ((index < -0.5) | (index > shape - 0.5)).any(axis=1)
    return np.asarray(~(beyond & inside[tuple(nearest.T)]).reshape(grid.shape), dtype=bool)


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
