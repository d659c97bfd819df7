"""Sizes of the networks that this package builds: parameters and arithmetic, without making any weight."""

from __future__ import annotations

from typing import Any

import torch

from ..errors import ConfigError, nearest
from .configs import NETWORKS, PUBLISHED, UnetrPPConfig
from .counts import published_macs, rearranged_macs
from .unetr_pp import UnetrPP

__all__ = ["network_facts"]


def network_facts(kind: str) -> dict[str, dict[str, Any]]:
    """Return parameters and arithmetic of a network's published variants, and of the default at every kind of size.

    Each entry has the patch, the trainable parameters, the same with running statistics, and 1e9 multiply-adds of one
    forward pass of one patch: in the authors' order of operations, counted as fvcore counts, and as computed here.

    Args:
        kind: name of the network in configuration files.

    Raises:
        ConfigError: there is no such network.
    """
    if kind not in NETWORKS:
        raise ConfigError(f"There is no network {kind!r}{nearest(kind, NETWORKS)}.")
    synapse = PUBLISHED["synapse"]
    shapes = {name: (p.config, p.in_channels, p.classes, p.patch) for name, p in PUBLISHED.items()}
    for size in ("native", "flex", "free"):
        config = UnetrPPConfig(stem=synapse.config.stem, size=size)
        shapes[f"default, {size}"] = (config, synapse.in_channels, synapse.classes, synapse.patch)
    return {name: _facts(*shape) for name, shape in shapes.items()}


def _facts(config: UnetrPPConfig, in_channels: int, classes: int, patch: tuple[int, ...]) -> dict[str, Any]:
    with torch.device("meta"):
        network = UnetrPP(config, in_channels=in_channels, classes=classes, patch=patch)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    authors, here = (
        sum(macs(config, in_channels=in_channels, classes=classes, patch=patch).values())
        for macs in (published_macs, rearranged_macs)
    )
    return {
        "patch": "x".join(map(str, (in_channels, *patch))),
        "parameters": parameters,
        "with_statistics": parameters + statistics + sum(b.ndim == 0 for b in network.buffers()),
        "gmacs_published_order": round(authors / 1e9, 2) if config.size != "free" else None,
        "gmacs_here": round(here / 1e9, 2) if config.size != "free" else None,
    }
