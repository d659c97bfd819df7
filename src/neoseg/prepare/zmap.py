"""Z map: how many standard deviations each voxel lies from what is normal at its place in the brain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from ..errors import GeometryError, InputError
from ..register.images import FWHM
from ..register.transforms import Transform, sample
from ..volume import Volume
from .atlas import Atlas

__all__ = [
    "LEVEL_LIMIT",
    "Deviation",
    "ZMap",
    "ZmapConfig",
    "deviation",
    "masked_smoothing",
    "t_to_normal",
    "zmap",
    "zmap_with_coverage",
]

UNCOVERED_LIMIT = 0.05
"""More brain than this outside the atlas is worth a word: the registration failed or the atlas is of another age."""

LEVEL_LIMIT = 4.0
"""A scan whose median is this many times above or below the atlas' is in another unit or of another kind."""


class ZmapConfig(BaseModel, frozen=True, extra="forbid"):
    """How a Z map is made.

    Attributes:
        smooth_mm: full width at half maximum in mm of the Gaussian over Z inside the mask; 0: none.
        clip: Z is cut at plus and minus this value.
        sd_floor: the atlas' sd is raised to this share of the atlas' mean value over its mask where it is smaller,
            so that a voxel at which few healthy heads happen to agree does not turn noise into a lesion.
        small_sample: turn Student's t, which a small healthy group gives, into the normal deviate of the same
            probability, so that Z has the tails it is read with.
        calibrate: divide by the standard deviation that Z has in healthy heads left out, as the atlas records it for
            this smoothing, so that a healthy head has one of 1 after the smoothing.
    """

    smooth_mm: float = Field(default=2.0, ge=0, le=50)
    clip: float = Field(default=10.0, gt=0)
    sd_floor: float = Field(default=0.03, gt=0, le=1)
    small_sample: bool = False
    calibrate: bool = True


@dataclass(frozen=True)
class ZMap:
    """A Z map and how much of the brain it covers.

    Attributes:
        volume: float32 on the subject's grid; exactly 0 outside the brain and where the atlas says nothing.
        uncovered: share of the brain's voxels that fall outside the atlas, 0 to 1.
        scale: what Z was divided by (see ``ZmapConfig.calibrate``); 1: it was not.
        warning: what there is to say in the report, if anything.
    """

    volume: Volume
    uncovered: float
    scale: float
    warning: str | None


@dataclass(frozen=True, eq=False)
class Deviation:
    """How far the voxels of a brain lie from normal, before any smoothing.

    Attributes:
        t: ``(n,)`` (ADC - mean) / sd of the voxels of the mask, in its order; 0 where the atlas says nothing.
        known: ``(n,)``, where the atlas says something.
        count: ``(n,)``, subjects behind the atlas there.
    """

    t: NDArray[np.float64]
    known: NDArray[np.bool_]
    count: NDArray[np.intp]


def zmap(
    adc: Volume, mask: NDArray[Any], atlas: Atlas, transform: Transform, config: ZmapConfig | None = None
) -> Volume:
    """Return the Z map alone; see :func:`zmap_with_coverage`."""
    return zmap_with_coverage(adc, mask, atlas, transform, config).volume


def zmap_with_coverage(
    adc: Volume,
    mask: NDArray[Any],
    atlas: Atlas,
    transform: Transform,
    config: ZmapConfig | None = None,
    *,
    deforms: bool | None = None,
) -> ZMap:
    """Compare a scan with the atlas: Z = (ADC - mean) / sd, smoothed inside the mask, calibrated, clipped.

    Mean and sd are read (linearly) at the place in the atlas that the transform gives for each voxel of the scan, so
    the scan itself is not interpolated. Z is what is smoothed, by normalised convolution inside brain and atlas: the
    background takes no part in it. The challenge's own maps are made with an undisclosed registration, so values
    here are comparable in kind and not in number.

    Args:
        adc: the scan in the atlas' unit, one channel, 3-D.
        mask: ``(x, y, z)``, the brain.
        atlas: the healthy group.
        transform: subject world to atlas world.
        config: smoothing, clip, floor; by default ``ZmapConfig()``.
        deforms: whether the registration has a free-form step, which the calibration of the atlas is held against;
            ``None``: not known.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, voxels in it that are not numbers, a scan whose level shows another unit than the
            atlas', or a smoothing for which the atlas is not calibrated.
    """
    config = config or ZmapConfig()
    found = deviation(adc, mask, atlas, transform, sd_floor=config.sd_floor)
    inside = np.asarray(mask) != 0
    t = t_to_normal(found.t, found.count) if config.small_sample else found.t
    z, covered = np.zeros(inside.shape, np.float32), np.zeros(inside.shape, bool)
    z[inside], covered[inside] = t, found.known
    z = masked_smoothing(z, covered, adc.spacing, config.smooth_mm)
    scale, warnings = _calibration(atlas, config, deforms)
    z = np.clip(z / np.float32(scale), -config.clip, config.clip)
    z[~covered] = 0
    uncovered = 1 - float(found.known.mean())
    if uncovered > UNCOVERED_LIMIT:
        warnings.append(
            f"{100 * uncovered:.0f} % of the brain lies outside the atlas and has Z = 0; check the alignment with the "
            "atlas and that the atlas is of this age."
        )
    return ZMap(adc.with_array(z.astype(np.float32)), uncovered, scale, " ".join(warnings) or None)


def deviation(adc: Volume, mask: NDArray[Any], atlas: Atlas, transform: Transform, *, sd_floor: float) -> Deviation:
    """Return (ADC - mean) / sd of each voxel of a brain.

    Args:
        adc: the scan in the atlas' unit, one channel, 3-D.
        mask: ``(x, y, z)``, the brain.
        atlas: the healthy group.
        transform: subject world to atlas world.
        sd_floor: smallest sd, as a share of the atlas' mean value.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, voxels in it that are not numbers, or a level that shows another unit.
    """
    if adc.grid.ndim != 3 or adc.array.shape[0] != 1 or mask.shape != adc.grid.shape:
        raise GeometryError(
            f"A Z map needs one 3-D channel and a mask of its shape, not {adc.array.shape} and {mask.shape}."
        )
    inside = np.asarray(mask) != 0
    values = adc.array[0][inside].astype(np.float64)
    if len(values) == 0 or not np.isfinite(values).all():
        raise InputError("A Z map needs a brain mask with voxels that are numbers; check the mask and the scan.")
    normal = atlas.mean.array[0][atlas.inside]
    own, usual = float(np.median(values)), float(np.median(normal))
    if usual > 0 and not usual / LEVEL_LIMIT <= own <= usual * LEVEL_LIMIT:
        raise InputError(
            f"The scan's median in the brain is {own:g}, but the atlas' is {usual:g} {atlas.unit}; the scan is in "
            "another unit, or the atlas was made from another kind of image."
        )
    places = transform.points(adc.grid.to_world(np.argwhere(inside)))
    mean, sd, known = _normal(atlas, places)
    floor = sd_floor * float(np.abs(normal).mean())
    t = np.where(known, (values - mean) / np.maximum(sd, floor), 0.0)
    count = np.full(len(values), atlas.count)
    if atlas.counts is not None:
        count = np.maximum(2, sample(atlas.counts, places, order=0)[0].astype(np.intp))
    return Deviation(t, known, count)


def t_to_normal(t: NDArray[np.float64], count: int | NDArray[np.intp]) -> NDArray[np.float64]:
    """Turn (x - mean) / sd of a group of ``count`` into the normal deviate of the same tail probability.

    A new subject's (x - mean) / (sd * sqrt(1 + 1/n)) follows Student's t with n - 1 degrees of freedom.
    """
    from scipy import stats

    knots = np.sinh(np.linspace(0, np.arcsinh(1e4), 2048))
    counts = np.broadcast_to(np.asarray(count), t.shape)
    normal = np.zeros(t.shape)
    for n in np.unique(counts):
        here = counts == n
        table = stats.norm.isf(stats.t.sf(knots / np.sqrt(1 + 1 / n), n - 1))
        normal[here] = np.sign(t[here]) * np.interp(np.abs(t[here]), knots, table)
    return normal


def masked_smoothing(
    image: NDArray[np.float32], mask: NDArray[np.bool_], spacing: tuple[float, ...], fwhm_mm: float
) -> NDArray[np.float32]:
    """Smooth an image by normalised convolution: only voxels of the mask give and take; outside the result is 0.

    Args:
        image: ``(x, y, z)``.
        mask: ``(x, y, z)``.
        spacing: mm along each axis.
        fwhm_mm: full width at half maximum in mm; 0 returns the image inside the mask.

    Source: Knutsson and Westin, CVPR 1993.
    """
    from scipy import ndimage

    inside = np.where(mask, image, 0).astype(np.float32)
    if fwhm_mm == 0 or not mask.any():
        return inside
    index = np.argwhere(mask)
    box = tuple(slice(int(a), int(b) + 1) for a, b in zip(index.min(axis=0), index.max(axis=0), strict=True))
    sigma = [fwhm_mm / FWHM / s for s in spacing]
    above = ndimage.gaussian_filter(inside[box], sigma, mode="constant")
    below = ndimage.gaussian_filter(mask[box].astype(np.float32), sigma, mode="constant")
    result = np.zeros_like(inside)
    result[box] = np.where(mask[box], above / np.maximum(below, 1e-6), 0)
    return result


def _calibration(atlas: Atlas, config: ZmapConfig, deforms: bool | None) -> tuple[float, list[str]]:
    """Return what Z is divided by and what there is to say about it."""
    if not config.calibrate:
        return 1.0, []
    known = atlas.calibration
    if known is None:
        return 1.0, [
            "The atlas does not say how Z spreads in healthy heads left out, so Z is not calibrated: a healthy head's "
            "standard deviation may differ from 1."
        ]
    warnings = []
    if config.sd_floor != known.sd_floor:
        warnings.append(
            f"The atlas was calibrated with sd_floor = {known.sd_floor:g}, but it is {config.sd_floor:g}; Z of healthy "
            "heads may have another standard deviation than 1."
        )
    measured = atlas.deforms
    if None not in (deforms, measured) and deforms != measured:
        one, other = ("with", "without") if measured else ("without", "with")
        warnings.append(
            f"The atlas was calibrated {one} a free-form deformation, but the scan is registered {other} one; Z of "
            "healthy heads may have another standard deviation than 1."
        )
    return known.spread(config.smooth_mm, small_sample=config.small_sample), warnings


def _normal(atlas: Atlas, places: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_]]:
    """Read mean and sd at atlas points; near the rim only voxels inside the mask take part."""
    weight = sample(Volume(atlas.mask.array.astype(np.float32), atlas.grid), places)[0]
    known = weight >= 0.5
    share = np.maximum(weight, 0.5)
    inside = atlas.mask.array != 0
    mean = sample(atlas.mean.with_array(np.where(inside, atlas.mean.array, 0)), places)[0] / share
    sd = sample(atlas.sd.with_array(np.where(inside, atlas.sd.array, 0)), places)[0] / share
    return mean, sd, known
