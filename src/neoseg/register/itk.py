"""The one place where RAS meets ITK's LPS: volumes to SimpleITK images, SimpleITK transforms to ours and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError
from ..volume import Grid, Volume
from .transforms import Affine

__all__ = ["affine_from_itk", "affine_to_itk", "image_to_itk", "lps"]

FLIP = np.diag([-1.0, -1.0, 1.0])
"""RAS to LPS and back: x and y change their sign."""


def lps(points: NDArray[Any]) -> NDArray[np.float64]:
    """Turn RAS points or vectors ``(..., 3)`` into LPS, or LPS into RAS (the same operation)."""
    return np.asarray(np.asarray(points) @ FLIP, dtype=np.float64)


def image_to_itk(volume: Volume) -> Any:
    """Return a one-channel 3-D volume as a SimpleITK image that lies at the same place in the world.

    Raises:
        GeometryError: not three axes or not one channel.
    """
    import SimpleITK as sitk  # noqa: N813

    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"Expected one channel on a 3-D grid, but the array has shape {volume.array.shape}.")
    array = volume.array[0]
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    place(image, volume.grid)
    return image


def place(image: Any, grid: Grid) -> None:
    """Give a SimpleITK image the geometry of a grid."""
    image.SetSpacing(grid.spacing)
    image.SetOrigin(lps(grid.affine[:3, 3]).tolist())
    image.SetDirection((FLIP @ grid.directions).ravel().tolist())


def affine_from_itk(transform: Any) -> Affine:
    """Return any linear SimpleITK transform (translation, Euler, similarity, affine) as ours, LPS turned into RAS."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(transform.TransformPoint(tuple(unit))) - origin for unit in np.eye(3).tolist()]
    matrix = np.eye(4)
    matrix[:3, :3] = FLIP @ np.stack(columns, axis=1) @ FLIP
    matrix[:3, 3] = lps(origin)
    return Affine(matrix)


def affine_to_itk(transform: Affine, centre: NDArray[Any]) -> Any:
    """Return an affine as a SimpleITK AffineTransform about a centre (RAS mm), RAS turned into LPS."""
    import SimpleITK as sitk  # noqa: N813

    result = sitk.AffineTransform(3)
    result.SetCenter(lps(centre).tolist())
    result.SetMatrix((FLIP @ transform.matrix[:3, :3] @ FLIP).ravel().tolist())
    moved = transform.points(np.asarray(centre, dtype=np.float64)[None])[0]
    result.SetTranslation(lps(moved - np.asarray(centre)).tolist())
    return result
