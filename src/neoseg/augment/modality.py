"""A modality that is missing from a sample."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .configs import AugmentConfig
from .transform import BatchInfo, Parameters, Transform, gated

__all__ = ["DROPPED_MODALITY"]


def _sample(config: AugmentConfig, generator: np.random.Generator, info: BatchInfo) -> Parameters:
    if config.dropped_modality_probability == 0 or info.channels < 2:
        return _identity(info)
    channel = generator.integers(info.channels, size=info.batch)
    dropped = (np.arange(info.channels) == channel[:, None]).astype(np.float64)
    return {"dropped": gated(generator, config.dropped_modality_probability, dropped, 0.0)}


def _identity(info: BatchInfo) -> Parameters:
    return {"dropped": np.zeros((info.batch, info.channels))}


def _apply(image: Tensor, label: Tensor, parameters: Parameters, info: BatchInfo) -> tuple[Tensor, Tensor]:
    """Fill the channels that are dropped, unless the others of the sample are empty already."""
    dropped = parameters["dropped"] != 0
    if not dropped.any():
        return image, label
    image, empty = image.clone(), info.empty_channels(image)
    for i in np.flatnonzero(dropped.any(axis=1)):
        gone = torch.from_numpy(dropped[i]).to(image.device)
        rest = ~empty[i, ~gone].all()
        gone = (gone & rest).reshape((-1,) + (1,) * (image.ndim - 2))
        image[i] = torch.where(gone, info.fill, image[i])
    return image, label


DROPPED_MODALITY = Transform("dropped_modality", False, _sample, _identity, _apply)
