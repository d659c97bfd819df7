"""What convolutional U-shaped networks share: the encoder, and images of any size."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from neoseg.errors import GeometryError
from neoseg.networks.blocks.any_size import check_channels, check_image, on_padded
from neoseg.networks.blocks.conv_block import ConvBlock, Form, pooled, row_of, row_of_residual
from neoseg.networks.blocks.squeeze_excitation import skip_attention_of
from neoseg.networks.blocks.tokens import conv_of
from neoseg.networks.configs import ConvUNet, UNetBase, check_patch, times
from neoseg.networks.configs.base import lowest_voxels_of
from neoseg.networks.configs.unets import CONVOLUTIONS
from neoseg.networks.light_encoder import InvertedResidualEncoder

__all__ = ["Encoder", "UShaped", "head"]


class Encoder(nn.Module):
    """Features of each level, highest resolution first.

    Args:
        config: the network; a :class:`UNetBase` says how many convolutions or residual blocks a level has.
        in_channels: channels of the input.
        levels: how many levels to build.
    """

    def __init__(self, config: ConvUNet, in_channels: int, levels: int) -> None:
        super().__init__()
        form, residual = Form(config.norm, config.activation), False
        blocks: Sequence[int] = (CONVOLUTIONS,) * levels
        if isinstance(config, UNetBase):
            residual, blocks = config.encoder == "residual", config.blocks(levels)
        rows, stages, width = row_of_residual if residual else row_of, [], in_channels
        self.steps = [level.stride if config.down == "max" else None for level in config.levels[:levels]]
        self.stem: nn.Module = nn.Identity()
        if residual:
            width = config.levels[0].width
            self.stem = ConvBlock(in_channels, width, config.levels[0].kernel, form)
        for level, count in zip(config.levels, blocks, strict=False):
            stride = None if config.down == "max" else level.stride
            stages.append(rows(count, (width, level.width), level.kernel, form, stride=stride, dropout=config.dropout))
            width = level.width
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, in_channels, x, y, z) to one tensor for each level."""
        features, x = [], self.stem(x)
        for stage, step in zip(self.stages, self.steps, strict=True):
            if step is not None and max(step) > 1:
                x = pooled(x, step)
            x = stage(x)
            features.append(x)
        return features


class UShaped(nn.Module, ABC):
    """A convolutional network for images of any size, built from the levels of its config.

    Args:
        config: the network; its widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each of two or three axes that the network is planned for.
        levels: levels of the encoder that are built; None: all.

    Raises:
        ConfigError: widths or strides are not set, or there is no channel or no class.
        GeometryError: the patch is no multiple of the strides, or leaves a single voxel where it cannot be normalised.
    """

    def __init__(
        self,
        config: ConvUNet,
        *,
        in_channels: int,
        classes: int,
        patch: Sequence[int],
        levels: int | None = None,
    ) -> None:
        super().__init__()
        check_channels(in_channels, classes)
        self.levels = config.levels[:levels]
        check_patch(config, patch)
        self.in_channels, self.classes, self.patch = in_channels, classes, tuple(patch)
        self.multiple, self.norm, self.light = config.multiple, config.norm, config.light
        self.lowest = tuple(math.prod(axis) for axis in zip(*(level.stride for level in self.levels), strict=True))
        self.form = Form(config.norm, config.activation)
        self._refuse_a_single_voxel(self.patch)
        self.encoder: nn.Module = (
            InvertedResidualEncoder(config, config.light, in_channels, len(self.levels))
            if config.light is not None
            else Encoder(config, in_channels, len(self.levels))
        )
        self.skips = nn.ModuleList(
            skip_attention_of(config.skip_attention, level.width, len(self.patch)) for level in self.levels[:-1]
        )

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, classes, x, y, z), full size first, the same number in training and in evaluation.

        Sizes that are no multiples of the strides are padded with zeros at the end of each axis; outputs are cut to
        what the input covers.

        Args:
            x: images (B, in_channels, any sizes).

        Raises:
            GeometryError: another number of channels or axes, or a size whose lowest level cannot be normalised.
        """
        return on_padded(self._outputs, self._checked(x), self.multiple)

    @abstractmethod
    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of images whose sizes suit the network."""

    def _encoded(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the features for the decoder of each level but the lowest, and those of the lowest."""
        *features, lowest = cast(list[Tensor], self.encoder(x))
        return [skip(feature) for skip, feature in zip(self.skips, features, strict=True)], lowest

    def _checked(self, x: Tensor) -> Tensor:
        """Return an input that the network was built for.

        Raises:
            GeometryError: it was not.
        """
        check_image(x, self.in_channels, self.patch)
        sizes = [size + -size % m for size, m in zip(x.shape[2:], self.multiple, strict=True)]
        self._refuse_a_single_voxel(sizes, batch=len(x))
        return x

    def _refuse_a_single_voxel(self, patch: Sequence[int], batch: int = 2) -> None:
        """Refuse sizes that leave one voxel at the lowest level where single voxels cannot be normalised."""
        alone = lowest_voxels_of(self.norm, one_a_group=self.levels[-1].width == 1) > 1
        alone = alone or (self.norm == "batch" and self.training and batch == 1)
        if alone and tuple(patch) == self.lowest:
            fewer = "fewer levels (network.widths)" if self.light is None else "network.encoder = 'plain'"
            raise GeometryError(
                f"The patch {times(patch)} leaves a single voxel at the lowest level, and nothing to normalise there: "
                f"use a larger patch, {fewer}, or network.norm = 'group'."
            )


def head(in_channels: int, classes: int, axes: int) -> nn.Module:
    """Return the 1x1x1 convolution that makes classes of features."""
    return conv_of(axes)(in_channels, classes, 1)
