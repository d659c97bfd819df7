"""Changes of values that leave every voxel in its place: brightness, contrast, gamma, noise."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["BRIGHTNESS", "CONTRAST", "GAMMA", "NOISE"]


def _ones(info: BatchInfo) -> Parameters:
    return {"factor": np.ones((info.batch, info.channels))}


def _sample_brightness(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    factor = generator.uniform(*config.brightness_range, (info.batch, info.channels))
    return {"factor": gated(generator, config.brightness_probability, factor, 1.0)}


def _apply_brightness(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    factor = parameters["factor"]
    return (image * _spread(factor, image) if (factor != 1).any() else image), label


def _sample_contrast(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    factor = generator.uniform(*config.contrast_range, (info.batch, info.channels))
    return {"factor": gated(generator, config.contrast_probability, factor, 1.0)}


def _apply_contrast(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    factor = parameters["factor"]
    if not (factor != 1).any():
        return image, label
    image = image.clone()
    for i, j in np.argwhere(factor != 1):
        part = image[i, j]
        mean, low, high = part.mean(), part.amin(), part.amax()
        image[i, j] = torch.clamp((part - mean) * float(factor[i, j]) + mean, low, high)
    return image, label


def _sample_gamma(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    low, high = np.log(config.gamma_range)
    exponent = np.exp(generator.uniform(low, high, (info.batch, info.channels)))
    inverted = generator.random(info.batch) < config.gamma_inverted_share
    return {
        "exponent": gated(generator, config.gamma_probability, exponent, 1.0),
        "inverted": inverted.astype(np.float64),
    }


def _identity_gamma(info: BatchInfo) -> Parameters:
    return {"exponent": np.ones((info.batch, info.channels)), "inverted": np.zeros(info.batch)}


def _apply_gamma(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    exponent = parameters["exponent"]
    if not (exponent != 1).any():
        return image, label
    image = image.clone()
    for i, j in np.argwhere(exponent != 1):
        sign = -1.0 if parameters["inverted"][i] else 1.0
        part = image[i, j] * sign
        mean, sd, low = part.mean(), part.std(), part.amin()
        width = (part.amax() - low).clamp_min(1e-7)
        bent = ((part - low) / width) ** float(exponent[i, j])
        bent = (bent - bent.mean()) * (sd / bent.std().clamp_min(1e-7)) + mean
        image[i, j] = bent * sign
    return image, label


def _sample_noise(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    sd = generator.uniform(*config.noise_sd, (info.batch, info.channels))
    # a float64 holds every whole number below 2 ** 53
    seeds = generator.integers(2**52, size=info.batch).astype(np.float64)
    return {"sd": gated(generator, config.noise_probability, sd, 0.0), "seed": seeds}


def _identity_noise(info: BatchInfo) -> Parameters:
    return {"sd": np.zeros((info.batch, info.channels)), "seed": np.zeros(info.batch)}


def _apply_noise(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    sd = parameters["sd"]
    if not (sd != 0).any():
        return image, label
    image = image.clone()
    for i in np.flatnonzero((sd != 0).any(axis=1)):
        generator = torch.Generator(device=image.device).manual_seed(int(parameters["seed"][i]))
        noise = torch.randn(image.shape[1:], generator=generator, device=image.device)
        image[i] += noise * _spread(sd[i], image[i])
    return image, label


def _spread(values: NDArray[np.float64], image: Tensor) -> Tensor:
    """Return values with axes of length 1 appended until they fit the image."""
    shape = values.shape + (1,) * (image.ndim - values.ndim)
    return torch.from_numpy(values.reshape(shape)).to(image.device, image.dtype)


BRIGHTNESS = Transform("brightness", False, _sample_brightness, _ones, _apply_brightness)
CONTRAST = Transform("contrast", False, _sample_contrast, _ones, _apply_contrast)
GAMMA = Transform("gamma", False, _sample_gamma, _identity_gamma, _apply_gamma)
NOISE = Transform("noise", False, _sample_noise, _identity_noise, _apply_noise)
