"""An atlas from a healthy group: an unbiased template, then voxelwise mean and sd.

The first head in line is only a start: after the affine round the template's pose and size are the group's mean
(matrix logarithms), and after each deformable round the mean displacement is taken out, so the template ends with the
group's mean shape and mean intensity (Joshi et al., NeuroImage 23 (2004) S151-S160, in its simplest form).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..prepare.atlas import Atlas
from ..prepare.brain_mask import brain_mask
from ..prepare.zmap import masked_smoothing
from ..progress import Progress, Silent
from ..register.affine import register_affine
from ..register.chain import HeadRegistration, register_heads
from ..register.images import around
from ..register.transforms import Affine, Chain, Ffd, Transform, grid_points, sample
from ..volume import Grid, Volume
from .configs import AtlasConfig

__all__ = ["RunEach", "build_atlas", "serially"]

RunEach = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Call a function on each item and give the results in order; the function and the items can be pickled."""

FEWEST_HEADS = 5


@dataclass(frozen=True)
class _Head:
    """A healthy head, cropped to its brain."""

    image: Volume
    mask: NDArray[np.bool_]

    @property
    def brain_mm3(self) -> float:
        return float(self.mask.sum()) * self.image.grid.voxel_volume


def serially(function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """Call a function on each item, one after another, in this process."""
    return [function(item) for item in items]


def build_atlas(
    volumes: Sequence[Volume],
    config: AtlasConfig,
    *,
    run_each: RunEach = serially,
    progress: Progress | None = None,
) -> Atlas:
    """Build the atlas of a healthy group.

    The same volumes in the same order give the same bits, whatever runs them.

    Args:
        volumes: skull-stripped and bias-corrected scans of healthy heads, one channel each, all in ``config.unit``.
        config: grid, rounds, registration.
        run_each: runs the heads, serially by default; a pool of processes is faster.
        progress: told of each head and round.

    Raises:
        InputError: fewer than 5 heads, or a head that cannot be used (constant, empty, not numbers).
    """
    if len(volumes) < FEWEST_HEADS:
        raise InputError(
            f"An atlas was asked from {len(volumes)} healthy scans, but it needs {FEWEST_HEADS} or more; add healthy "
            "cases or give a finished atlas."
        )
    progress = progress or Silent()
    with progress.track("atlas", (2 + 2 * config.rounds) * len(volumes)) as advance:

        def every(function: Callable[[Any], Any], items: Sequence[Any], text: str) -> list[Any]:
            results = []
            for result in run_each(function, items):
                results.append(result)
                advance(1, text)
            return results

        heads = [_cropped(volume) for volume in volumes]
        reference = _median_head(heads)
        affines = every(_to_reference, [(heads[reference], head, config) for head in heads], "affine")
        grid, transforms = _mean_pose(heads[reference], affines, config)
        places = grid_points(grid)
        images = every(_onto, [(h, t, places, grid.shape) for h, t in zip(heads, transforms, strict=True)], "average")
        last: list[HeadRegistration] = []
        for turn in range(1, config.rounds + 1):
            template, mask = _average(images, grid, config)
            jobs: list[Any] = [
                (template, mask, h, t, config) for h, t in zip(heads, _affine_parts(transforms), strict=True)
            ]
            last = every(_to_template, jobs, f"deformation, round {turn}")
            transforms = [found.transform for found in last]
            places = _mean_shape(transforms).on_grid(grid)
            jobs = [(h, t, places, grid.shape) for h, t in zip(heads, transforms, strict=True)]
            images = every(_onto, jobs, f"average, round {turn}")
    mean, sd, covered = _statistics(images, config)
    provenance = {
        "heads": len(volumes),
        "reference": reference,
        "config": config.model_dump(mode="json"),
        "ncc": [round(found.ncc, 4) for found in last],
        "refused_deformations": sum(bool(found.warnings) for found in last),
    }
    return Atlas(
        mean=Volume(mean[None], grid),
        sd=Volume(sd[None], grid),
        mask=Volume(covered[None].astype(np.uint8), grid),
        count=len(volumes),
        unit=config.unit,
        provenance=MappingProxyType(provenance),
    )


def _cropped(volume: Volume) -> _Head:
    mask = brain_mask(volume).mask
    index = np.argwhere(mask)
    low, high = index.min(axis=0), index.max(axis=0) + 1
    box = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    grid = volume.grid.cropped(tuple(int(a) for a in low), tuple(int(n) for n in high - low))
    inside = np.ascontiguousarray(mask[box])
    image = np.where(inside, volume.array[0][box], 0).astype(np.float32)
    return _Head(Volume(image[None], grid), inside)


def _median_head(heads: Sequence[_Head]) -> int:
    """Return the head of median brain volume (of two, the smaller)."""
    return int(np.argsort([head.brain_mm3 for head in heads], kind="stable")[(len(heads) - 1) // 2])


def _to_reference(job: tuple[_Head, _Head, AtlasConfig]) -> Affine:
    reference, head, config = job
    return register_affine(
        reference.image, head.image, config=config.affine, fixed_mask=reference.mask, moving_mask=head.mask
    ).transform


def _mean_pose(reference: _Head, affines: Sequence[Affine], config: AtlasConfig) -> tuple[Grid, list[Transform]]:
    """Place the template: the mean linear part is taken out, the mean brain's centre becomes the world's origin."""
    from scipy.linalg import expm, logm

    logs = [np.real(logm(affine.matrix[:3, :3])) for affine in affines]
    mean = expm(np.mean(logs, axis=0))
    centre = reference.image.grid.to_world(np.argwhere(reference.mask).mean(axis=0))
    to_reference = np.eye(4)
    to_reference[:3, :3], to_reference[:3, 3] = np.linalg.inv(mean), centre
    back = Affine(to_reference).inverse()
    moved = Grid(reference.image.grid.shape, back.matrix @ reference.image.grid.affine)
    grid = around(moved, reference.mask, config.spacing_mm, config.margin_mm)
    return grid, [Chain([Affine(to_reference), affine]) for affine in affines]


def _affine_parts(transforms: Sequence[Transform]) -> list[Affine]:
    parts = [t.transforms[-1] if isinstance(t, Chain) else t for t in transforms]
    return [part if isinstance(part, Affine) else Affine.identity() for part in parts]


def _to_template(job: tuple[Volume, NDArray[np.bool_], _Head, Affine, AtlasConfig]) -> HeadRegistration:
    template, mask, head, start, config = job
    return register_heads(
        template,
        head.image,
        affine=config.affine,
        ffd=config.ffd,
        fixed_mask=mask,
        moving_mask=head.mask,
        start=start,
    )


def _mean_shape(transforms: Sequence[Transform]) -> Transform:
    """Return the map from the group's mean shape to the template that the heads were registered to.

    All lattices are the same, so the mean of the coefficients is the mean deformation, and taking it out moves the
    template to where the heads are on average; refused deformations count as zero.
    """
    first = [t.transforms[0] for t in transforms if isinstance(t, Chain)]
    deformations = [d for d in first if isinstance(d, Ffd)]
    if not deformations:
        return Affine.identity()
    mean = np.sum([d.coefficients for d in deformations], axis=0) / len(transforms)
    return Ffd(deformations[0].origin, deformations[0].spacing, mean).inverse()


def _onto(
    job: tuple[_Head, Transform, NDArray[np.float64], tuple[int, ...]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a head at the template's places: interpolation normalised by the mask, so that no background bleeds in."""
    head, transform, places, shape = job
    both = np.stack([head.image.array[0], head.mask.astype(np.float32)])
    image, weight = sample(Volume(both, head.image.grid), transform.points(places))
    inside = weight >= 0.5
    return (image / np.maximum(weight, 0.5)).reshape(shape).astype(np.float32), inside.reshape(shape)


def _average(
    images: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]], grid: Grid, config: AtlasConfig
) -> tuple[Volume, NDArray[np.bool_]]:
    """Return the mean image of the heads that cover each voxel, 0 outside the mask."""
    covering = np.sum([inside for _, inside in images], axis=0)
    total = np.sum([np.where(inside, image, 0).astype(np.float64) for image, inside in images], axis=0)
    mask = covering >= max(2, config.fewest_share * len(images))
    mean = np.where(mask, total / np.maximum(covering, 1), 0)
    return Volume(mean[None].astype(np.float32), grid), mask


def _statistics(
    images: Sequence[tuple[NDArray[np.float32], NDArray[np.bool_]]], config: AtlasConfig
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return voxelwise mean, sample sd and mask of the heads that cover each voxel."""
    inside = np.stack([inside for _, inside in images])
    values = np.where(inside, np.stack([image for image, _ in images]), 0).astype(np.float64)
    count = inside.sum(axis=0)
    mask = count >= max(3, config.fewest_share * len(images))
    mean = values.sum(axis=0) / np.maximum(count, 1)
    variance = np.where(inside, (values - mean) ** 2, 0).sum(axis=0) / np.maximum(count - 1, 1)
    spacing = (config.spacing_mm,) * 3
    smooth = masked_smoothing(variance.astype(np.float32), mask, spacing, config.smooth_mm)
    return np.where(mask, mean, 0).astype(np.float32), np.where(mask, np.sqrt(smooth), 0).astype(np.float32), mask
