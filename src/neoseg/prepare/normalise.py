"""Intensities for the network: one rule a channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..plan.intensity import ChannelStatistics, NormaliseConfig, Rule

__all__ = ["normalise"]

CONSTANT = 1e-6
"""A spread below this share of the largest value is rounding: the image is constant, and becomes 0 throughout."""


def normalise(
    channel: NDArray[np.float32],
    mask: NDArray[np.bool_],
    config: NormaliseConfig,
    *,
    rule: Rule,
    statistics: ChannelStatistics | None,
) -> NDArray[np.float32]:
    """Return the normalised channel.

    The rules "case" and "dataset", which centre the foreground, set voxels outside the mask to 0. The others treat
    every voxel alike. A constant image becomes 0 under the rules that measure the image itself ("case" and
    "percentile"), and keeps its level under those that do not.

    Args:
        channel: ``(x, y, z)`` in the channel's unit, finite.
        mask: the foreground, ``(x, y, z)``; an empty one stands for the whole image.
        config: the range of the rule "range".
        rule: a rule other than "auto".
        statistics: for the rules "dataset" and "ct".

    Raises:
        ConfigError: the rule needs statistics or a range and none is given, or it is "auto".
    """
    inside = channel[mask] if mask.any() else channel.reshape(-1)
    match rule:
        case "none":
            return channel
        case "range":
            if config.low is None or config.high is None:
                raise ConfigError("normalise: the rule 'range' needs low and high; set them in [prepare.normalise].")
            return np.asarray((channel - config.low) / (config.high - config.low), dtype=np.float32)
        case "percentile":
            low, high = np.percentile(inside, (0.5, 99.5))
            if not high - low > CONSTANT * np.abs(inside).max():
                return np.zeros_like(channel, dtype=np.float32)
            return np.asarray(np.clip((channel - low) / (high - low), 0, 1), dtype=np.float32)
        case "case":
            mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
            if not sd > CONSTANT * np.abs(inside).max():
                return np.zeros_like(channel, dtype=np.float32)
        case "dataset" | "ct":
            if statistics is None:
                raise ConfigError(f"normalise: the rule {rule!r} needs a plan with the statistics of this channel.")
            mean, sd = statistics.mean, statistics.sd
            if rule == "ct":
                if statistics.low is None or statistics.high is None:
                    raise ConfigError("normalise: the rule 'ct' needs statistics with low and high.")
                clipped = np.clip(channel, statistics.low, statistics.high)
                return np.asarray((clipped - mean) / sd, dtype=np.float32)
        case _:
            raise ConfigError(f"normalise: the rule {rule!r} must be decided by the plan before it is applied.")
    inner = mask if mask.any() else np.ones_like(mask)
    return np.asarray(np.where(inner, (channel - mean) / sd, 0), dtype=np.float32)
