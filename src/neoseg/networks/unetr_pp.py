"""UNETR++: a U-shaped network of paired attention and convolutions (Shaker et al., IEEE TMI 2024, arXiv 2212.04497)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from neoseg.errors import ConfigError, GeometryError, nearest
from neoseg.networks.blocks.any_size import check_channels, check_image, on_padded, require_batch
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.blocks.printed_attention import PrintedBlock
from neoseg.networks.blocks.recompute import recomputed
from neoseg.networks.blocks.residual_conv import ResidualConv
from neoseg.networks.blocks.stem import step_down
from neoseg.networks.blocks.tokens import conv_of, step_up_of
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig, check_lowest, required_multiple, times, token_grids
from neoseg.networks.orientation import Turn

__all__ = ["UnetrPP", "published"]

HEADS_WITH_SUPERVISION = 3


class UnetrPP(nn.Module):
    """UNETR++ for patches of one size, or of any size where the config says so.

    The stem makes tokens of voxels; each encoder level is a row of attention blocks; each decoder level doubles the
    resolution, adds the encoder's tokens, and is a row of blocks again. At full resolution there are convolutions only.

    Differences from the paper's text that the authors' code has and this class keeps: a learned temperature in place
    of 1/sqrt(d), positions in every block, per-head channel maps, skips added. The axis order of the spatial branch,
    an error in that code, is kept by `layout="legacy"` alone; `as_printed` has blocks by the paper's equations.

    Args:
        config: the network; its stem has to be set, with the axes of the patch.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each of two or three axes; with size "flex" and "free" those it is built for.

    Raises:
        ConfigError: the stem is not set, or there is no channel or no class.
        GeometryError: the patch does not suit the stem and levels.
    """

    def __init__(self, config: UnetrPPConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__()
        check_channels(in_channels, classes)
        grids = token_grids(config, patch)
        self.config, self.in_channels, self.classes, self.patch = config, in_channels, classes, tuple(patch)
        self.multiple, self.turn = required_multiple(config), Turn(config.native_orientation)
        grids = [self.turn.sizes(grid) for grid in grids]
        dims, levels, axes = config.dims, range(len(config.dims)), len(self.patch)
        stem, half = self.turn.sizes([m // 2 ** (len(dims) - 1) for m in self.multiple]), (2,) * axes
        self._refuse_a_single_token(self.patch)
        self.stem = step_down(in_channels, dims[0], stem, groups=math.gcd(in_channels, dims[0]))
        self.down = nn.ModuleList(
            step_down(dims[level - 1], dims[level], half, groups=dims[level - 1]) for level in levels[1:]
        )
        self.encoder = nn.ModuleList(_blocks(config, level, grids[level], config.proj[level]) for level in levels)
        self.up = nn.ModuleList(_step_up(dims[level + 1], dims[level], half) for level in levels[:-1])
        self.decoder = nn.ModuleList(_blocks(config, level, grids[level], config.decoder_proj) for level in levels[:-1])
        self.full_skip = ResidualConv(in_channels, config.feature_size, config.full_norm, axes)
        self.full_up = _step_up(dims[0], config.feature_size, stem)
        self.full_fuse = ResidualConv(config.feature_size, config.feature_size, config.full_norm, axes)
        widths = (config.feature_size, *dims)[: HEADS_WITH_SUPERVISION if config.deep_supervision else 1]
        self.heads = nn.ModuleList(conv_of(axes)(width, classes, 1) for width in widths)
        for module in self.encoder.modules():
            if isinstance(module, nn.Linear):  # the authors' code starts the encoder's layers so, the decoder's not
                nn.init.trunc_normal_(module.weight, std=0.02, a=-2.0, b=2.0)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, classes, x, y, z), full size first, then at stem size and at half of it if supervised.

        The tuple has the same length in training and in evaluation. Sizes that do not suit stem and levels are, with
        size "flex" and "free", padded with zeros at the end of each axis; outputs are cut to what the input covers.

        Args:
            x: patches (B, in_channels, *patch); with size "flex" and "free" (B, in_channels, any sizes).

        Raises:
            GeometryError: another number of channels or axes, or another patch than the network was built for.
        """
        self._check(x)
        padded = [size + -size % m for size, m in zip(x.shape[2:], self.multiple, strict=True)]
        self._refuse_a_single_token(padded, batch=len(x), given=x.shape[2:])
        return on_padded(self._outputs, x, self.multiple)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of patches whose sizes suit the network."""
        return tuple(self.turn.back(output) for output in self._turned(self.turn.there(x)))

    def _turned(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of patches whose sizes suit the network, in the order of axes of its weights."""
        everything, full_size = self.config.checkpointing == "all", self.config.checkpointing != "none"
        skips = [_through(self.encoder[0], self.stem(x), again=everything)]
        for down, blocks in zip(self.down, self.encoder[1:], strict=True):
            skips.append(_through(blocks, down(skips[-1]), again=everything))
        features = [skips.pop()]
        for level in reversed(range(len(skips))):
            up = self.up[level](features[-1]) + skips[level]
            features.append(_through(self.decoder[level], up, again=everything))
        skip = recomputed(self.full_skip, x) if full_size else self.full_skip(x)
        fused = self.full_up(features[-1]).add_(skip)
        features.append(recomputed(self.full_fuse, fused) if full_size else self.full_fuse(fused))
        return tuple(convolve(head, feature) for head, feature in zip(self.heads, reversed(features), strict=False))

    def _check(self, x: Tensor) -> None:
        """Refuse an input that the network was not built for."""
        require_batch(x)
        if self.config.size != "native":
            check_image(x, self.in_channels, self.patch)
        elif tuple(x.shape[1:]) != (self.in_channels, *self.patch):
            raise GeometryError(
                f"The network was built for patches of {self.in_channels} channels and {times(self.patch)} voxels "
                f"and was given a tensor of shape {times(x.shape)}: give it (batch, {self.in_channels}, "
                f"{', '.join(str(size) for size in self.patch)}), cropped or padded to that."
            )

    def _refuse_a_single_token(self, patch: Sequence[int], batch: int = 2, given: Sequence[int] | None = None) -> None:
        """Refuse sizes that leave one token at the lowest level where single tokens cannot be normalised."""
        alone = self.config.norm == "batch" and self.training and batch == 1
        check_lowest(self.config, patch, 2 if alone else None, given)


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
    preset = PUBLISHED[variant]
    config = preset.config.model_copy(update={"deep_supervision": deep_supervision})
    channels = preset.in_channels if in_channels is None else in_channels
    return UnetrPP(config, in_channels=channels, classes=preset.classes, patch=preset.patch)


def _blocks(config: UnetrPPConfig, level: int, grid: Sequence[int], slots: int) -> nn.Sequential:
    """Return the row of attention blocks of one level."""
    block = PrintedBlock if config.as_printed else PairedAttentionBlock
    return nn.Sequential(*(block(config.dims[level], grid, slots, config) for _ in range(config.depths[level])))


def _through(blocks: nn.Module, x: Tensor, *, again: bool) -> Tensor:
    """Return x after a row of blocks, each of them computed again in the backward pass if wanted."""
    assert isinstance(blocks, nn.Sequential)
    for block in blocks:
        x = recomputed(block, x) if again else block(x)
    return x


def _step_up(in_channels: int, out_channels: int, step: Sequence[int]) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride: each axis is multiplied by `step`."""
    return step_up_of(len(step))(in_channels, out_channels, tuple(step), stride=tuple(step), bias=False)
