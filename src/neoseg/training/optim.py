"""Optimiser, learning-rate schedule and the moving average of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from .configs import TrainingConfig

__all__ = ["MovingAverage", "learning_rate_at", "make_optimiser", "weight_groups"]

_NEVER_DECAYED = ("pos_embed", "position", "temperature", "gamma")


def weight_groups(network: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Split the trainable parameters into those with and those without weight decay.

    Without: everything of one axis (biases, norms, per-channel scales), everything that belongs to a norm layer, and
    what is named a position table, temperature or gamma. Decay would pull these towards values that mean nothing.
    """
    in_norms = {
        id(parameter)
        for module in network.modules()
        if "norm" in type(module).__name__.lower()
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    spared: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        last = name.rpartition(".")[2].lower()
        named = any(word in last for word in _NEVER_DECAYED)
        (spared if parameter.ndim < 2 or id(parameter) in in_norms or named else decayed).append(parameter)
    return decayed, spared


def make_optimiser(network: nn.Module, config: TrainingConfig) -> torch.optim.Optimizer:
    """Return the optimiser of the config over :func:`weight_groups`."""
    decayed, spared = weight_groups(network)
    more = config.weight_decay if config.decay_all else 0.0
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": spared, "weight_decay": more}]
    groups = [group for group in groups if group["params"]]
    if config.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=config.peak_rate, momentum=0.99, nesterov=True)
    return torch.optim.AdamW(groups, lr=config.peak_rate)


def learning_rate_at(step: int, total: int, config: TrainingConfig) -> float:
    """Return the rate of a step (0 .. total - 1) by the schedule, before a plateau or a failed step lowers it."""
    match config.decided_schedule:
        case "poly":
            return config.peak_rate * float((1 - step / total) ** 0.9)
        case "cosine":
            warmup = int(total * config.warmup_fraction)
            if step < warmup:
                return config.peak_rate * (step + 1) / (warmup + 1)
            return config.peak_rate * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))
        case _:
            return config.peak_rate


class MovingAverage:
    """An exponential moving average of a network's weights and running statistics.

    The decay grows with the steps, ``min(decay, (1 + step) / (10 + step))``, so that the random start is forgotten.
    Running means and variances of norms are averaged alike, since they describe what the weights of then gave out
    (as timm's ModelEma does); counts are taken over as they are.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        """Start at the network's weights."""
        self._decay = decay
        self.state: dict[str, Tensor] = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._weights = {name for name, _ in network.named_parameters(remove_duplicate=False)}

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Take in the weights after a step (counted from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            average = self.state[name]
            if name in self._weights:
                average.lerp_(value, 1 - decay)
            elif value.is_floating_point():
                mean = average.lerp(value, 1 - decay)
                # a constant mask may hold infinities, which have no mean
                average.copy_(torch.where(mean.isfinite(), mean, value))
            else:
                average.copy_(value)
