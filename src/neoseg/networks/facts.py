"""Sizes of the networks that this package builds: parameters and arithmetic, without making any weight."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from ..errors import ConfigError, nearest
from .build import build_network
from .configs import NETWORKS, PUBLISHED, ConvUNet, NetworkConfig, UnetrPPConfig
from .counts import published_macs, rearranged_macs
from .layers import conv_layers
from .unetr_pp import UnetrPP

__all__ = ["network_facts"]


CONV_PATCH = (128, 128, 128)
CONV_WIDTHS = (32, 64, 128, 256, 320, 320)
CONV_STRIDES = ((1, 1, 1), *((2, 2, 2),) * 5)
"""The patch that a U-shaped network's facts are given for, and what nnU-Net chooses for it on isotropic voxels."""


def network_facts(kind: str) -> dict[str, dict[str, Any]]:
    """Return parameters and arithmetic of a network's published variants, and of the default at every kind of size.

    A U-shaped network has no variant of its own sizes: its facts are those for one channel and two classes at the patch
    and with the levels that nnU-Net has for isotropic volumes, the U-Net's with both of its encoders.

    Each entry has the patch, the trainable parameters, the same with running statistics, and 1e9 multiply-adds of one
    forward pass of one patch: in the authors' order of operations, counted as fvcore counts, and as computed here.

    Args:
        kind: name of the network in configuration files.

    Raises:
        ConfigError: there is no such network.
    """
    if kind not in NETWORKS:
        raise ConfigError(f"There is no network {kind!r}{nearest(kind, NETWORKS)}.")
    if issubclass(NETWORKS[kind].config, ConvUNet):
        encoders = ("plain", "residual") if kind == "unet" else (None,)
        return {f"default, {encoder}" if encoder else "default": _conv_facts(kind, encoder) for encoder in encoders}
    synapse = PUBLISHED["synapse"]
    shapes = {name: (p.config, p.in_channels, p.classes, p.patch) for name, p in PUBLISHED.items()}
    for size in ("native", "flex", "free"):
        config = UnetrPPConfig(stem=synapse.config.stem, size=size)
        shapes[f"default, {size}"] = (config, synapse.in_channels, synapse.classes, synapse.patch)
    return {name: _facts(*shape) for name, shape in shapes.items()}


def _facts(config: UnetrPPConfig, in_channels: int, classes: int, patch: tuple[int, ...]) -> dict[str, Any]:
    with torch.device("meta"):
        network = UnetrPP(config, in_channels=in_channels, classes=classes, patch=patch)
    authors, here = (
        sum(macs(config, in_channels=in_channels, classes=classes, patch=patch).values())
        for macs in (published_macs, rearranged_macs)
    )
    return {
        "patch": "x".join(map(str, (in_channels, *patch))),
        **_sizes(network),
        "gmacs_published_order": round(authors / 1e9, 2) if config.size != "free" else None,
        "gmacs_here": round(here / 1e9, 2) if config.size != "free" else None,
    }


def _conv_facts(kind: str, encoder: str | None) -> dict[str, Any]:
    """Return the facts of a U-shaped network; its convolutions are the published ones, in their order."""
    widths = NETWORKS[kind].config.model_fields["widths"].default or CONV_WIDTHS
    fields: dict[str, Any] = {"widths": widths, "strides": CONV_STRIDES[: len(widths)]}
    if encoder is not None:
        fields["encoder"] = encoder
    config = NETWORKS[kind].config.model_validate(fields)
    assert isinstance(config, ConvUNet)
    with torch.device("meta"):
        network = build_network(cast(NetworkConfig, config), in_channels=1, classes=2, patch=CONV_PATCH)
    macs = round(sum(conv.macs for conv in conv_layers(config, 1, 2)) * math.prod(CONV_PATCH) / 1e9, 2)
    return {
        "patch": "x".join(map(str, (1, *CONV_PATCH))),
        **_sizes(network),
        "gmacs_published_order": macs,
        "gmacs_here": macs,
    }


def _sizes(network: nn.Module) -> dict[str, int]:
    """Return a network's trainable parameters, and those with its running statistics."""
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    return {
        "parameters": parameters,
        "with_statistics": parameters + statistics + sum(b.ndim == 0 for b in network.buffers()),
    }
