"""Networks that MONAI implements: what they ask and allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from neoseg.errors import ConfigError

from .base import NetworkBase, Norm, Positive, Share, lowest_voxels_of
from .unets import ConvUNet

__all__ = ["MEDNEXT_SIZES", "DynUNetConfig", "MedNeXtConfig", "MedNeXtSize", "SegResNetConfig", "SwinUnetrConfig"]

GROUPS = 8
"""Groups of channels that norm "group" makes in MONAI's networks."""

NORMS = ("batch", "instance", "group")
"""Normalisations of a DynUNet."""

CHANNEL_STEP = 12
"""What the channels of a Swin UNETR are a multiple of."""

Blocks = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=8)]


class SegResNetConfig(NetworkBase, frozen=True, extra="forbid"):
    """SegResNet (Myronenko, BrainLes 2018, arXiv 1810.11654) without its autoencoder branch, by MONAI.

    The defaults are the paper's. Each level halves every axis and doubles the channels.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: has to be false: the network has one output.
        width: channels at full resolution.
        blocks_down: residual blocks of each encoder level, full resolution first.
        blocks_up: residual blocks of each decoder level, the lowest first; one entry fewer than `blocks_down`.
        norm: "group" of eight groups, as published; "instance" or "batch".
        dropout: share of channels dropped after the first convolution while training.
        upsample: "linear" interpolation, as published, or transposed convolutions, "deconv". On a GPU the gradient of
            the first adds up in no fixed order.
    """

    kind: Literal["segresnet"] = "segresnet"
    deep_supervision: bool = False
    width: Positive = 32
    blocks_down: Blocks = (1, 2, 2, 4)
    blocks_up: tuple[Positive, ...] = (1, 1, 1)
    norm: Norm = "group"
    dropout: Share = 0.2
    upsample: Literal["linear", "deconv"] = "linear"

    @property
    def any_size(self) -> bool:
        """Convolutions take any size; odd ones are padded."""
        return True

    @property
    def multiple(self) -> tuple[int, ...]:
        """Two for each level below the first."""
        return (2 ** (len(self.blocks_down) - 1),) * self.spatial_dims

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised."""
        return lowest_voxels_of(self.norm)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Refuse numbers of blocks for other levels than there are, and what MONAI has no place for."""
        if len(self.blocks_up) != len(self.blocks_down) - 1:
            raise ValueError(
                f"blocks_up has {len(self.blocks_up)} entries and blocks_down has {len(self.blocks_down)}: give "
                f"blocks_up {len(self.blocks_down) - 1}"
            )
        if self.norm == "group":
            _check_groups("width", (self.width,))
        if self.deep_supervision:
            raise ValueError("deep_supervision = true, but a SegResNet has one output: set it to false")
        return self


class DynUNetConfig(ConvUNet, frozen=True, extra="forbid"):
    """DynUNet, MONAI's form of nnU-Net's network, with plain or residual convolutions in its encoder.

    With deep supervision each decoder level has an output, full size first.

    Attributes:
        norm: normalisation after each convolution: "instance" (affine), "batch", or "group" (eight groups).
        dropout: share of values dropped after every convolution while training; those that make the classes included.
        skip_attention: has to be "none": the network has no place for it.
        down: has to be "stride".
        residual: residual blocks on the way down in place of plain pairs of convolutions.
    """

    kind: Literal["dynunet"] = "dynunet"
    residual: bool = False

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised."""
        return lowest_voxels_of(self.norm, one_a_group=self.widths is not None and self.widths[-1] == GROUPS)

    @model_validator(mode="after")
    def _monai_can_build_it(self) -> Self:
        """Refuse what MONAI has no place for."""
        for name, only in (("skip_attention", "none"), ("down", "stride")):
            if getattr(self, name, only) != only:
                raise ValueError(
                    f'{name} = "{getattr(self, name)}", but a DynUNet has no such part: leave it out, or use '
                    'kind = "unet"'
                )
        if self.norm not in NORMS:
            raise ValueError(f'norm = "{self.norm}", but a DynUNet has one of {", ".join(NORMS)}: choose one')
        for name in ("widths", "strides", "kernels"):
            value = getattr(self, name)
            if value is not None and len(value) < 3:
                raise ValueError(f"{name} has {len(value)} entries, but a DynUNet has 3 levels or more: give 3")
        if self.norm == "group" and self.widths is not None:
            _check_groups("widths", self.widths)
        if self.residual and any(step > 2 for stride in self.strides or () for step in stride):
            raise ValueError(
                "strides holds a step of 3 or more, but residual blocks have a shortcut of one voxel, which takes "
                "steps of 1 and 2: use these, or leave out residual"
            )
        kernels = self.kernels or ((3,) * self.spatial_dims,) * len(self.strides or ())
        for kernel, stride in zip(kernels, self.strides or (), strict=False):
            if any(step > size + 1 for size, step in zip(kernel, stride, strict=True)):
                raise ValueError(
                    f"strides holds {list(stride)} where kernels holds {list(kernel)}, but a stride may be at most the "
                    "kernel plus 1"
                )
        return self

    @property
    def widths_strides_kernels(
        self,
    ) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]:
        """Widths, strides and kernels of the levels.

        Raises:
            ConfigError: as `levels`, or there are fewer than three.
        """
        levels = self.levels
        if len(levels) < 3:
            raise ConfigError(f"network.widths of {self.kind!r} has {len(levels)} entries: give 3 or more")
        return tuple(n for n, _, _ in levels), tuple(n for _, n, _ in levels), tuple(n for _, _, n in levels)


class MedNeXtSize(NamedTuple):
    """One published MedNeXt: blocks and expansions of its levels from the full resolution down and up again."""

    blocks: tuple[int, ...]
    expansions: tuple[int, ...]


MEDNEXT_SIZES: Mapping[str, MedNeXtSize] = MappingProxyType(
    {
        "S": MedNeXtSize((2,) * 9, (2,) * 9),
        "B": MedNeXtSize((2,) * 9, (2, 3, 4, 4, 4, 4, 4, 3, 2)),
        "M": MedNeXtSize((3, 4, 4, 4, 4, 4, 4, 4, 3), (2, 3, 4, 4, 4, 4, 4, 3, 2)),
        "L": MedNeXtSize((3, 4, 8, 8, 8, 8, 8, 4, 3), (3, 4, 8, 8, 8, 8, 8, 4, 3)),
    }
)
"""The four networks of the paper's table 1; the middle entry is the lowest level."""


class MedNeXtConfig(NetworkBase, frozen=True, extra="forbid"):
    """MedNeXt (Roy et al., MICCAI 2023, arXiv 2303.09975): a U-Net of ConvNeXt blocks, by MONAI.

    Each of four levels halves every axis and doubles the channels.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: five outputs, one for each resolution, full size first, in place of one.
        size: the paper's "S", "B", "M" or "L", with 5.6, 10.5, 17.5 and 61.7 million parameters (kernel 3).
        kernel: voxels of the depthwise convolutions along each axis.
        width: channels at full resolution; 32 is published.
    """

    kind: Literal["mednext"] = "mednext"
    size: Literal["S", "B", "M", "L"] = "S"
    kernel: Literal[3, 5] = 3
    width: Annotated[int, Field(gt=0)] = 32

    @property
    def any_size(self) -> bool:
        """Convolutions take any size; odd ones are padded."""
        return True

    @property
    def multiple(self) -> tuple[int, ...]:
        """Two for each of four levels below the first."""
        return (16,) * self.spatial_dims

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised."""
        return 2


class SwinUnetrConfig(NetworkBase, frozen=True, extra="forbid"):
    """Swin UNETR (Hatamizadeh et al., BrainLes 2021, arXiv 2201.01266), by MONAI: attention in windows, then a U-Net.

    The encoder makes a token of each 2 voxels an axis and halves the grid four times; its attention stays within
    windows, which are shifted by half in every second block. The defaults are the paper's. Where an axis of the grid
    is not longer than a window, the window is cut to it and reads other entries of its table of positions, as MONAI's
    does; so windows of the size of the training's patch are what it knows.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: has to be false: the network has one output.
        feature_size: channels at full resolution and of the first tokens, a multiple of 12; 2, 4, 8 and 16 times as
            many at the lower ones.
        depths: blocks of attention on each of the four grids of tokens, the finest first.
        heads: attention heads on each grid; each divides the channels there.
        window: tokens of a window along each axis, 2 to 16.
        norm: normalisation of the convolutions. "plain_instance" (no scale, no shift) is published; "instance"
            (affine), "batch", or "group" of eight groups, for which `feature_size` has to be a multiple of 24.
        dropout: share of values dropped in tokens, projections and perceptrons while training.
        attention_dropout: share of the attention's weights dropped while training.
        drop_path: share of images that skip the last block while training; it rises from 0 at the first one.
        checkpointing: what is computed again in the backward pass in place of being kept, which saves memory and
            costs time: "none", the convolutions at "full_size", or "all" of those, the blocks of attention and the
            lower convolutions. Results are the same.
    """

    kind: Literal["swin_unetr"] = "swin_unetr"
    deep_supervision: bool = False
    feature_size: Positive = 48
    depths: tuple[Positive, Positive, Positive, Positive] = (2, 2, 2, 2)
    heads: tuple[Positive, Positive, Positive, Positive] = (3, 6, 12, 24)
    window: Annotated[int, Field(ge=2, le=16)] = 7
    norm: Literal["batch", "instance", "group", "plain_instance"] = "plain_instance"
    dropout: Share = 0.0
    attention_dropout: Share = 0.0
    drop_path: Share = 0.0
    checkpointing: Literal["none", "full_size", "all"] = "none"

    @property
    def any_size(self) -> bool:
        """Windows are padded, so any size goes in."""
        return True

    @property
    def multiple(self) -> tuple[int, ...]:
        """Two for the tokens, and two for each of the four times that their grid is halved."""
        return (32,) * self.spatial_dims

    @property
    def lowest_voxels(self) -> int:
        """A single voxel has no spread that could be normalised."""
        return lowest_voxels_of(self.norm)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels on each of the four grids of tokens, the finest first."""
        return tuple(self.feature_size * 2**level for level in range(len(self.depths)))

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Refuse widths and heads that MONAI cannot build, and outputs that there are not."""
        if self.feature_size % CHANNEL_STEP:
            raise ValueError(
                f"feature_size = {self.feature_size}, but it has to be a multiple of {CHANNEL_STEP}: use "
                f"{max(round(self.feature_size / CHANNEL_STEP), 1) * CHANNEL_STEP}"
            )
        for width, heads in zip(self.widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(
                    f"heads holds {heads} where there are {width} channels: each number of heads has to divide "
                    f"{', '.join(map(str, self.widths))}, in this order"
                )
        if self.norm == "group":
            _check_groups("feature_size", (self.feature_size,))
        if self.deep_supervision:
            raise ValueError("deep_supervision = true, but a Swin UNETR has one output: set it to false")
        return self


def _check_groups(name: str, widths: tuple[int, ...]) -> None:
    """Refuse channels that do not come in eight groups.

    Raises:
        ValueError: a width is no multiple of 8.
    """
    for width in widths:
        if width % GROUPS:
            raise ValueError(
                f'{name} holds {width}, but norm = "group" makes {GROUPS} groups: use a multiple of {GROUPS}'
            )
