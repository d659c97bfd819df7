"""The heads of a healthy group, and their registrations from and to the template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.brain_mask import brain_mask
from ..data.foreground import bounding_box
from ..errors import GeometryError
from ..register.affine import register_affine
from ..register.chain import register_heads
from ..register.transforms import Affine, Chain, Transform, sample
from ..volume import Volume, same_grid
from .configs import AtlasConfig
from .memory import Found

__all__ = ["HealthyHead", "affine_part", "cropped", "read_at", "to_reference", "to_scan", "to_template"]


@dataclass(frozen=True, eq=False)
class HealthyHead:
    """A healthy head, cropped to its brain.

    Attributes:
        name: what the report calls it.
        image: one channel, 0 outside the mask.
        mask: ``(x, y, z)``, the brain.
        regions: region labels ``(x, y, z)``, 0: none.
        warning: one sentence when the scan does not look skull-stripped.
    """

    name: str
    image: Volume
    mask: NDArray[np.bool_]
    regions: NDArray[np.uint16] | None
    warning: str | None

    @property
    def brain_mm3(self) -> float:
        """Volume of the brain."""
        return float(self.mask.sum()) * self.image.grid.voxel_volume


def cropped(name: str, volume: Volume, regions: Volume | None) -> HealthyHead:
    """Crop a head to its brain.

    Raises:
        GeometryError: not one channel in 3-D, or region labels on another grid.
        InputError: a constant image.
    """
    if regions is not None and not same_grid(regions.grid, volume.grid):
        raise GeometryError(f"{name}: its region labels lie on another grid than the scan; resample them first.")
    found = brain_mask(volume)
    start, shape = bounding_box(found.mask, margin=2)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    inside = np.ascontiguousarray(found.mask[box])
    image = np.where(inside, np.nan_to_num(volume.array[0][box]), 0).astype(np.float32)
    labels = None if regions is None else np.ascontiguousarray(regions.array[0][box]).astype(np.uint16)
    return HealthyHead(name, Volume(image[None], volume.grid.cropped(start, shape)), inside, labels, found.warning)


def to_reference(job: tuple[HealthyHead, HealthyHead, AtlasConfig]) -> Found:
    """Register a head to the head that the group starts from: rigid, then affine."""
    reference, head, config = job
    found = register_affine(
        reference.image, head.image, config=config.affine, fixed_mask=reference.mask, moving_mask=head.mask
    )
    return Found(found.transform, float("nan"), (), found.facts())


def to_template(job: tuple[Volume, NDArray[np.bool_], HealthyHead, Affine, AtlasConfig]) -> Found:
    """Register a head to the template: template world to head world."""
    template, mask, head, start, config = job
    found = register_heads(
        template,
        head.image,
        affine=config.affine,
        ffd=config.ffd,
        fixed_mask=mask,
        moving_mask=head.mask,
        start=start,
    )
    return Found(found.transform, found.ncc, found.warnings)


def to_scan(job: tuple[HealthyHead, Volume, NDArray[np.bool_], Affine, AtlasConfig]) -> Found:
    """Register the template to a head, the way of a scan whose Z map is made: head world to template world."""
    head, template, mask, start, config = job
    found = register_heads(
        head.image,
        template,
        affine=config.affine,
        ffd=config.ffd if config.rounds else None,
        fixed_mask=head.mask,
        moving_mask=mask,
        start=start,
    )
    return Found(found.transform, found.ncc, found.warnings, found.facts)


def affine_part(transform: Transform) -> Affine:
    """Return the affine end of a chain, template world to head world."""
    part = transform.transforms[-1] if isinstance(transform, Chain) else transform
    return part if isinstance(part, Affine) else Affine.identity()


def read_at(
    job: tuple[HealthyHead, Transform, NDArray[np.float64]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint16] | None]:
    """Read a head at the template's places ``(n, 3)``: values, where they are known, region labels, each ``(n,)``.

    Interpolation is normalised by the mask, so that no background bleeds in; labels are read at the nearest voxel.
    """
    head, transform, places = job
    points = transform.points(places)
    both = np.stack([head.image.array[0], head.mask.astype(np.float32)])
    image, weight = sample(Volume(both, head.image.grid), points)
    regions: Any = None
    if head.regions is not None:
        regions = sample(Volume(head.regions[None], head.image.grid), points, order=0)[0]
    return (image / np.maximum(weight, 0.5)).astype(np.float32), weight >= 0.5, regions
