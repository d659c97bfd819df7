"""Where the brain is: a given mask, what is not background, or an estimate from the ADC of an unstripped head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..volume import Volume
from .foreground import background_share, bounding_box

__all__ = ["BrainMask", "Origin", "brain_mask", "estimated_brain"]

Origin = Literal["given", "background", "estimated", "everything"]

STRIPPED_SHARE = 0.3
"""A skull-stripped head leaves far more than this share of its field of view at one exact value."""

SMALLEST_PART = 0.05
"""Separate parts smaller than this share of the largest one are specks; larger ones are pieces of a cut-up brain."""

LOW_SHARE, AGREEMENT = 0.015, 0.85
"""A head is unstripped when more than the first share of it has an ADC below all tissue (bone, fat), and the estimate
finds a brain in less than the second share of it; scalp and bone are a third of a head."""

TISSUE = (200.0, 6000.0)
"""ADC of anything in the skull in 1e-6 mm2/s, injured or fluid; suppressed fat and bone lie below."""

DENSE, RIM = 0.85, 0.7
"""Share of tissue-like neighbours that makes a voxel inner tissue, and the border of it."""

SMOOTHING_MM, ROUGHNESS_MM = 1.2, 1.8
"""Standard deviation of the Gaussian over neighbours in the slice, for that share and for the roughness."""

ROUGH = 140.0
"""Mean drop below the median of the eight neighbours, 1e-6 mm2/s, above which a map is noise and not tissue."""

LARGEST_DROP = 1500.0
"""Deeper drops count as this much, so that a single voxel of -1e6 does not spoil its surroundings."""

DEPTH_MM, BORDER_MM, CLOSING_MM, SURFACE_MM = 5.0, 1.7, 4.0, 1.2
"""Depth that cuts bridges to the scalp; reach of the border; gaps that are closed; smoothing of the surface."""


@dataclass(frozen=True)
class BrainMask:
    """Where the brain is, and how that is known.

    Attributes:
        mask: ``(x, y, z)``.
        origin: "given" by the user; "background": what is not background of a skull-stripped scan; "estimated" from
            the ADC; "everything" that is not background, of a scan that does not look skull-stripped.
        background: the value of the background; NaN where the scan has none.
        share: share of the voxels at that value, 0 to 1.
        warning: one sentence for the report when the mask should be looked at.
    """

    mask: NDArray[np.bool_]
    origin: Origin
    background: float
    share: float
    warning: str | None

    @property
    def stripped(self) -> bool:
        """Whether the scan looks skull-stripped."""
        return self.origin == "background"


def brain_mask(volume: Volume, kind: str = "mr") -> BrainMask:
    """Return the brain of a scan: what is not background, or for an unstripped ADC map an estimate.

    A scan counts as skull-stripped when at least 30 % of its voxels have one exact value, whatever it is. Air that was
    set to 0 around an unstripped head looks the same, but in an ADC map such a head holds bone and fat, whose ADC is
    below that of any tissue; then, and without a background, :func:`estimated_brain` is used. Of other kinds of images
    nothing is estimated.

    Args:
        volume: one channel, 3-D; voxels that are not numbers count as background.
        kind: "adc" (in 1e-6 mm2/s), or any other kind of :func:`neoseg.data.units.channel_kind`.

    Raises:
        GeometryError: not one channel in 3-D.
        InputError: the image is constant, or an ADC map without background holds nothing that looks like a brain.
    """
    if volume.grid.ndim != 3 or volume.array.shape[0] != 1:
        raise GeometryError(f"A brain mask needs one channel in 3-D, but the array has shape {volume.array.shape}.")
    image = np.nan_to_num(volume.array[0], nan=0.0, posinf=0.0, neginf=0.0)
    if np.ptp(image) == 0:
        raise InputError(f"The image has the value {float(image.flat[0]):g} everywhere, so there is no brain to find.")
    value, share = background_share(image)
    stripped = share >= STRIPPED_SHARE
    head = _without_specks(image != value)
    if kind != "adc":
        return _of_background(head, value, share, stripped)
    if stripped and _low_share(image, head, value) < LOW_SHARE:
        return BrainMask(head, "background", value, share, None)
    found = estimated_brain(image, volume.spacing, head)
    agreement = float((found & head).sum() / head.sum())
    if stripped and agreement >= AGREEMENT:
        return BrainMask(head, "background", value, share, None)
    ml = float(found.sum()) * volume.grid.voxel_volume / 1000
    if not found.any():
        if not stripped:
            raise InputError(
                "The ADC map has no background of one value and nothing in it looks like a brain, so the brain cannot "
                "be told from the rest; give a mask."
            )
        warning = (
            "The scan has a background but nothing inside looks like a brain in 1e-6 mm2/s; all that is not "
            "background is taken as brain. Check the unit, or give a mask."
        )
        return BrainMask(head, "background", value, share, warning)
    why = (
        f"Only {100 * agreement:.0f} % of what is not background looks like a brain"
        if stripped
        else f"Only {100 * share:.0f} % of the voxels have one background value"
    )
    warning = (
        f"{why}, so the scan does not seem skull-stripped; the brain was estimated from the ADC ({ml:.0f} mL). Look at "
        "its outline, and give a mask where it is wrong."
    )
    return BrainMask(found, "estimated", value if stripped else float("nan"), share, warning)


def estimated_brain(
    image: NDArray[np.floating], spacing: tuple[float, ...], within: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    """Estimate the brain in an ADC map of a whole head: the deepest part of what is dense and smooth as tissue.

    Air, bone and fat have an ADC near 0, none, or a random one of both signs. A voxel counts as tissue when most of
    its neighbours in the slice have an ADC that occurs in a skull and do not drop at random. Of these the largest
    part that is left 5 mm below their surface is the brain's core, which is grown back to the surface, closed, filled
    and smoothed. Depth is what parts the brain from the scalp; where neck or eyes touch the brain without a sampled
    gap (slices of 5 mm) they may be kept.

    Args:
        image: ADC ``(x, y, z)`` in 1e-6 mm2/s.
        spacing: mm.
        within: look only in this mask, such as the voxels that are not background.

    Returns:
        ``(x, y, z)``; empty when nothing is deep enough.
    """
    from scipy import ndimage

    outer = np.ones(image.shape, dtype=bool) if within is None else within
    start, shape = bounding_box(outer, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    adc, inside = image[box].astype(np.float32), outer[box]
    tissue = inside & (adc >= TISSUE[0]) & (adc <= TISSUE[1])
    share = ndimage.gaussian_filter(tissue.astype(np.float32), _in_slice(SMOOTHING_MM, spacing))
    drop = np.clip(ndimage.median_filter(adc, size=(3, 3, 1)) - adc, 0, LARGEST_DROP)
    rough = ndimage.gaussian_filter(drop, _in_slice(ROUGHNESS_MM, spacing))
    dense = (share >= DENSE) & (rough < ROUGH)
    core = _largest(_depth(dense, spacing) > DEPTH_MM)
    result = np.zeros(image.shape, dtype=bool)
    if not core.any():
        return result
    grown = _largest(dense & (_distance(core, spacing) <= DEPTH_MM + 0.5))
    within_slice = (spacing[0], spacing[1], 1e3)
    grown |= tissue & (share >= RIM) & (_distance(grown, within_slice) <= BORDER_MM)
    closed = _filled(_closed(grown, spacing))
    widths = [min(SURFACE_MM / s, 1.5) for s in spacing]
    surface = ndimage.gaussian_filter(closed.astype(np.float32), widths, mode="nearest")
    result[box] = _largest(surface >= 0.5) & inside
    return result


def _of_background(head: NDArray[np.bool_], value: float, share: float, stripped: bool) -> BrainMask:
    if stripped:
        return BrainMask(head, "background", value, share, None)
    warning = (
        f"Only {100 * share:.0f} % of the voxels have the background value {value:g}, so the scan does not look "
        "skull-stripped; everything that is not background is taken as brain. Strip the skull or give a mask."
    )
    return BrainMask(head, "everything", value, share, warning)


def _low_share(image: NDArray[np.floating], head: NDArray[np.bool_], background: float) -> float:
    """Share of a head whose ADC is too low for tissue; background inside its outline, as in bone, counts as such."""
    whole = _filled(head)
    return float(((image < TISSUE[0]) | (image == background))[whole].mean())


def _without_specks(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3, 3)))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    sizes[0] = 0
    return np.asarray(ndimage.binary_fill_holes((sizes >= SMALLEST_PART * sizes.max())[parts]), dtype=bool)


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    from scipy import ndimage

    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return np.asarray(parts == sizes.argmax(), dtype=bool)


def _in_slice(sigma_mm: float, spacing: tuple[float, ...]) -> tuple[float, float, float]:
    return sigma_mm / spacing[0], sigma_mm / spacing[1], 0.0


def _depth(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance in mm to what is outside the mask; the field of view cuts and is no surface."""
    from scipy import ndimage

    if mask.all():
        return np.full(mask.shape, np.inf)
    padded = np.pad(mask, 1, mode="edge")
    inner = (slice(1, -1),) * 3
    return np.asarray(ndimage.distance_transform_edt(padded, sampling=spacing)[inner], dtype=np.float64)


def _distance(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Distance in mm to the mask, which is not empty."""
    from scipy import ndimage

    return np.asarray(ndimage.distance_transform_edt(~mask, sampling=spacing), dtype=np.float64)


def _closed(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.bool_]:
    from scipy import ndimage

    reach = [int(CLOSING_MM / s) for s in spacing]
    axes = np.meshgrid(*[np.arange(-r, r + 1) * s for r, s in zip(reach, spacing, strict=True)], indexing="ij")
    ball = sum(a**2 for a in axes) <= CLOSING_MM**2
    padding = [(r, r) for r in reach]
    inner = tuple(slice(r, r + n) for r, n in zip(reach, mask.shape, strict=True))
    return np.asarray(ndimage.binary_closing(np.pad(mask, padding), ball)[inner] | mask, dtype=bool)


def _filled(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill holes in each slice, which a sulcus that is open in 3-D can leave, then in 3-D."""
    from scipy import ndimage

    slices = [ndimage.binary_fill_holes(mask[:, :, z]) for z in range(mask.shape[2])]
    return np.asarray(ndimage.binary_fill_holes(np.stack(slices, axis=2)), dtype=bool)
