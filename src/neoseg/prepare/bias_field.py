"""Correction of the slow intensity drift across a scan (bias field) by N4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ..errors import GeometryError, InputError
from ..volume import Volume

__all__ = ["BiasField", "BiasFieldConfig", "correct_bias_field"]

FEWEST_SLICES = 4

FEWEST_VOXELS = 512
"""Voxels of the mask below which a smooth field cannot be told from anatomy."""


class BiasFieldConfig(BaseModel, frozen=True, extra="forbid"):
    """N4 bias field correction.

    Attributes:
        working_mm: voxels are averaged to about this side in mm before the field is estimated.
        spline_mm: distance of the control points of the first level in mm; each further level halves it.
        levels: fitting levels, 1 to 4.
        iterations: most iterations of each level.
        convergence: a level ends when the field changes by less (coefficient of variation).
    """

    working_mm: float = Field(default=5.0, gt=0, le=50)
    spline_mm: float = Field(default=120.0, gt=0, le=1000)
    levels: int = Field(default=2, ge=1, le=4)
    iterations: int = Field(default=20, ge=1, le=1000)
    convergence: float = Field(default=2e-3, gt=0)


@dataclass(frozen=True)
class BiasField:
    """A corrected image and the field that was taken out.

    Attributes:
        corrected: the image divided by the field inside the mask, unchanged outside; the unit and the mean over the
            mask are kept.
        log_field: float32 ``(x, y, z)``, natural logarithm of the field in the mask, 0 outside.
    """

    corrected: Volume
    log_field: NDArray[np.float32]


def correct_bias_field(volume: Volume, mask: NDArray[Any], config: BiasFieldConfig) -> BiasField:
    """Estimate the bias field in a mask and divide it out.

    The field is scaled so that the mean over the mask stays what it was: a quantitative map such as ADC keeps its
    unit and its overall level, while its local values change with the field.

    Args:
        volume: one channel, 3-D.
        mask: ``(x, y, z)``, the tissue whose intensities are used; voxels at 0 or below are left out of the estimate.
        config: resolution and iterations.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: a constant image, numbers that are not finite, or a mask too small for a field.

    Source: Tustison et al., IEEE Trans Med Imaging 29 (2010) 1310-1320, as built in SimpleITK.
    """
    image, inside = _require(volume, mask)
    corner, stop = _box(inside)
    crop = tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))
    log_field = np.zeros(image.shape, dtype=np.float32)
    usable = inside & (image > 0)
    log_field[crop] = _n4(image[crop], usable[crop], volume.spacing, config)
    log_field[~inside] = 0
    real = image.astype(np.float64)
    mean = real[inside].mean()
    divided = real[inside] / np.exp(log_field[inside].astype(np.float64))
    scale = mean / divided.mean()
    log_field[inside] -= np.float32(np.log(scale))
    corrected = image.astype(np.float32, copy=True)
    corrected[inside] = divided * scale
    return BiasField(volume.with_array(corrected), log_field)


def _require(volume: Volume, mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"Bias correction needs one channel in 3-D, but the array has shape {volume.array.shape}.")
    image = volume.array[0]
    if mask.shape != image.shape:
        raise GeometryError(f"The mask for the bias correction has shape {mask.shape}, but the image {image.shape}.")
    inside = np.asarray(mask) != 0
    if not np.isfinite(image[inside]).all():
        raise InputError("The image has voxels in its mask that are not numbers, so no bias field can be estimated.")
    count = int((inside & (image > 0)).sum())
    if count < FEWEST_VOXELS:
        raise InputError(
            f"The mask has {count} voxels above 0, but a bias field needs {FEWEST_VOXELS} or more; turn the bias "
            "correction off for this image."
        )
    if np.ptp(image[inside]) == 0:
        raise InputError(
            f"The image is {float(image[inside][0]):g} all over its mask, so no bias field can be estimated."
        )
    if image[inside].mean() <= 0:
        raise InputError("The image has a mean of 0 or below in its mask; N4 works on positive intensities only.")
    return image, inside


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corner and the end of the mask's bounding box, one voxel wider where there is room."""
    index = np.argwhere(mask)
    return np.maximum(index.min(axis=0) - 1, 0), np.minimum(index.max(axis=0) + 2, mask.shape)


def _n4(
    image: NDArray[Any], mask: NDArray[np.bool_], spacing: tuple[float, ...], config: BiasFieldConfig
) -> NDArray[np.float32]:
    """Return N4's logarithm of the field at full resolution; world axes play no part, so spacing alone is passed."""
    import SimpleITK as sitk  # noqa: N813

    # N4 needs a few voxels along each axis; a thinner stack is thickened by its own border and cut again afterwards.
    shape = mask.shape
    thick = [(0, max(0, FEWEST_SLICES - n)) for n in shape]
    image, mask = np.pad(image, thick, mode="edge"), np.pad(mask, thick, mode="edge")

    def to_itk(array: NDArray[Any]) -> Any:
        result = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        result.SetSpacing(spacing)
        return result

    full, full_mask = to_itk(np.maximum(image, 1e-3).astype(np.float32)), to_itk(mask.astype(np.uint8))
    shrink = [
        int(min(max(1, round(config.working_mm / s)), max(1, n // 4))) for s, n in zip(spacing, mask.shape, strict=True)
    ]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetNumberOfThreads(1)
    n4.SetMaximumNumberOfIterations([config.iterations] * config.levels)
    n4.SetConvergenceThreshold(config.convergence)
    extent = [s * n for s, n in zip(spacing, mask.shape, strict=True)]
    n4.SetNumberOfControlPoints([max(1, round(e / config.spline_mm)) + 3 for e in extent])
    n4.Execute(sitk.Shrink(full, shrink), sitk.Shrink(full_mask, shrink))
    field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(full))
    return np.asarray(field.transpose(2, 1, 0)[tuple(slice(n) for n in shape)], dtype=np.float32)
