"""A start for registration from the moments of two masks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume
from .images import require_image
from .transforms import Affine

__all__ = ["centre_of_mass", "start_from_moments"]


def centre_of_mass(volume: Volume, mask: NDArray[Any] | None = None, name: str = "given") -> NDArray[np.float64]:
    """Return the centre of the mask (by default the voxels that are not 0) in RAS mm.

    Raises:
        InputError: the mask is empty or the image cannot be registered.
    """
    inside = require_image(volume, mask, name)
    return volume.grid.to_world(np.argwhere(inside).mean(axis=0))


def start_from_moments(
    fixed: Volume,
    moving: Volume,
    *,
    fixed_mask: NDArray[Any] | None = None,
    moving_mask: NDArray[Any] | None = None,
) -> Affine:
    """Return the translation that lays the centre of the fixed mask on the centre of the moving mask.

    Orientation is taken from the headers; :func:`neoseg.register.search.search` does not trust it.
    """
    matrix = np.eye(4)
    matrix[:3, 3] = centre_of_mass(moving, moving_mask, "moving") - centre_of_mass(fixed, fixed_mask, "fixed")
    return Affine(matrix)
