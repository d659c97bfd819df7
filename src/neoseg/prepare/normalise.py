"""Intensities for the network: one rule a channel."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from ..plan.intensity import ChannelStatistics, NormaliseConfig, Rule

__all__ = ["normalise"]


def normalise(
    channel: NDArray[np.float32],
    mask: NDArray[np.bool_],
    config: NormaliseConfig,
    *,
    rule: Rule,
    statistics: ChannelStatistics | None,
) -> NDArray[np.float32]:
    """Return the normalised channel; voxels outside the mask become 0 for the rules that centre the foreground.

    Args:
        channel: ``(x, y, z)`` in the channel's unit.
        mask: the foreground, ``(x, y, z)``.
        config: the range of the rule "range".
        rule: a rule other than "auto".
        statistics: for the rule "dataset".

    Raises:
        ConfigError: the rule needs statistics and none are given.
    """
    inside = channel[mask] if mask.any() else channel.reshape(-1)
    match rule:
        case "none":
            return channel
        case "range":
            assert config.low is not None and config.high is not None
            return np.asarray((channel - config.low) / (config.high - config.low), dtype=np.float32)
        case "percentile":
            low, high = np.percentile(inside, (0.5, 99.5))
            return np.asarray(np.clip((channel - low) / max(high - low, 1e-6), 0, 1), dtype=np.float32)
        case "case":
            mean, sd = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
        case "dataset":
            if statistics is None:
                raise ConfigError("normalise: the rule 'dataset' needs a plan with the statistics of this channel.")
            mean, sd = statistics.mean, statistics.sd
        case _:
            raise ConfigError(f"normalise: the rule {rule!r} must be decided by the plan before it is applied.")
    return np.asarray(np.where(mask, (channel - mean) / max(sd, 1e-6), 0), dtype=np.float32)
