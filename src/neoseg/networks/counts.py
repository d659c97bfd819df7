"""How much arithmetic a UNETR++ takes, from its config alone; no torch here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from neoseg.networks.configs import UnetrPPConfig, token_grids

__all__ = ["published_macs", "rearranged_macs"]

LAYER_NORM, PLAIN_NORM, FOLDED_NORM = 5, 4, 2
"""Operations a value that fvcore counts for a normalisation with scale, one without, and one of running statistics."""


def published_macs(config: UnetrPPConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> dict[str, int]:
    """Return multiply-adds of one forward pass of one patch, part by part, in the authors' order of operations.

    Counted as fvcore does, whose count the authors publish as "FLOPs": products and convolutions one a multiply-add,
    normalisations some operations a value, nothing for activations, softmax, sums and the norms of queries and keys.

    Raises:
        ConfigError: there is no stem.
        GeometryError: the patch does not suit the network.
    """
    assert config.stem is not None
    grids = token_grids(config, patch)
    axes, voxels, f = len(grids[0]), math.prod(patch), config.feature_size
    kernel, half = 3**axes, 2**axes
    parts = dict.fromkeys(
        ("block convolutions", "full size", "queries, keys, values", "token projection", "spatial attention",
         "channel attention", "output projections", "1x1 convolutions", "down", "up", "heads", "normalisations"), 0
    )  # fmt: skip
    for level, (grid, dim) in enumerate(zip(grids, config.dims, strict=True)):
        n, depth = math.prod(grid), config.depths[level]
        rows = [(depth, config.proj[level])]
        if level < len(grids) - 1:
            rows.append((depth, config.decoder_proj))
        for blocks, slots in rows:
            parts["block convolutions"] += blocks * config.conv_blocks * 2 * kernel * n * dim**2
            parts["queries, keys, values"] += blocks * 4 * n * dim**2
            parts["token projection"] += blocks * 2 * n * dim * slots
            parts["spatial attention"] += blocks * 2 * n * dim * slots
            parts["channel attention"] += blocks * 2 * n * dim * (dim // config.heads)
            parts["output projections"] += blocks * n * dim**2 * (config.fusion == "concat")
            parts["1x1 convolutions"] += blocks * n * dim**2
            parts["normalisations"] += blocks * n * dim * (LAYER_NORM + FOLDED_NORM * 2 * config.conv_blocks)
        parts["normalisations"] += LAYER_NORM * n * dim
        if level:
            parts["down"] += n * half * config.dims[level - 1] * dim
            parts["up"] += n * half * config.dims[level - 1] * dim
        if level < 2 and config.deep_supervision:
            parts["heads"] += n * dim * classes
    parts["down"] += voxels * in_channels * config.dims[0]
    parts["up"] += voxels * f * config.dims[0]
    parts["heads"] += voxels * f * classes
    carried = in_channels * f * (in_channels != f)
    parts["full size"] += voxels * (kernel * (in_channels * f + 3 * f * f) + carried)
    norms = 4 + (in_channels != f)
    parts["normalisations"] += norms * PLAIN_NORM * voxels * f
    return parts


def rearranged_macs(config: UnetrPPConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> dict[str, int]:
    """Return the same as this package computes it, in an order that gives the same results.

    Over the N tokens only queries, the products x^T x and the map of the channel branch are formed; keys and values
    are formed of the projected tokens.

    Raises:
        ConfigError: there is no stem.
        GeometryError: the patch does not suit the network.
    """
    parts = published_macs(config, in_channels=in_channels, classes=classes, patch=patch)
    pooled = 2 if config.token_projection == "separate" else 1
    products = projection = channel = 0
    for level, (grid, dim) in enumerate(zip(token_grids(config, patch), config.dims, strict=True)):
        n, d = math.prod(grid), dim // config.heads
        rows = [config.proj[level]] + [config.decoder_proj] * (level < len(config.dims) - 1)
        for slots in rows:
            blocks = config.depths[level]
            products += blocks * (2 * n * dim**2 + 2 * slots * dim**2)
            projection += blocks * pooled * n * dim * slots
            wide = dim if config.fusion == "sum" else dim // 2
            channel += blocks * (n * dim * wide + 2 * dim**3 + 4 * dim**2 * d)
            parts["output projections"] -= blocks * (n * dim * (dim // 2)) * (config.fusion == "concat")
    parts["queries, keys, values"], parts["token projection"], parts["channel attention"] = (
        products,
        projection,
        channel,
    )
    return parts
