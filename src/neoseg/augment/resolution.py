"""Changes of sharpness: blur and low resolution, both a small matrix along each axis."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["BLUR", "LOW_RESOLUTION", "blur_matrix", "low_resolution_matrix"]

_Matrix = Callable[[int, float], NDArray[np.float64]]


def blur_matrix(n: int, sigma: float) -> NDArray[np.float64]:
    """Return ``(n, n)``: a Gaussian of sigma voxels, its weights made to sum to 1 at the borders too."""
    place = np.arange(n)
    weights = np.exp(-0.5 * ((place[:, None] - place) / sigma) ** 2)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def low_resolution_matrix(n: int, zoom: float) -> NDArray[np.float64]:
    """Return ``(n, n)``: sample ``round(n * zoom)`` voxels (nearest), then n again (linear)."""
    m = max(1, round(n * zoom))
    down = np.minimum(((np.arange(m) + 0.5) * n / m).astype(int), n - 1)
    place = np.clip((np.arange(n) + 0.5) * m / n - 0.5, 0, m - 1)
    low = np.minimum(place.astype(int), max(0, m - 2))
    share = place - low
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n), down[low]), 1 - share)
    np.add.at(matrix, (np.arange(n), down[np.minimum(low + 1, m - 1)]), share)
    return matrix


def _along_axes(image: Tensor, values: NDArray[np.float64], nothing: float, matrix: _Matrix) -> Tensor:
    """Multiply each axis of the samples and channels whose value is not ``nothing`` with the value's matrix."""
    if not (values != nothing).any():
        return image
    image = image.clone()
    for i, j in np.argwhere(values != nothing):
        part = image[i, j]
        for axis, n in enumerate(part.shape):
            operator = torch.from_numpy(matrix(n, float(values[i, j]))).to(part.device, part.dtype)
            part = torch.tensordot(operator, part.movedim(axis, 0), dims=1).movedim(0, axis)
        image[i, j] = part
    return image


def _sample_channels(
    config: AugmentConfig, generator: np.random.Generator, info: BatchInfo, limits: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    values = generator.uniform(*limits, (info.batch, info.channels))
    return values, generator.random(values.shape) < config.channel_probability


def _sample_blur(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    sigma, touched = _sample_channels(config, generator, info, config.blur_sigma)
    return {"sigma": gated(generator, config.blur_probability, np.where(touched, sigma, 0.0), 0.0)}


def _identity_blur(info: BatchInfo) -> Parameters:
    return {"sigma": np.zeros((info.batch, info.channels))}


def _apply_blur(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return _along_axes(image, parameters["sigma"], 0.0, blur_matrix), label


def _sample_low(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    zoom, touched = _sample_channels(config, generator, info, config.low_resolution_range)
    return {"zoom": gated(generator, config.low_resolution_probability, np.where(touched, zoom, 1.0), 1.0)}


def _identity_low(info: BatchInfo) -> Parameters:
    return {"zoom": np.ones((info.batch, info.channels))}


def _apply_low(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    return _along_axes(image, parameters["zoom"], 1.0, low_resolution_matrix), label


BLUR = Transform("blur", False, _sample_blur, _identity_blur, _apply_blur)
LOW_RESOLUTION = Transform("low_resolution", False, _sample_low, _identity_low, _apply_low)
