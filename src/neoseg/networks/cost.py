"""What a network of any kind takes: its parameters and the arithmetic of one patch, without making any weight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .build import build_network
from .configs import NetworkConfig

__all__ = ["NetworkCost", "multiply_adds", "network_cost", "trainable_parameters"]


@dataclass(frozen=True)
class NetworkCost:
    """What a network takes.

    Attributes:
        parameters: trainable ones; no running statistics.
        multiply_adds: of one forward pass of one patch, half of what torch counts as FLOPs.
    """

    parameters: int
    multiply_adds: int


def network_cost(config: NetworkConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> NetworkCost:
    """Return parameters and multiply-adds of the network of a config, which is built on torch's device "meta".

    Counted by ``torch.utils.flop_counter``: convolutions, matrix products and attention, as this package computes them.
    Left out are normalisations, activations, softmax, sums, interpolation and pooling.

    Args:
        config: any member of the union of network configs, with what the plan fills in.
        in_channels: channels of the input.
        classes: classes, background included.
        patch: voxels on each axis.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
        GeometryError: the patch does not suit the network.
    """
    network = _unfilled(config, in_channels, classes, patch)
    return NetworkCost(_parameters(network), multiply_adds(network, (in_channels, *patch)))


def trainable_parameters(config: NetworkConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> int:
    """Return the parameters alone, with the arguments and errors of :func:`network_cost`."""
    return _parameters_of(config, in_channels, classes, tuple(patch))


@lru_cache(maxsize=16)
def _parameters_of(config: NetworkConfig, in_channels: int, classes: int, patch: tuple[int, ...]) -> int:
    # A run asks several times, and a deep network takes part of a second to build.
    return _parameters(_unfilled(config, in_channels, classes, patch))


def _unfilled(config: NetworkConfig, in_channels: int, classes: int, patch: Sequence[int]) -> nn.Module:
    with torch.device("meta"):
        return build_network(config, in_channels=in_channels, classes=classes, patch=patch)


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Return multiply-adds of one forward pass of a network on torch's device "meta", as :func:`network_cost` counts.

    Args:
        network: is left in evaluation mode.
        shape: of one image, (c, x, y[, z]).
    """
    network.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(torch.empty((1, *shape), device="meta"))
    return int(counter.get_total_flops() // 2)
