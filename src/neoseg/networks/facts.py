"""Sizes of the networks that this package builds: parameters and arithmetic, without making any weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from ..errors import ConfigError, nearest
from .build import build_network
from .configs import NETWORKS, PUBLISHED, ConvUNet, NetworkBase, NetworkConfig, UnetrPPConfig
from .counts import published_macs, rearranged_macs

__all__ = ["NetworkSize", "network_facts", "network_size"]

LEVELS = {3: (6, (128, 128, 128)), 2: (7, (512, 512))}
"""Levels and patch that convolutional U-Nets are shown with, by the axes of the images."""


class NetworkSize(NamedTuple):
    """How large a network is.

    Attributes:
        parameters: numbers that are trained.
        with_statistics: the same with running means, variances and counts of normalisations.
        macs: multiply-adds of one forward pass of one patch: convolutions and matrix products, as torch's counter
            counts them; normalisations, activations and sums are left out.
    """

    parameters: int
    with_statistics: int
    macs: int


def network_size(config: NetworkConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> NetworkSize:
    """Return the size of a network; nothing is computed and no weight is made.

    Args:
        config: with the fields that the plan fills.
        in_channels: channels of the input.
        classes: background included.
        patch: voxels on each axis.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
        GeometryError: the patch does not suit the network.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        network = build_network(config, in_channels=in_channels, classes=classes, patch=patch).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.no_grad():
            network(torch.empty(1, in_channels, *patch))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    statistics += sum(b.ndim == 0 for b in network.buffers())
    return NetworkSize(parameters, parameters + statistics, counter.get_total_flops() // 2)


def network_facts(kind: str) -> dict[str, dict[str, Any]]:
    """Return parameters and arithmetic of a network: of its published variants, or of usual forms in 2-D and 3-D.

    Each entry has the patch with its channels, the trainable parameters, the same with running statistics, and 1e9
    multiply-adds of one forward pass of one patch as computed here; for UNETR++ also those in the authors' order of
    operations, both counted as fvcore counts.

    Args:
        kind: name of the network in configuration files.

    Raises:
        ConfigError: there is no such network.
    """
    if kind not in NETWORKS:
        raise ConfigError(f"There is no network {kind!r}{nearest(kind, NETWORKS)}.")
    return {name: _facts(*form) for name, form in _forms(kind).items()}


_Form = tuple[Any, int, int, tuple[int, ...]]
"""Config, channels, classes, patch."""


def _forms(kind: str) -> dict[str, _Form]:
    if kind == "unetr_pp":
        synapse = PUBLISHED["synapse"]
        forms: dict[str, _Form] = {n: (p.config, p.in_channels, p.classes, p.patch) for n, p in PUBLISHED.items()}
        for size in ("native", "flex", "free"):
            config = UnetrPPConfig(stem=synapse.config.stem, size=size)
            forms[f"default, {size}"] = (config, synapse.in_channels, synapse.classes, synapse.patch)
        return forms
    found: dict[str, _Form] = {}
    for axes in (3, 2):
        config = _usual(kind, axes)
        patch = (96,) * 3 if kind == "unetr" and axes == 3 else LEVELS[axes][1]
        found[f"{axes}-D"] = (config, 1, 2, patch)
    return found


def _usual(kind: str, axes: int) -> NetworkBase:
    """Return a network as published, or where the plan decides with every axis halved at each level."""
    made = NETWORKS[kind].config
    if kind == "unetr":
        return made.model_validate({"spatial_dims": axes, "patch_size": (16,) * axes})
    if not issubclass(made, ConvUNet):
        return made.model_validate({"spatial_dims": axes})
    widths = made.model_fields["widths"].default
    if widths is None:
        widths = tuple(min(320 if axes == 3 else 512, 32 * 2**i) for i in range(LEVELS[axes][0]))
    strides = ((1,) * axes, *[(2,) * axes] * (len(widths) - 1))
    return made.model_validate({"spatial_dims": axes, "widths": widths, "strides": strides})


def _facts(config: Any, in_channels: int, classes: int, patch: tuple[int, ...]) -> dict[str, Any]:
    size = network_size(config, in_channels=in_channels, classes=classes, patch=patch)
    facts: dict[str, Any] = {
        "patch": "x".join(map(str, (in_channels, *patch))),
        "parameters": size.parameters,
        "with_statistics": size.with_statistics,
        "gmacs_published_order": None,
        "gmacs_here": round(size.macs / 1e9, 2),
    }
    if isinstance(config, UnetrPPConfig):
        authors, here = (
            sum(macs(config, in_channels=in_channels, classes=classes, patch=patch).values())
            for macs in (published_macs, rearranged_macs)
        )
        counted = config.size != "free"
        facts["gmacs_published_order"] = round(authors / 1e9, 2) if counted else None
        facts["gmacs_here"] = round(here / 1e9, 2) if counted else facts["gmacs_here"]
    return facts
