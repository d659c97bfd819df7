"""Correction of the slow intensity drift across a scan (bias field)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ..data.brain_mask import brain_mask
from ..errors import GeometryError, InputError
from ..volume import Volume
from .pair_field import fit_pairs

__all__ = ["BiasField", "BiasFieldConfig", "correct_bias_field"]

FEWEST_SLICES = 4
"""N4 needs a few voxels along each axis."""

FEWEST_VOXELS = 512
"""Voxels of the mask below which a smooth field cannot be told from anatomy."""


class BiasFieldConfig(BaseModel, frozen=True, extra="forbid"):
    """Bias field correction.

    Attributes:
        method: "pairs": a field of second order from the differences of nearby voxels; "n4": N4 as built in SimpleITK.
        mask: voxels that the estimate uses: "brain": all of the given mask; "otsu": those of them above Otsu's
            threshold of the image (for scans whose background is air; on an ADC map it cuts out severe lesions).
        anatomy_sd: standard deviation of the log field that anatomy alone (maturity, regions, lesions) makes the
            estimate see. A field of standard deviation s is scaled by ``max(0, 1 - (anatomy_sd / s)^2)``; 0: as found.
        smooth_mm: pairs: standard deviation in mm of the smoothing before differences are taken; 0: none.
        edge: pairs: differences of the logarithm well above this count as borders between tissues.
        working_mm: n4: every k-th voxel is used, so that they are about this many mm apart.
        spline_mm: n4: distance of the control points of the first level in mm; each further level halves it.
        levels: n4: fitting levels, 1 to 4.
        iterations: n4: most iterations of each level.
        convergence: n4: a level ends when the field changes by less (coefficient of variation).
    """

    method: Literal["pairs", "n4"] = "pairs"
    mask: Literal["brain", "otsu"] = "brain"
    anatomy_sd: float = Field(default=0.05, ge=0, le=0.5)
    smooth_mm: float = Field(default=1.5, ge=0, le=10)
    edge: float = Field(default=0.03, gt=0, le=1)
    working_mm: float = Field(default=5.0, gt=0, le=50)
    spline_mm: float = Field(default=120.0, gt=0, le=1000)
    levels: int = Field(default=2, ge=1, le=4)
    iterations: int = Field(default=20, ge=1, le=1000)
    convergence: float = Field(default=2e-4, gt=0)


@dataclass(frozen=True)
class BiasField:
    """A corrected image and the field that was taken out.

    Attributes:
        corrected: the image divided by the field inside the mask, unchanged outside; the unit and the mean over the
            mask are kept.
        log_field: float32 ``(x, y, z)``, natural logarithm of the field in the mask, 0 outside.
        found_sd: standard deviation over the mask of the log field before it was scaled for what anatomy explains.
    """

    corrected: Volume
    log_field: NDArray[np.float32]
    found_sd: float


def correct_bias_field(volume: Volume, mask: NDArray[Any] | None, config: BiasFieldConfig) -> BiasField:
    """Estimate the bias field in a mask and divide it out.

    The field is scaled so that the mean over the mask stays what it was: a quantitative map such as ADC keeps its
    unit and its overall level, while its local values change with the field.

    Args:
        volume: one channel, 3-D.
        mask: ``(x, y, z)``, where the field is taken out; None: the brain of a skull-stripped scan
            (:func:`neoseg.data.brain_mask.brain_mask`). Voxels at 0 or below are left out of the estimate.
        config: method, voxels used, and how much of the field is left to anatomy.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: a constant image, numbers that are not finite, a mean of 0 or below, or a mask too small for a
            field.

    Source: N4: Tustison et al., IEEE Trans Med Imaging 29 (2010) 1310-1320, as built in SimpleITK. Pairs:
    :mod:`neoseg.prepare.pair_field`. The scaling is James and Stein's (1961), cut off at 0.
    """
    if mask is None:
        mask = brain_mask(volume).mask
    image, inside = _require(volume, mask)
    usable = _usable(image, inside, config)
    corner, stop = _box(inside)
    crop = tuple(slice(a, b) for a, b in zip(corner, stop, strict=True))
    found = np.zeros(image.shape, dtype=np.float64)
    if config.method == "pairs":
        found[crop] = fit_pairs(image[crop], usable[crop], volume.spacing, smooth_mm=config.smooth_mm, edge=config.edge)
    else:
        found[crop] = _n4(image[crop], usable[crop], volume.spacing, config)
    values = found[inside] - found[inside].mean()
    sd = float(values.std())
    values *= max(0.0, 1 - (config.anatomy_sd / sd) ** 2) if sd > 0 else 0.0
    real = image[inside].astype(np.float64)
    divided = real / np.exp(values)
    scale = real.mean() / divided.mean()
    corrected = image.astype(np.float32, copy=True)
    corrected[inside] = divided * scale
    log_field = np.zeros(image.shape, dtype=np.float32)
    log_field[inside] = values - np.log(scale)
    return BiasField(volume.with_array(corrected), log_field, sd)


def _require(volume: Volume, mask: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"Bias correction needs one channel in 3-D, but the array has shape {volume.array.shape}.")
    image = volume.array[0]
    if mask.shape != image.shape:
        raise GeometryError(f"The mask for the bias correction has shape {mask.shape}, but the image {image.shape}.")
    inside = np.asarray(mask) != 0
    if not inside.any():
        raise InputError("The mask for the bias correction is empty; give the mask of the brain.")
    if not np.isfinite(image[inside]).all():
        raise InputError("The image has voxels in its mask that are not numbers, so no bias field can be estimated.")
    if np.ptp(image[inside]) == 0:
        raise InputError(
            f"The image is {float(image[inside][0]):g} all over its mask, so no bias field can be estimated."
        )
    if image[inside].mean() <= 0:
        raise InputError("The image has a mean of 0 or below in its mask; a bias field needs positive intensities.")
    return image, inside


def _usable(image: NDArray[Any], inside: NDArray[np.bool_], config: BiasFieldConfig) -> NDArray[np.bool_]:
    """Return the voxels of the mask that the estimate is made from."""
    usable = inside & (image > 0)
    if config.mask == "otsu":
        usable &= image > _otsu(image[np.isfinite(image)])
    count = int(usable.sum())
    if count < FEWEST_VOXELS:
        above = "above Otsu's threshold" if config.mask == "otsu" else "above 0"
        raise InputError(
            f"The mask has {count} voxels {above}, but a bias field needs {FEWEST_VOXELS} or more; turn the bias "
            "correction off for this image."
        )
    return usable


def _otsu(values: NDArray[Any]) -> float:
    """Return the threshold that splits 256 bins with the largest variance between the parts (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    total = np.cumsum(counts * middles)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (total[:-1] / below - (total[-1] - total[:-1]) / above) ** 2
    return float(edges[1 + int(np.nanargmax(between))])


def _box(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the corner and the end of the mask's bounding box, one voxel wider where there is room."""
    index = np.argwhere(mask)
    return np.maximum(index.min(axis=0) - 1, 0), np.minimum(index.max(axis=0) + 2, mask.shape)


def _n4(
    image: NDArray[Any], mask: NDArray[np.bool_], spacing: tuple[float, ...], config: BiasFieldConfig
) -> NDArray[np.float32]:
    """Return N4's logarithm of the field at full resolution; world axes play no part, so spacing alone is passed."""
    import SimpleITK as sitk  # noqa: N813

    # a thinner stack is thickened by its own border and cut again afterwards
    shape = mask.shape
    thick = [(0, max(0, FEWEST_SLICES - n)) for n in shape]
    image, mask = np.pad(image, thick, mode="edge"), np.pad(mask, thick, mode="edge")

    def to_itk(array: NDArray[Any]) -> Any:
        result = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
        result.SetSpacing(spacing)
        return result

    # the field is a ratio, so the unit plays no part, but for what is too small for a logarithm
    inside = image[mask & (image > 0)]
    scaled = image / (float(np.median(inside)) if inside.size else 1.0)
    full, full_mask = to_itk(np.maximum(scaled, 1e-6).astype(np.float32)), to_itk(mask.astype(np.uint8))
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
