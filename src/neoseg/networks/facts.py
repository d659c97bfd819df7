"""Sizes of the networks that this package builds: parameters and arithmetic, without making any weight."""

from __future__ import annotations

from itertools import islice
from typing import Any

import torch

from ..errors import ConfigError, nearest
from .build import build_network
from .configs import LIGHT_ENCODERS, NETWORKS, PUBLISHED, ConvUNet, NetworkBase, UnetrPPConfig
from .cost import multiply_adds
from .counts import published_macs, rearranged_macs

__all__ = ["network_facts"]

LEVELS = {3: (6, (128, 128, 128)), 2: (7, (512, 512))}
"""Levels that convolutional U-Nets are shown with, and patch of most networks, by the axes of the images."""


PRINTED, PRINTED_WIDTHS = ("unet", "wide_unet", "unet_plus_plus"), (32, 64, 128, 256, 512)
"""Networks whose sizes the UNet++ papers print (Zhou et al., DLMIA 2018; IEEE TMI 39, 2020), and the channels."""


def network_facts(kind: str, most: int | None = None) -> dict[str, dict[str, Any]]:
    """Return parameters and arithmetic of a network: of its published variants, or of usual forms in 2-D and 3-D.

    Each entry has the patch with its channels, the trainable parameters, the same with running statistics, and 1e9
    multiply-adds of one forward pass of one patch as computed here; for UNETR++ also those in the authors' order of
    operations, both counted as fvcore counts.

    Args:
        kind: name of the network in configuration files.
        most: how many of its forms, the most usual first; default all.

    Raises:
        ConfigError: there is no such network.
    """
    if kind not in NETWORKS:
        raise ConfigError(f"There is no network {kind!r}{nearest(kind, NETWORKS)}.")
    return {name: _facts(*form) for name, form in islice(_forms(kind).items(), most)}


_Form = tuple[Any, int, int, tuple[int, ...]]
"""Config, channels, classes, patch."""


def _forms(kind: str) -> dict[str, _Form]:
    if kind == "unetr_pp":
        synapse = PUBLISHED["synapse"]
        forms: dict[str, _Form] = {n: (p.config, p.in_channels, p.classes, p.patch) for n, p in PUBLISHED.items()}
        for size in ("native", "flex", "free"):
            default = UnetrPPConfig(stem=synapse.config.stem, size=size)
            forms[f"default, {size}"] = (default, synapse.in_channels, synapse.classes, synapse.patch)
        plane = UnetrPPConfig(spatial_dims=2, stem=(4, 4))
        # second, so that the two most usual forms are one of volumes and one of planes
        first, *others = forms.items()
        return dict([first, ("2-D", (plane, 1, 2, LEVELS[2][1])), *others])
    found: dict[str, _Form] = {}
    for axes in (3, 2):
        config = _usual(kind, axes)
        patch = (96,) * 3 if kind in ("unetr", "swin_unetr") and axes == 3 else LEVELS[axes][1]
        found[f"{axes}-D"] = (config, 1, 2, patch)
    if kind in ("unet", "unet_plus_plus"):
        for encoder in LIGHT_ENCODERS:
            light = NETWORKS[kind].config.model_validate({"spatial_dims": 2, "encoder": encoder})
            found[f"2-D, {encoder}"] = (light, *found["2-D"][1:])
    if kind in PRINTED:
        found["2-D, as printed"] = (_as_printed(kind), 1, 1, found["2-D"][3])
    if kind == "unet":
        residual = found["3-D"][0].model_copy(update={"encoder": "residual"})
        found["3-D, residual"] = (residual, *found["3-D"][1:])
    return found


def _as_printed(kind: str) -> NetworkBase:
    """Return a network of the UNet++ papers' tables, which print 7.76 M, 9.13 M and 9.04 M parameters."""
    fields = {"spatial_dims": 2, "strides": ((1, 1), *[(2, 2)] * 4), "norm": "none", "activation": "relu"}
    own: dict[str, Any] = {"up_channels": "unet"} if kind == "wide_unet" else {"widths": PRINTED_WIDTHS}
    return NETWORKS[kind].config.model_validate({**fields, **own, "down": "max", "deep_supervision": False})


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
    with torch.device("meta"):
        network = build_network(config, in_channels=in_channels, classes=classes, patch=patch)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    statistics = sum(b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    facts: dict[str, Any] = {
        "patch": "x".join(map(str, (in_channels, *patch))),
        "parameters": parameters,
        "with_statistics": parameters + statistics + sum(b.ndim == 0 for b in network.buffers()),
        "gmacs_published_order": None,
    }
    if isinstance(config, UnetrPPConfig) and config.size != "free":
        authors, here = (
            sum(macs(config, in_channels=in_channels, classes=classes, patch=patch).values())
            for macs in (published_macs, rearranged_macs)
        )
        facts["gmacs_published_order"] = round(authors / 1e9, 2)
    else:
        here = multiply_adds(network, (in_channels, *patch))
    return {**facts, "gmacs_here": round(here / 1e9, 2)}
