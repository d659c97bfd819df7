"""Convolutional U-Nets: the U-Net and its wide form, residual and light encoders, UNet++, Attention U-Net."""

from __future__ import annotations

import json
import math
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from neoseg.errors import ConfigError

from .base import MOST_LEVELS, NetworkBase, Norm, Positive, Share, Widths, axes_wanted, lowest_voxels_of
from .light import LIGHT_ENCODERS, LightEncoder, LightName

__all__ = [
    "CONVOLUTIONS",
    "AttentionUNetConfig",
    "ConvUNet",
    "Level",
    "UNetBase",
    "UNetConfig",
    "UNetPlusPlusConfig",
    "WideUNetConfig",
]

Sizes = tuple[Positive, ...]

CONVOLUTIONS = 2
"""Convolutions of a level where its config has no other number."""

KERNEL = 3
"""Size of a convolution along each axis where neither config nor plan say another."""

RESIDUAL_BLOCKS = (1, 3, 4, 6)
"""Residual blocks of the encoder's levels in nnU-Net's residual presets; the last number goes on for ever."""


class Level(NamedTuple):
    """One level of a U-Net.

    Attributes:
        width: its channels.
        stride: what it divides each axis of the level above by; ones for the first level.
        kernel: size of its convolutions along each axis.
    """

    width: int
    stride: tuple[int, ...]
    kernel: tuple[int, ...]


class ConvUNet(NetworkBase, frozen=True, extra="forbid"):
    """What all convolutional U-Nets share.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: one output for each resolution but the lowest, full size first, in place of one.
        widths: channels of each level, highest resolution first. Omitted: the plan doubles from 32 up to 320 (3-D) or
            512 (2-D), and takes narrower ones on a small budget.
        strides: for each level, what it divides each axis by, that of the first level first. Omitted: from the plan, by
            the voxel sizes.
        kernels: for each level, the size of its convolutions along each axis, each odd. Omitted: from the plan where it
            also chooses the strides, else 3.
        norm: normalisation after each convolution, see UNETR++; "none" is the first paper's, with a bias in its place.
        activation: "leaky_relu" with slope 0.01, or "relu".
        down: between levels a convolution with a stride, "stride", or "max" pooling as in the first papers.
        dropout: share of channels dropped after the first convolution or block of each level of encoder and decoder
            while training.
        skip_attention: what encoder features pass on their way to the decoder: "none", "se" (squeeze and excitation: a
            factor for each channel, Hu et al. 2018), or "scse" (a factor for each channel and one for each voxel, Roy
            et al. 2018).
    """

    deep_supervision: bool = True
    widths: Widths | None = None
    strides: tuple[Sizes, ...] | None = None
    kernels: tuple[Sizes, ...] | None = None
    norm: Norm | Literal["none"] = "instance"
    activation: Literal["leaky_relu", "relu"] = "leaky_relu"
    down: Literal["stride", "max"] = "stride"
    dropout: Share = 0.0
    skip_attention: Literal["none", "se", "scse"] = "none"

    @property
    def light(self) -> LightEncoder | None:
        """The published network that is the encoder, where one was chosen."""
        return None

    @property
    def any_size(self) -> bool:
        """Convolutions take any size; odd ones are padded."""
        return True

    @property
    def multiple(self) -> tuple[int, ...]:
        """The product of the strides along each axis.

        Raises:
            ConfigError: there are no strides yet.
        """
        if self.strides is None:
            raise ConfigError(f"network.strides of {self.kind!r} is not set: set it, or let the plan choose it")
        return tuple(math.prod(axis) for axis in zip(*self.strides, strict=True))

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised."""
        return lowest_voxels_of(self.norm, one_a_group=self.widths is not None and self.widths[-1] == 1)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels of the whole network, highest resolution first.

        Raises:
            ConfigError: there are no widths or no strides yet, or widths, strides and kernels differ in number.
        """
        if self.widths is None:
            raise ConfigError(f"network.widths of {self.kind!r} is not set: set it, or let the plan choose it")
        if self.strides is None:
            raise ConfigError(f"network.strides of {self.kind!r} is not set: set it, or let the plan choose it")
        kernels = self.kernels or ((KERNEL,) * self.spatial_dims,) * len(self.widths)
        if not len(self.widths) == len(self.strides) == len(kernels):
            raise ConfigError(
                f"network.widths has {len(self.widths)} entries, strides {len(self.strides)} and kernels "
                f"{len(kernels)}: give one entry for each level"
            )
        return tuple(Level(*level) for level in zip(self.widths, self.strides, kernels, strict=True))

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        """Refuse widths, strides and kernels that do not describe the same levels and axes."""
        for name in ("strides", "kernels"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.widths is not None and len(value) != len(self.widths):
                raise ValueError(
                    f"{name} has {len(value)} entries and widths has {len(self.widths)}: give one entry for each level"
                )
            wrong = [entry for entry in value if len(entry) != self.spatial_dims]
            if wrong:
                raise ValueError(f"{name} holds {list(wrong[0])}: {axes_wanted(len(wrong[0]), self.spatial_dims)}")
        if self.strides is not None and max(self.strides[0]) > 1:
            raise ValueError(
                f"strides begins with {list(self.strides[0])}, but the first level has full resolution: begin with ones"
            )
        if self.kernels is not None and any(size % 2 == 0 for kernel in self.kernels for size in kernel):
            raise ValueError(f"kernels is {[list(k) for k in self.kernels]}, but every size has to be odd")
        return self

    @model_validator(mode="after")
    def _the_light_encoder_decides(self) -> Self:
        """Take over what a light encoder decides, and refuse other values.

        What is taken over does not count as given: it follows the axes of the images when these become known.
        """
        if self.light is None:
            return self
        decided = {
            "widths": self.light.widths,
            "strides": self.light.strides(self.spatial_dims),
            "kernels": None,
            "down": "stride",
        }
        for field, value in decided.items():
            found = getattr(self, field)
            if field in self.model_fields_set and found not in (None, value):
                wanted = "sizes of its own" if value is None else _told(value)
                raise ValueError(
                    f'{field} = {_told(found)}, but encoder = "{self.light.name}" has {wanted}: leave {field} out, or '
                    'use encoder = "plain"'
                )
            object.__setattr__(self, field, value)
        if "norm" not in self.model_fields_set:
            object.__setattr__(self, "norm", "batch")
        return self


class UNetBase(ConvUNet, frozen=True, extra="forbid"):
    """What the forms of the U-Net share.

    Attributes:
        encoder: "plain" convolutions, or "residual" blocks.
        encoder_blocks: convolutions (plain) or residual blocks of each level; omitted: 2 each, or 1, 3, 4, 6, 6, ...
        decoder_blocks: convolutions of each decoder level; omitted: 2, or 1 with a residual encoder.
    """

    encoder: Literal["plain", "residual", LightName] = "plain"
    encoder_blocks: tuple[Positive, ...] | None = None
    decoder_blocks: Positive | None = None

    @property
    def light(self) -> LightEncoder | None:
        """The published network that is the encoder, where one was chosen."""
        return LIGHT_ENCODERS.get(self.encoder)

    @model_validator(mode="after")
    def _blocks_agree(self) -> Self:
        """Refuse numbers of blocks for other levels than there are, and pooling in front of residual blocks."""
        if self.light is not None and self.encoder_blocks is not None:
            raise ValueError(
                f'encoder_blocks = {_told(self.encoder_blocks)}, but encoder = "{self.light.name}" has as many as its '
                'paper says: leave encoder_blocks out, or use encoder = "plain"'
            )
        given = (self.encoder_blocks, self.widths)
        if given[0] is not None and given[1] is not None and len(given[0]) != len(given[1]):
            raise ValueError(
                f"encoder_blocks has {len(given[0])} entries and widths has {len(given[1])}: give one entry for each "
                "level"
            )
        if self.encoder == "residual" and self.down == "max":
            raise ValueError('encoder = "residual" halves by strides: set down = "stride"')
        return self

    def blocks(self, levels: int) -> tuple[int, ...]:
        """Return convolutions, residual blocks or inverted residuals of each encoder level.

        Raises:
            ConfigError: `encoder_blocks` is for another number of levels.
        """
        if self.encoder_blocks is not None:
            if len(self.encoder_blocks) != levels:
                raise ConfigError(
                    f"network.encoder_blocks has {len(self.encoder_blocks)} entries and the network {levels} levels: "
                    "give one entry for each level, or leave it out"
                )
            return self.encoder_blocks
        if self.light is not None:
            return (CONVOLUTIONS, *(len(row) for row in self.light.rows))[:levels]
        if self.encoder == "plain":
            return (CONVOLUTIONS,) * levels
        return tuple(RESIDUAL_BLOCKS[min(level, len(RESIDUAL_BLOCKS) - 1)] for level in range(levels))

    @property
    def convs_up(self) -> int:
        """Convolutions of each decoder level."""
        return self.decoder_blocks or (1 if self.encoder == "residual" else CONVOLUTIONS)

    def up_width(self, width: int) -> int:
        """Return the channels of the transposed convolution to a level of so many."""
        return width


class UNetConfig(UNetBase, frozen=True, extra="forbid"):
    """U-Net (Ronneberger et al., MICCAI 2015; 3-D: Cicek et al., MICCAI 2016), plain or with a residual encoder.

    The defaults are those of nnU-Net (Isensee et al., Nature Methods 18, 2021): strided convolutions on the way down,
    transposed ones on the way up. ``encoder = "residual"`` is its residual form (Isensee et al., MICCAI 2024).

    A light encoder is MobileNetV2 (Sandler et al., CVPR 2018, arXiv:1801.04381) or EfficientNet-B0 to B3 (Tan & Le,
    ICML 2019, arXiv:1905.11946) without the layers behind its last features and without trained weights. Its paper
    decides widths, strides and blocks: five levels below full resolution, each half the size of the one above, so that
    the plan wants patches of multiples of 32. Each decoder level is as wide as the features beside it. The papers
    have nothing at full resolution; two plain convolutions of the image, 16 channels wide, are that level's features.
    `norm` is "batch" there as in the papers unless it is set, then it is that of the whole network; `activation` is
    that of decoder and full resolution, the encoder keeps its own (ReLU6, SiLU).

    Attributes:
        encoder: "plain" convolutions, "residual" blocks, or light ones: "mobilenet_v2", "efficientnet_b0",
            "efficientnet_b1", "efficientnet_b2" or "efficientnet_b3". `widths`, `strides`, `kernels`,
            `encoder_blocks` and `down` then follow from it.
    """

    kind: Literal["unet"] = "unet"


class WideUNetConfig(UNetBase, frozen=True, extra="forbid"):
    """The wide U-Net of the UNet++ papers: the U-Net of 2015 with a tenth more channels, as many parameters as UNet++.

    Attributes:
        widths: channels of each level, highest resolution first. Unless they are set, the plan leaves out levels that
            the images are too small for, and takes a share of the channels on a small budget.
        down: "max" pooling as in that paper, or a convolution with a stride, "stride".
        up_channels: of the transposed convolutions: as many as their "level" has, as in the authors' code (9,282,246
            parameters in 2-D), or as many as those of the "unet", 32 for each 35, which makes the 9.13 M that the
            papers print.
    """

    kind: Literal["wide_unet"] = "wide_unet"
    encoder: Literal["plain", "residual"] = "plain"
    widths: Widths | None = (35, 70, 140, 280, 560)
    down: Literal["stride", "max"] = "max"
    up_channels: Literal["level", "unet"] = "level"

    def up_width(self, width: int) -> int:
        """Return the channels of the transposed convolution to a level of so many."""
        return width if self.up_channels == "level" else max(1, width * 32 // 35)


class UNetPlusPlusConfig(ConvUNet, frozen=True, extra="forbid"):
    """UNet++ (Zhou et al., DLMIA 2018; IEEE TMI 39, 2020): nested decoders joined by dense skips.

    Node (i, j) takes the j nodes before it on level i and node (i + 1, j - 1) from below, equation 1 of the papers.
    With deep supervision each node (0, j) has a head, all at full size, the deepest first.

    Attributes:
        encoder: "plain" convolutions as in the papers, or a light one as of a U-Net: "mobilenet_v2",
            "efficientnet_b0", "efficientnet_b1", "efficientnet_b2" or "efficientnet_b3". `widths`, `strides`,
            `kernels` and `down` then follow from it, and `norm` is "batch" unless it is set.
        down: "max" pooling as in the papers, or a convolution with a stride, "stride".
        heads: what is predicted with deep supervision, and is the first output: "accurate", the mean of the
            probabilities of all heads, followed by the single heads, or "fast", the deepest head alone, followed by the
            others. Training compares every output with the truth, the first with half of all weight, each further one
            with half as much as the one before.
        deep_supervision: one output for each level of decoders, all at full size, and with `heads` "accurate" their
            mean before them, in place of one.
        prune: levels that are built: 4 is the whole network of five levels, 1 only nodes (0, 0), (1, 0) and (0, 1).
            Weights of a whole network fit a pruned one. Patches remain those of the whole network. Omitted: all.
    """

    kind: Literal["unet_plus_plus"] = "unet_plus_plus"
    encoder: Literal["plain", LightName] = "plain"
    down: Literal["stride", "max"] = "max"
    heads: Literal["accurate", "fast"] = "accurate"
    prune: Annotated[int, Field(gt=0, lt=MOST_LEVELS)] | None = None

    @property
    def light(self) -> LightEncoder | None:
        """The published network that is the encoder, where one was chosen."""
        return LIGHT_ENCODERS.get(self.encoder)

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised; a pruned network keeps more, as it ends above it."""
        if self.prune is not None and any(max(stride) > 1 for stride in (self.strides or ())[self.prune + 1 :]):
            return 1
        return super().lowest_voxels

    @property
    def depth(self) -> int:
        """Levels of decoders that are built.

        Raises:
            ConfigError: there are no widths or no strides yet, or fewer levels than `prune` wants.
        """
        whole = len(self.levels) - 1
        if self.prune is not None and self.prune > whole:
            raise ConfigError(
                f"network.prune = {self.prune}, but {whole + 1} widths make {whole} levels of decoders: give fewer, or "
                "leave it out"
            )
        return self.prune or whole

    @model_validator(mode="after")
    def _pruned_levels_exist(self) -> Self:
        """Refuse to prune to more levels than there are."""
        if self.prune is not None and self.widths is not None and self.prune >= len(self.widths):
            raise ValueError(
                f"prune = {self.prune}, but {len(self.widths)} widths make {len(self.widths) - 1} levels of decoders: "
                "give fewer, or leave it out"
            )
        return self


class AttentionUNetConfig(ConvUNet, frozen=True, extra="forbid"):
    """Attention U-Net (Oktay et al., MIDL 2018): additive gates on the skips, opened by what the decoder knows.

    Attributes:
        down: "max" pooling as in the paper, or a convolution with a stride, "stride".
        gate_width: channels inside a gate as a share of those of its skip; the authors' networks have 1.
    """

    kind: Literal["attention_unet"] = "attention_unet"
    down: Literal["stride", "max"] = "max"
    gate_width: float = Field(0.5, gt=0, le=1)

    def gate_channels(self, width: int) -> int:
        """Return the channels inside the gate of a skip of so many channels."""
        return max(round(width * self.gate_width), 1)


def _told(value: object) -> str:
    """Return a value as a configuration file has it."""
    return json.dumps(value)
