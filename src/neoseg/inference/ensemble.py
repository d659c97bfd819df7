"""Several networks as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError
from .sliding_window import Call

__all__ = ["mean_of"]


def mean_of(calls: Sequence[Call]) -> Call:
    """Return one network that answers with the mean of the others' probabilities (the mean after softmax).

    The answer is given as logarithms of the mean, so that it can stand wherever logits are expected: their softmax is
    the mean itself.

    Raises:
        ConfigError: no network was given.
    """
    if not calls:
        raise ConfigError("An ensemble needs at least one network, but none was given; train a fold first.")
    if len(calls) == 1:
        return calls[0]

    def mean(batch: Tensor) -> tuple[Tensor, ...]:
        total = torch.softmax(calls[0](batch)[0].float(), dim=1)
        for call in calls[1:]:
            total = total + torch.softmax(call(batch)[0].float(), dim=1)
        return (torch.log((total / len(calls)).clamp_min(torch.finfo(torch.float32).tiny)),)

    return mean
