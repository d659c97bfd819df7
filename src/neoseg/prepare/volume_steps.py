"""Preparation steps on a single Volume, outside any run: to a template, through a saved transform, Z map, finer grids.

Bias correction and the brain mask stand alone as they are: :func:`neoseg.prepare.bias_field.correct_bias_field` and
:func:`neoseg.data.brain_mask.brain_mask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.foreground import bounding_box
from ..errors import ConfigError, GeometryError, InputError
from ..register.chain import register_heads
from ..register.plausible import implausible
from ..register.transforms import Affine, Chain, Transform, jacobian_determinant, resample
from ..volume import Grid, Volume, upright
from .atlas import Atlas
from .bias_field import BiasFieldConfig
from .configs import PrepareConfig
from .standardise import Template, register_to
from .zmap import zmap_with_coverage

__all__ = [
    "Aligned",
    "Brain",
    "ZOfVolume",
    "align",
    "cropped",
    "label_through",
    "require_same_correction",
    "resampled",
    "through",
    "zmap_of",
]

FACTS = ("affine_turn_degrees", "affine_rival", "affine_mirrored")
"""What the affine step says about the orientation that it chose, see :mod:`neoseg.register.plausible`."""


@dataclass(frozen=True, eq=False)
class Brain:
    """A scan and where its brain is.

    Attributes:
        volume: float32, one channel, 3-D, 0 outside the mask.
        mask: ``(x, y, z)``.
    """

    volume: Volume
    mask: NDArray[np.bool_]

    def __post_init__(self) -> None:
        """Check that image and mask belong together.

        Raises:
            GeometryError: not one channel in 3-D, or a mask of another shape.
            InputError: an empty mask, or voxels in it that are not numbers.
        """
        if self.volume.grid.ndim != 3 or self.volume.array.shape[0] != 1 or self.mask.shape != self.volume.grid.shape:
            raise GeometryError(
                f"One channel in 3-D and a mask of its shape are needed, not arrays of shape {self.volume.array.shape} "
                f"and {self.mask.shape}."
            )
        if not self.mask.any() or not np.isfinite(self.volume.array[0][self.mask]).all():
            raise InputError("The mask has to hold voxels, all of them numbers; check the mask and the scan.")


@dataclass(frozen=True, eq=False)
class Aligned:
    """How a scan lies on a template.

    Attributes:
        transform: template world to scan world, RAS mm of the two files.
        facts: similarity (nats), ncc, overlap (Dice of the brains), the affine step's turn, rival and mirror fit,
            smallest_jacobian, seconds; plain numbers.
        warnings: sentences for a reader.
    """

    transform: Transform
    facts: Mapping[str, float]
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ZOfVolume:
    """A Z map with what its registration says.

    Attributes:
        volume: float32 on the scan's own grid; the scan was not interpolated.
        facts: of the registration, and outside_atlas_share.
        warnings: sentences for a reader.
    """

    volume: Volume
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]


def align(brain: Brain, template: Brain, config: PrepareConfig) -> Aligned:
    """Register a template (fixed) to a scan (moving), so that the scan can be read at the template's voxels.

    Registration sees the scan's voxels set upright, as everywhere in neoseg; the transform returned holds for the
    positions that the two headers give.

    Args:
        brain: the scan.
        template: of the same contrast when the free-form step is on.
        config: its affine and free-form step.

    Raises:
        ConfigError: the affine step is off.
        InputError: a constant image, or too few voxels.
    """
    if config.affine is None:
        raise ConfigError("prepare.affine is false, but a scan is aligned by the affine step at least; switch it on.")
    own = Brain(Volume(brain.volume.array, upright(brain.volume.grid)), brain.mask)
    fixed = Brain(Volume(template.volume.array, upright(template.volume.grid)), template.mask)
    found = register_heads(
        fixed.volume,
        own.volume,
        affine=config.affine,
        ffd=config.ffd,
        fixed_mask=fixed.mask,
        moving_mask=own.mask,
    )
    lies = resample(Volume(own.mask[None].astype(np.float32), own.volume.grid), fixed.volume.grid, found.transform)
    covered = lies.array[0] >= 0.5
    overlap = 2 * float((covered & fixed.mask).sum()) / max(1.0, float(covered.sum() + fixed.mask.sum()))
    warnings = [*implausible({**found.facts, "affine_overlap": overlap}), *found.warnings]
    jacobian = jacobian_determinant(found.transform, fixed.volume.grid).reshape(fixed.mask.shape)[fixed.mask]
    facts = {
        "similarity": found.similarity,
        "ncc": found.ncc,
        "overlap": overlap,
        **{name: found.facts[name] for name in FACTS if name in found.facts},
        "smallest_jacobian": float(jacobian.min()),
        "seconds": found.seconds,
    }
    before = _between(template.volume.grid, fixed.volume.grid)
    after = _between(own.volume.grid, brain.volume.grid)
    return Aligned(Chain([before, found.transform, after]), facts, tuple(warnings))


def through(brain: Brain, grid: Grid, transform: Transform) -> Brain:
    """Read a scan at the voxels of another grid through a transform, with one linear interpolation.

    Interpolation is normalised by the mask: no background bleeds in, and no value lies outside the range of those that
    were measured. The unit of a quantitative map is kept; its noise is averaged, and no factor corrects for a change
    of volume.

    Args:
        brain: the scan.
        grid: of the result.
        transform: world of ``grid`` to world of the scan, RAS mm.

    Raises:
        InputError: the brain does not reach the grid.
    """
    both = np.concatenate([np.where(brain.mask, brain.volume.array, 0), brain.mask[None]]).astype(np.float32)
    image, weight = resample(Volume(both, brain.volume.grid), grid, transform).array
    inside = weight >= 0.5
    if not inside.any():
        raise InputError(
            "The scan and the grid that it is brought to do not overlap through this transform, so the result would be "
            "empty; check that both belong to the transform."
        )
    values = np.where(inside, image / np.maximum(weight, 0.5), 0).astype(np.float32)
    return Brain(Volume(values[None], grid), inside)


def label_through(label: Volume, grid: Grid, transform: Transform) -> Volume:
    """Read a label at the voxels of another grid through a transform: the nearest voxel, its type kept, 0 beyond.

    Raises:
        InputError: no labelled voxel reaches the grid although the label has some.
    """
    found = resample(label, grid, transform, order=0)
    if label.array.any() and not found.array.any():
        raise InputError(
            "The label and the grid that it is brought to do not overlap through this transform, so the result would "
            "be empty; check that both belong to the transform."
        )
    return found


def zmap_of(brain: Brain, atlas: Atlas, config: PrepareConfig) -> ZOfVolume:
    """Register an ADC map to an atlas and compare it with the healthy group, as a run does.

    Args:
        brain: ADC in the atlas' unit.
        atlas: the healthy group.
        config: its registration and Z map settings; without the latter the defaults.

    Raises:
        InputError: a constant image, too few voxels, a scan in another unit, or no voxel of it lies in the atlas.
    """
    own = Volume(brain.volume.array, upright(brain.volume.grid))
    found = register_to(Template.of_atlas(atlas), own, brain.mask, config)
    deforms = config.ffd is not None
    made = zmap_with_coverage(own, brain.mask, atlas, found.transform, config.zmap, deforms=deforms)
    if made.uncovered >= 1:
        raise InputError("No voxel of the brain lies inside the atlas, so there is no Z map; check the scan's mask.")
    facts = {**found.facts, "outside_atlas_share": made.uncovered}
    warnings = (*found.warnings, *((made.warning,) if made.warning else ()))
    return ZOfVolume(Volume(made.volume.array, brain.volume.grid), facts, warnings)


def require_same_correction(atlas: Atlas, correction: BiasFieldConfig | None, folder: Path, *, remedy: str) -> None:
    """Refuse an atlas whose scans had another bias correction than the scans that are compared with it.

    An atlas that does not say how it was made passes.

    Args:
        atlas: the healthy group.
        correction: of the scans; ``None``: they are taken as they are.
        folder: of the atlas, for the sentence.
        remedy: what to do besides building the atlas again.

    Raises:
        InputError: naming both corrections.
    """
    own = correction.model_dump(mode="json") if correction else None
    if "bias_field" in atlas.provenance and atlas.provenance["bias_field"] != own:
        raise InputError(
            f"{folder}: this atlas was made with bias_field = {atlas.provenance['bias_field']}, but the scans are "
            f"prepared with {own}; {remedy}, or build the atlas again."
        )


def cropped(brain: Brain) -> Brain:
    """Cut a scan to the box around its brain with a margin of one voxel; no voxel changes its place or value."""
    start, shape = bounding_box(brain.mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    grid = brain.volume.grid.cropped(start, shape)
    return Brain(Volume(np.ascontiguousarray(brain.volume.array[(slice(None), *box)]), grid), brain.mask[box])


def resampled(brain: Brain, spacing_mm: tuple[float, ...]) -> Brain:
    """Bring a scan to another voxel size over the same field of view, as :func:`through`; the unit is kept.

    Raises:
        GeometryError: not three sizes above 0.
    """
    if len(spacing_mm) != 3 or min(spacing_mm) <= 0:
        raise GeometryError(f"A spacing needs three sizes above 0 mm, but {spacing_mm} was given.")
    return through(brain, brain.volume.grid.with_spacing(spacing_mm), Affine.identity())


def _between(source: Grid, target: Grid) -> Affine:
    """Return the map from the world of a lattice to the world of the same lattice placed elsewhere."""
    return Affine(target.affine @ np.linalg.inv(source.affine))
