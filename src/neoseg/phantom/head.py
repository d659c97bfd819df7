"""One procedural head: a scan, its lesion label and everything that is true about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..volume import Grid, Volume
from .adc import TISSUE_ADC, healthy_adc, measured, receive_field
from .anatomy import brain_distance, draw_anatomy, tissue_shares
from .config import HeadConfig
from .deformation import Deformation, draw_deformation
from .geometry import draw_grid
from .lesions import draw_lesions

__all__ = ["Head", "make_head"]

BRAIN_HEIGHT_MM = 88.0
"""Extent across the slices that holds a head of common size, from the medulla to the vertex."""


@dataclass(frozen=True, eq=False)
class Head:
    """A scan of a procedural head, all maps on one grid.

    Attributes:
        adc: float32 (1, x, y, z), 1e-6 mm2/s, background exactly 0, at least 1 inside the brain.
        label: uint8 (1, x, y, z), 1 where the mean lesion weight of a brain voxel is at least 0.5.
        tissues: float32 (tissues, x, y, z), share of each of ``anatomy.TISSUES`` in a voxel; they sum to 1.
        lesion: float32 (1, x, y, z), mean lesion weight 0..1.
        field: float32 (1, x, y, z), factor of the receive field inside the brain (mean 1), 1 outside.
        clean: float32 (1, x, y, z), ADC without receive field, slice factors and noise.
        brain: uint8 (1, x, y, z), the skull-stripped brain with its CSF.
        deformation: world to the common anatomy.
        parameters: numbers that made this head, as plain values for JSON.
    """

    adc: Volume
    label: Volume
    tissues: Volume
    lesion: Volume
    field: Volume
    clean: Volume
    brain: Volume
    deformation: Deformation
    parameters: dict[str, Any]


def make_head(generator: np.random.Generator, config: HeadConfig, *, lesion_burden: float | None = None) -> Head:
    """Make one head.

    Grid, anatomy, tissue values, field, noise and lesions each have a stream of their own, so the same generator gives
    the same head with another burden.

    Args:
        generator: source of randomness; advanced by one spawn.
        config: what varies and how much.
        lesion_burden: percent of the brain that is injured, 0..80; None for a healthy head, 0 for a patient without
            a visible lesion.
    """
    grid_rng, shape_rng, anatomy_rng, tissue_rng, field_rng, noise_rng, lesion_rng = generator.spawn(7)
    grid = draw_grid(grid_rng, BRAIN_HEIGHT_MM)
    deformation = draw_deformation(shape_rng, config, grid.centre, grid.directions)
    anatomy = draw_anatomy(anatomy_rng, config)
    voxels = _candidates(grid, deformation, anatomy.rim_mm)
    per_axis = _points_per_axis(grid, config)
    head, canonical = _points(grid, voxels, deformation, per_axis)
    fine = tissue_shares(canonical, anatomy)
    adc, means = healthy_adc(tissue_rng, config, canonical, fine)
    lesions = draw_lesions(lesion_rng, config, head, canonical, fine, lesion_burden or 0.0)
    adc = adc * lesions.factor

    per = int(np.prod(per_axis))
    shares = np.ascontiguousarray(fine.reshape(len(fine), -1, per).mean(-1))
    keep = shares[0] < 0.5
    solid = 1 - fine[0].reshape(-1, per)
    # a skull-stripped map has no mixture with air: the border voxels hold what lies inside the mask
    clean = (adc.reshape(-1, per) * (solid > 0)).sum(-1) / np.maximum(solid.sum(-1), 1e-3)
    weight = lesions.weight.reshape(-1, per).mean(-1)
    field = receive_field(field_rng, config, head.reshape(-1, per, 3).mean(1), keep)
    noisy = measured(noise_rng, config, clean, voxels[:, 2])
    index = tuple(voxels[keep].T)
    outside = np.zeros(len(fine), dtype=np.float32)
    outside[0] = 1
    tissues = np.broadcast_to(outside[:, None, None, None], (len(fine), *grid.shape)).copy()
    tissues[:, *index] = shares[:, keep]
    brain_ml = float(keep.sum()) * grid.voxel_volume / 1000
    label = _put(grid, index, weight[keep] >= 0.5, np.uint8)
    return Head(
        adc=_put(grid, index, np.maximum(noisy * field, 1)[keep], np.float32),
        label=label,
        tissues=Volume(tissues, grid),
        lesion=_put(grid, index, weight[keep], np.float32),
        field=_put(grid, index, field[keep], np.float32, fill=1.0),
        clean=_put(grid, index, clean[keep], np.float32),
        brain=_put(grid, index, np.ones(int(keep.sum())), np.uint8),
        deformation=deformation,
        parameters={
            "lesion_burden_asked_percent": lesion_burden,
            "lesion_burden_percent": 100 * float(label.array.sum()) / max(1, int(keep.sum())),
            "lesion_pattern": lesions.pattern,
            "lesion_foci": lesions.count,
            "lesion_drop": lesions.drop,
            "brain_ml": brain_ml,
            "tissue_adc": {name: means[name] for name in TISSUE_ADC},
            "ventricle_factor": list(anatomy.ventricle),
            "spacing_mm": list(grid.spacing),
        },
    )


def _put(
    grid: Grid, index: tuple[NDArray[np.intp], ...], values: NDArray[Any], dtype: type[np.generic], fill: float = 0.0
) -> Volume:
    array = np.full((1, *grid.shape), fill, dtype=dtype)
    array[0][index] = values
    return Volume(array, grid)


def _candidates(grid: Grid, deformation: Deformation, rim_mm: float) -> NDArray[np.intp]:
    """Indices ``(n, 3)`` of the voxels that the brain may reach."""
    every = np.indices(grid.shape, dtype=np.float32).reshape(3, -1).T
    head = deformation.to_head(grid.to_world(every))
    near = np.flatnonzero((np.abs(head) < [58, 70, 60]).all(1))
    canonical = deformation.to_canonical(grid.to_world(every[near]))
    reach = np.float32(max(grid.spacing) * 0.75)
    return every[near[brain_distance(canonical, rim_mm) > -reach]].astype(np.intp)


def _points_per_axis(grid: Grid, config: HeadConfig) -> tuple[int, int, int]:
    largest = (config.point_mm[0], config.point_mm[0], config.point_mm[1])
    x, y, z = (int(np.ceil(s / p - 1e-6)) for s, p in zip(grid.spacing, largest, strict=True))
    return x, y, z


def _points(
    grid: Grid, voxels: NDArray[np.intp], deformation: Deformation, per_axis: tuple[int, int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Head and canonical coordinates of the points inside each voxel, voxel by voxel, ``(n * points, 3)``."""
    offsets = np.stack(np.meshgrid(*((np.arange(k) + 0.5) / k - 0.5 for k in per_axis), indexing="ij"), -1).reshape(
        -1, 3
    )
    index = (voxels[:, None, :] + offsets).reshape(-1, 3)
    world = grid.to_world(index)
    return deformation.to_head(world), deformation.to_canonical(world)
