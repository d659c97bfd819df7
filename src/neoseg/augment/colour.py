"""Colours that are mixed anew, as another stain or camera would."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["COLOUR"]


def _sample(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    if config.colour_probability == 0 or info.channels < 2:
        return _identity(info)
    n = info.channels
    share = generator.uniform(*config.colour_range, (info.batch, 1, 1))
    others = generator.dirichlet(np.ones(n), (info.batch, n))
    # one mixture for all channels takes colour away, one for each changes it
    paler = generator.random((info.batch, 1, 1)) < 0.5
    others = np.where(paler, others[:, :1], others)
    mixed = (1 - share) * np.eye(n) + share * others
    happens = gated(generator, config.colour_probability, np.ones((info.batch, 1)), 0.0)[..., None]
    return {"mixture": np.where(happens != 0, mixed, np.eye(n))}


def _identity(info: BatchInfo) -> Parameters:
    return {"mixture": np.broadcast_to(np.eye(info.channels), (info.batch, info.channels, info.channels)).copy()}


def _apply(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    """Give each channel a weighted mean of all; weights of a row add up to 1, so that a grey picture stays as it is."""
    mixture = parameters["mixture"]
    if (mixture == np.eye(mixture.shape[-1])).all():
        return image, label
    weights = torch.from_numpy(mixture).to(image.device, image.dtype)
    return torch.einsum("bij,bj...->bi...", weights, image), label


COLOUR = Transform("colour", False, _sample, _identity, _apply)
