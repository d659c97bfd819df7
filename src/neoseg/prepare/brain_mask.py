"""The brain mask of a skull-stripped scan, and the question whether a scan is skull-stripped at all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..volume import Volume

__all__ = ["BrainMask", "background_share", "brain_mask"]

STRIPPED_SHARE = 0.3
"""A skull-stripped head leaves far more than this share of its field of view at one exact value."""

SMALLEST_PART = 0.05
"""Separate parts smaller than this share of the largest one are specks; larger ones are pieces of a cut-up brain."""


@dataclass(frozen=True)
class BrainMask:
    """Where the brain is.

    Attributes:
        mask: ``(x, y, z)``.
        background: share of the voxels at the background's exact value, 0 to 1.
        stripped: whether the scan looks skull-stripped.
        warning: one sentence for the report when it does not.
    """

    mask: NDArray[np.bool_]
    background: float
    stripped: bool
    warning: str | None


def background_share(volume: Volume) -> tuple[float, float]:
    """Return the value that most corners of the field of view share and the share of all voxels that have it.

    Values that are not numbers count as 0.
    """
    image = np.nan_to_num(volume.array[0], nan=0.0, posinf=0.0, neginf=0.0)
    corners = image[tuple(np.meshgrid(*[(0, n - 1) for n in image.shape], indexing="ij"))].ravel()
    values, counts = np.unique(corners, return_counts=True)
    value = float(values[np.argmax(counts)])
    return value, float(np.mean(image == value))


def brain_mask(volume: Volume) -> BrainMask:
    """Return the mask of a skull-stripped brain: what is not background, without specks, with its holes filled.

    For a scan that is not skull-stripped the mask is the whole head or field of view, and the warning says so: this
    function does not strip skulls. An air background that was set to 0 around an unstripped head cannot be told from a
    stripped one by its background.

    Args:
        volume: one channel, 3-D; voxels that are not numbers count as background.

    Raises:
        GeometryError: not one channel in 3-D.
        InputError: the image is constant, so there is no brain to find.
    """
    from scipy import ndimage

    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"A brain mask needs one channel in 3-D, but the array has shape {volume.array.shape}.")
    image = np.nan_to_num(volume.array[0], nan=0.0, posinf=0.0, neginf=0.0)
    if np.ptp(image) == 0:
        raise InputError(f"The image has the value {float(image.flat[0]):g} everywhere, so there is no brain to find.")
    value, share = background_share(volume)
    parts, count = ndimage.label(image != value, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    mask = np.asarray(ndimage.binary_fill_holes((sizes >= SMALLEST_PART * sizes.max())[parts]), dtype=bool)
    stripped = share >= STRIPPED_SHARE
    warning = None
    if not stripped:
        warning = (
            f"Only {100 * share:.0f} % of the voxels have the background value {value:g}, so the scan does not look "
            "skull-stripped; everything that is not background is taken as brain. Strip the skull or give a mask."
        )
    return BrainMask(mask, share, stripped, warning)
