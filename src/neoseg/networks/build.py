"""From a config to a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

import torch
from torch import nn

from neoseg.networks.adopted import Adopted
from neoseg.networks.attention_unet import AttentionUNet
from neoseg.networks.configs import (
    AttentionUNetConfig,
    DynUNetConfig,
    MedNeXtConfig,
    NetworkConfig,
    SegResNetConfig,
    SwinUnetrConfig,
    UNetBase,
    UNetPlusPlusConfig,
    UnetrConfig,
    UnetrPPConfig,
)
from neoseg.networks.unet import UNet
from neoseg.networks.unet_plus_plus import UNetPlusPlus
from neoseg.networks.unetr import Unetr
from neoseg.networks.unetr_pp import UnetrPP

__all__ = ["build_network"]


def build_network(
    config: NetworkConfig,
    *,
    in_channels: int,
    classes: int,
    patch: Sequence[int],
    overlapping: bool = False,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """Return the network of a config, freshly initialised, with weights laid out channels last.

    Its forward takes (B, in_channels, *patch) and returns a tuple of logits (B, classes, ...), full size first, of
    length 1 without deep supervision, and the same in training and evaluation.

    Args:
        config: any member of the union of network configs.
        in_channels: channels of the input.
        classes: channels of each output: classes, background included, or regions.
        patch: voxels on each axis.
        overlapping: whether the channels are regions, each with a sigmoid of its own, and not classes with a softmax.
        generator: source of the initial weights; the same state gives the same bits. None takes torch's own.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
        GeometryError: the patch does not suit the network; the nearest right one is named.
    """
    with torch.random.fork_rng(devices=[], enabled=generator is not None):
        if generator is not None:
            torch.manual_seed(int(torch.randint(2**63 - 1, (1,), generator=generator)))
        network = _built(config, in_channels, classes, tuple(patch), overlapping)
    last = torch.channels_last if len(patch) == 2 else torch.channels_last_3d
    network.to(memory_format=last)  # type: ignore[call-overload]  # torch's stubs lack the argument
    return network


def _built(
    config: NetworkConfig, in_channels: int, classes: int, patch: tuple[int, ...], overlapping: bool
) -> nn.Module:
    match config:
        case UnetrPPConfig():
            return UnetrPP(config, in_channels=in_channels, classes=classes, patch=patch)
        case UNetBase():
            return UNet(config, in_channels=in_channels, classes=classes, patch=patch)
        case UNetPlusPlusConfig():
            return UNetPlusPlus(config, in_channels=in_channels, classes=classes, patch=patch, overlapping=overlapping)
        case AttentionUNetConfig():
            return AttentionUNet(config, in_channels=in_channels, classes=classes, patch=patch)
        case UnetrConfig():
            return Unetr(config, in_channels=in_channels, classes=classes, patch=patch)
        case SegResNetConfig() | DynUNetConfig() | MedNeXtConfig() | SwinUnetrConfig():
            return Adopted(config, in_channels=in_channels, classes=classes, patch=patch)
        case _:
            assert_never(config)
