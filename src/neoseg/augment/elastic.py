"""Elastic deformation: a coarse grid of control points, and the smooth displacement between them."""

from __future__ import annotations

from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, gated

__all__ = ["displacement_mm", "identity_elastic", "sample_elastic", "spline_matrix"]


def spline_matrix(n: int, voxel_mm: float, count: int, spacing_mm: float) -> NDArray[np.float64]:
    """Return ``(n, count)``: weights of the control points at the voxels of an axis, cubic B-splines.

    Both rows of points have their middle in the same place.

    Source: Unser, IEEE Signal Processing Magazine 16 (1999), eq. 4.
    """
    place = (np.arange(n) - (n - 1) / 2) * voxel_mm / spacing_mm + (count - 1) / 2
    away = np.abs(place[:, None] - np.arange(count))
    outer = np.clip(2 - away, 0, None) ** 3 / 6
    return np.asarray(np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, outer))


def displacement_mm(parameters: Parameters, info: BatchInfo, device: torch.device) -> Tensor:
    """Return ``(x, y, z, 3)`` or ``(x, y, 2)`` float32: where the value of each voxel comes from, in mm from it.

    Args:
        parameters: of one sample, without the axis of samples.
        info: of the batch.
        device: of the result.
    """
    control, spacing = parameters["control_mm"], float(parameters["spacing_mm"])
    field = torch.from_numpy(control).to(device, torch.float32)
    for axis, (n, voxel) in enumerate(zip(info.shape, info.spacing_mm, strict=True), start=1):
        matrix = torch.from_numpy(spline_matrix(n, voxel, control.shape[axis], spacing)).to(device, torch.float32)
        field = torch.tensordot(matrix, field.movedim(axis, 0), dims=1).movedim(0, axis)
    return field.movedim(0, -1)


def sample_elastic(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    """Draw ``control_mm``, ``(b, 3, i, j, k)`` or ``(b, 2, i, j)``, and their distance ``spacing_mm``, ``(b,)``.

    Each control point moves by up to the drawn displacement along each axis, but not across thick slices; points
    outside the patch move too, so that its border is no calmer than its inside.
    """
    if config.elastic_probability == 0:
        return identity_elastic(info)
    distance = config.elastic_spacing_mm
    # a cubic spline reaches two control points to either side
    counts = [ceil((n - 1) * mm / distance) + 3 for n, mm in zip(info.shape, info.spacing_mm, strict=True)]
    largest = generator.uniform(*config.elastic_displacement_mm, info.batch)
    control = generator.uniform(-1, 1, (info.batch, len(info.shape), *counts))
    control *= largest.reshape((-1,) + (1,) * (control.ndim - 1))
    if info.slice_axis is not None:
        control[:, info.slice_axis] = 0.0
    return {
        "control_mm": gated(generator, config.elastic_probability, control, 0.0),
        "spacing_mm": np.full(info.batch, distance),
    }


def identity_elastic(info: BatchInfo) -> Parameters:
    """Return control points that stay in their places."""
    axes = len(info.shape)
    return {"control_mm": np.zeros((info.batch, axes) + (4,) * axes), "spacing_mm": np.ones(info.batch)}
