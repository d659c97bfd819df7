"""Changes of sharpness: blur, low resolution and thick slices, each a small matrix along its axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["ANISOTROPY", "BLUR", "LOW_RESOLUTION", "blur_matrix", "low_resolution_matrix", "thick_slice_matrix"]

_Matrix = Callable[[int, float], NDArray[np.float64]]


def blur_matrix(n: int, sigma: float) -> NDArray[np.float64]:
    """Return ``(n, n)``: a Gaussian of sigma voxels, its weights made to sum to 1 at the borders too."""
    place = np.arange(n)
    weights = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def low_resolution_matrix(n: int, zoom: float) -> NDArray[np.float64]:
    """Return ``(n, n)``: sample ``round(n * zoom)`` voxels (nearest), then n again (linear) between their places."""
    m = max(1, round(n * zoom))
    down = np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
    # from the places of the samples, not from the centres of m equal cells: those may lie half a voxel beside, and the
    # label does not move
    place = np.interp(np.arange(n), down, np.arange(m))
    low = np.minimum(place.astype(int), max(0, m - 2))
    share = place - low
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n), down[low]), 1 - share)
    np.add.at(matrix, (np.arange(n), down[np.minimum(low + 1, m - 1)]), share)
    return matrix


def thick_slice_matrix(n: int, thickness: float) -> NDArray[np.float64]:
    """Return ``(n, n)``: average over slices of that many voxels, side by side, then n voxels again (linear).

    The slices lie symmetrically about the middle; an outer one that reaches over the border averages what is inside.
    """
    m = ceil(n / thickness)
    first = (n - m * thickness) / 2 + np.arange(m)[:, None] * thickness
    overlap = np.minimum(first + thickness, np.arange(n) + 1) - np.maximum(first, np.arange(n))
    down = np.clip(overlap, 0, None)
    down /= down.sum(axis=1, keepdims=True)
    place = np.clip((np.arange(n) + 0.5 - first[0, 0]) / thickness - 0.5, 0, m - 1)
    low = np.minimum(place.astype(int), max(0, m - 2))
    share = (place - low)[:, None]
    return np.asarray((1 - share) * down[low] + share * down[np.minimum(low + 1, m - 1)])


def _along_axes(
    image: Tensor,
    values: NDArray[np.float64],
    nothing: float,
    matrix: _Matrix,
    axes: Sequence[Sequence[int]],
) -> Tensor:
    """Multiply the samples and channels whose value is not ``nothing`` with the value's matrix.

    Along the axes that are given for the sample.
    """
    if not (values != nothing).any():
        return image
    image = image.clone()
    for i, j in np.argwhere(values != nothing):
        part = image[i, j]
        for axis in axes[i]:
            operator = torch.from_numpy(matrix(part.shape[axis], float(values[i, j]))).to(part.device, part.dtype)
            part = torch.tensordot(operator, part.movedim(axis, 0), dims=1).movedim(0, axis)
        image[i, j] = part
    return image


def _sample_channels(
    config: AugmentConfig, generator: np.random.Generator, info: BatchInfo, limits: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = generator.uniform(*limits, (info.batch, info.channels))
    return values, generator.random(values.shape) < config.channel_probability


def _within_slices(info: BatchInfo) -> list[list[int]]:
    """Return for each sample the axes along which voxels may be mixed."""
    return [[axis for axis in range(len(info.shape)) if axis != info.slice_axis]] * info.batch


def _sample_blur(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    sigma, touched = _sample_channels(config, generator, info, config.blur_sigma)
    return {"sigma": gated(generator, config.blur_probability, np.where(touched, sigma, 0.0), 0.0)}


def _identity_blur(info: BatchInfo) -> Parameters:
    return {"sigma": np.zeros((info.batch, info.channels))}


def _apply_blur(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return _along_axes(image, parameters["sigma"], 0.0, blur_matrix, _within_slices(info)), label


def _sample_low(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    zoom, touched = _sample_channels(config, generator, info, config.low_resolution_range)
    return {"zoom": gated(generator, config.low_resolution_probability, np.where(touched, zoom, 1.0), 1.0)}


def _identity_low(info: BatchInfo) -> Parameters:
    return {"zoom": np.ones((info.batch, info.channels))}


def _apply_low(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return _along_axes(image, parameters["zoom"], 1.0, low_resolution_matrix, _within_slices(info)), label


def _sample_anisotropy(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    if config.anisotropy_probability == 0:
        return _identity_anisotropy(info)
    thickness, touched = _sample_channels(config, generator, info, config.anisotropy_range)
    # voxels that differ by rounding of a header count as equal
    thickest = np.flatnonzero(np.array(info.spacing_mm) >= 0.99 * max(info.spacing_mm))
    axis = thickest[generator.integers(len(thickest), size=info.batch)]
    values = np.where(touched, thickness, 1.0)
    return {
        "axis": axis.astype(np.float64),
        "thickness": gated(generator, config.anisotropy_probability, values, 1.0),
    }


def _identity_anisotropy(info: BatchInfo) -> Parameters:
    return {"axis": np.zeros(info.batch), "thickness": np.ones((info.batch, info.channels))}


def _apply_anisotropy(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    axes = [[int(axis)] for axis in parameters["axis"]]
    return _along_axes(image, parameters["thickness"], 1.0, thick_slice_matrix, axes), label


BLUR = Transform("blur", False, _sample_blur, _identity_blur, _apply_blur)
LOW_RESOLUTION = Transform("low_resolution", False, _sample_low, _identity_low, _apply_low)
ANISOTROPY = Transform("anisotropy", False, _sample_anisotropy, _identity_anisotropy, _apply_anisotropy)
