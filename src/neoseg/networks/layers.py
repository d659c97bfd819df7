"""The convolutions of a U-shaped network, one by one, from its config alone; no torch here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

from neoseg.networks.configs import AttentionUNetConfig, ConvUNet, LightEncoder, UNetBase, UNetPlusPlusConfig
from neoseg.networks.configs.unets import CONVOLUTIONS, KERNEL

__all__ = ["Conv", "conv_layers"]


class Conv(NamedTuple):
    """One convolution.

    A transposed one, whose kernel is its stride, makes each voxel into as many as the kernel has and is listed as what
    it is: a 1x1x1 convolution to that many times the channels, before they are laid out in space. A depthwise one is
    listed with one channel in, as many as each of its outputs sees. So the sums below hold for all.

    Attributes:
        inputs: channels in.
        outputs: channels out; for a transposed convolution times the voxels of its kernel.
        kernel: voxels of the kernel.
        share: voxels that it computes for each voxel of the patch.
    """

    inputs: int
    outputs: int
    kernel: int
    share: float

    @property
    def weights(self) -> int:
        """Weights without biases."""
        return self.inputs * self.outputs * self.kernel

    @property
    def macs(self) -> float:
        """Multiply-adds for each voxel of the patch."""
        return self.weights * self.share

    @property
    def values(self) -> float:
        """Values that it writes for each voxel of the patch."""
        return self.outputs * self.share


class _Level(NamedTuple):
    """What the convolutions of a level have alike."""

    width: int
    kernel: int
    step: int
    share: float

    def row(self, inputs: int, count: int) -> Iterator[Conv]:
        """Yield a row of convolutions."""
        for number in range(count):
            yield Conv(self.width if number else inputs, self.width, self.kernel, self.share)

    def up_to(self, width: int) -> Conv:
        """Return the transposed convolution from this level to so many channels at the one above."""
        return Conv(self.width, width * self.step, 1, self.share)


def conv_layers(config: ConvUNet, in_channels: int, classes: int) -> list[Conv]:
    """Return all convolutions of a network, those of heads, gates and skips included.

    The two linear layers of a squeeze and excitation are none: they see one mean for each channel.

    Args:
        config: a U-shaped network; its widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.

    Raises:
        ConfigError: widths or strides are not set.
    """
    levels, share = [], 1.0
    for level in config.levels:
        share /= math.prod(level.stride)
        levels.append(_Level(level.width, math.prod(level.kernel), math.prod(level.stride), share))
    if isinstance(config, UNetPlusPlusConfig):
        levels = levels[: config.depth + 1]
    layers = [*_encoder(config, levels, in_channels)]
    if config.skip_attention == "scse":
        layers += [Conv(level.width, 1, 1, level.share) for level in levels[:-1]]
    if isinstance(config, UNetPlusPlusConfig):
        depth = len(levels) - 1
        for i, here in enumerate(levels[:-1]):
            for j in range(1, depth + 1 - i):
                layers += [levels[i + 1].up_to(here.width), *here.row((j + 1) * here.width, CONVOLUTIONS)]
        heads = [levels[0]] * (depth if config.deep_supervision else 1)
    else:
        count = config.convs_up if isinstance(config, UNetBase) else CONVOLUTIONS
        for here, below in pairwise(levels):
            up = config.up_width(here.width) if isinstance(config, UNetBase) else here.width
            layers += [below.up_to(up), *here.row(here.width + up, count)]
            if isinstance(config, AttentionUNetConfig):
                hidden = config.gate_channels(here.width)
                layers += [
                    Conv(here.width, hidden, below.step, below.share),
                    Conv(below.width, hidden, 1, below.share),
                    Conv(hidden, 1, 1, below.share),
                ]
        heads = levels[:-1] if config.deep_supervision else levels[:1]
    return layers + [Conv(level.width, classes, 1, level.share) for level in heads]


def _encoder(config: ConvUNet, levels: list[_Level], in_channels: int) -> Iterator[Conv]:
    """Yield the convolutions on the way down."""
    if config.light is not None:
        yield from _light_encoder(config.light, config.spatial_dims, levels, in_channels)
        return
    residual = isinstance(config, UNetBase) and config.encoder == "residual"
    blocks = config.blocks(len(levels)) if isinstance(config, UNetBase) else (CONVOLUTIONS,) * len(levels)
    width = in_channels
    if residual:
        yield from levels[0].row(width, 1)
        width = levels[0].width
    for level, count in zip(levels, blocks, strict=True):
        yield from level.row(width, 2 * count if residual else count)
        if residual and width != level.width:
            yield Conv(width, level.width, 1, level.share)
        width = level.width


def _light_encoder(light: LightEncoder, axes: int, levels: list[_Level], in_channels: int) -> Iterator[Conv]:
    """Yield the convolutions of a light encoder, those of the full resolution first."""
    yield from levels[0].row(in_channels, CONVOLUTIONS)
    yield Conv(in_channels, light.stem, KERNEL**axes, levels[1].share)
    above = levels[1]
    for level, row in zip(levels[1:], light.rows, strict=False):
        for block in row:
            before = above if block.stride > 1 else level
            if block.expansion > 1:
                yield Conv(block.inputs, block.hidden, 1, before.share)
            yield Conv(1, block.hidden, block.kernel**axes, level.share)
            yield Conv(block.hidden, block.outputs, 1, level.share)
        above = level
