"""UNETR++: a U-shaped network of paired attention and convolutions (Shaker et al., IEEE TMI 2024, arXiv 2212.04497)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from neoseg.errors import ConfigError, GeometryError, nearest
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.blocks.residual_conv import ResidualConv
from neoseg.networks.blocks.stem import step_down
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig, required_multiple, token_grids

__all__ = ["UnetrPP", "published"]

HEADS_WITH_SUPERVISION = 3


class UnetrPP(nn.Module):
    """UNETR++ for patches of one size.

    The stem makes tokens of voxels; each encoder level is a row of attention blocks; each decoder level doubles the
    resolution, adds the encoder's tokens, and is a row of blocks again. At full resolution there are convolutions only.

    Differences from the paper's text that the authors' code has and this class keeps: a learned temperature in place
    of 1/sqrt(d), positions in every block, per-head channel maps, skips added. The axis order of the spatial branch,
    an error in that code, is kept by `layout="legacy"` alone.

    Args:
        config: the network; its stem has to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each axis.

    Raises:
        ConfigError: the stem is not set.
        GeometryError: the patch does not suit stem and levels.
    """

    def __init__(self, config: UnetrPPConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__()
        grids = token_grids(config, patch)
        stem = tuple(m // 2 ** (len(config.dims) - 1) for m in required_multiple(config))
        dims, levels = config.dims, range(len(config.dims))
        if math.prod(grids[-1]) == 1 and config.norm == "instance":
            raise GeometryError(
                f"The patch {_times(patch)} leaves a single token at the lowest level, and nothing to normalise there: "
                "use a larger patch, fewer levels (network.dims), or network.norm = 'group'."
            )
        self.in_channels, self.patch = in_channels, tuple(patch)
        self.stem = step_down(in_channels, dims[0], stem, groups=math.gcd(in_channels, dims[0]))
        self.down = nn.ModuleList(
            step_down(dims[level - 1], dims[level], (2, 2, 2), groups=dims[level - 1]) for level in levels[1:]
        )
        self.encoder = nn.ModuleList(_blocks(config, level, grids[level], config.proj[level]) for level in levels)
        self.up = nn.ModuleList(_step_up(dims[level + 1], dims[level], (2, 2, 2)) for level in levels[:-1])
        self.decoder = nn.ModuleList(_blocks(config, level, grids[level], config.decoder_proj) for level in levels[:-1])
        self.full_skip = ResidualConv(in_channels, config.feature_size, config.full_norm)
        self.full_up = _step_up(dims[0], config.feature_size, stem)
        self.full_fuse = ResidualConv(config.feature_size, config.feature_size, config.full_norm)
        widths = (config.feature_size, *dims)[: HEADS_WITH_SUPERVISION if config.deep_supervision else 1]
        self.heads = nn.ModuleList(nn.Conv3d(width, classes, 1) for width in widths)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):  # the authors' code starts the encoder's layers so, the decoder's not
                nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, classes, x, y, z), full size first, then at stem size and at half of it if supervised.

        The tuple has the same length in training and in evaluation.

        Args:
            x: patches (B, in_channels, *patch).

        Raises:
            GeometryError: another number of channels or another patch than the network was built for.
        """
        if x.ndim != len(self.patch) + 2 or x.shape[1] != self.in_channels or tuple(x.shape[2:]) != self.patch:
            raise GeometryError(
                f"The network was built for patches of {self.in_channels} channels and {_times(self.patch)} voxels "
                f"and was given a tensor of shape {_times(x.shape)}: give it (batch, {self.in_channels}, "
                f"{', '.join(str(size) for size in self.patch)}), cropped or padded to that."
            )
        skips = [self.encoder[0](self.stem(x))]
        for down, blocks in zip(self.down, self.encoder[1:], strict=True):
            skips.append(blocks(down(skips[-1])))
        features = [skips.pop()]
        for level in reversed(range(len(skips))):
            features.append(self.decoder[level](self.up[level](features[-1]) + skips[level]))
        features.append(self.full_fuse(self.full_up(features[-1]) + self.full_skip(x)))
        return tuple(head(feature) for head, feature in zip(self.heads, reversed(features), strict=False))


def published(
    variant: Literal["synapse", "acdc", "tumor", "lung"],
    *,
    deep_supervision: bool = True,
    in_channels: int | None = None,
) -> UnetrPP:
    """Return a published variant in the layout of its weights, freshly initialised.

    It speaks the axis order of those weights, slices first: (B, c, z, y, x).

    Args:
        variant: "synapse", "acdc", "tumor" or "lung".
        deep_supervision: three outputs in place of one.
        in_channels: another number of input channels than the published one.

    Raises:
        ConfigError: no such variant.
    """
    if variant not in PUBLISHED:
        raise ConfigError(f"There is no published variant {variant!r} of UNETR++{nearest(variant, PUBLISHED)}.")
    config, channels, classes, patch = PUBLISHED[variant]
    config = config.model_copy(update={"deep_supervision": deep_supervision})
    return UnetrPP(config, in_channels=in_channels or channels, classes=classes, patch=patch)


def _blocks(config: UnetrPPConfig, level: int, grid: Sequence[int], slots: int) -> nn.Sequential:
    """Return the row of attention blocks of one level."""
    return nn.Sequential(
        *(PairedAttentionBlock(config.dims[level], grid, slots, config) for _ in range(config.depths[level]))
    )


def _step_up(in_channels: int, out_channels: int, step: Sequence[int]) -> nn.ConvTranspose3d:
    """Return a transposed convolution whose kernel is its stride: each axis is multiplied by `step`."""
    size = (step[0], step[1], step[2])
    return nn.ConvTranspose3d(in_channels, out_channels, size, stride=size, bias=False)


def _times(sizes: Sequence[int]) -> str:
    """Return sizes as they are read aloud: 64x128x128."""
    return "x".join(str(size) for size in sizes)
