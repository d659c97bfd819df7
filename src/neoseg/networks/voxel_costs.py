"""What UNETR and the networks of MONAI cost a voxel of the patch, from their configs alone; no torch here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from neoseg.errors import ConfigError
from neoseg.networks.configs import (
    MEDNEXT_SIZES,
    DynUNetConfig,
    MedNeXtConfig,
    NetworkBase,
    SegResNetConfig,
    SwinUnetrConfig,
    UnetrConfig,
    step_sizes,
)

__all__ = ["macs_a_voxel", "values_a_voxel"]

CLASSES = 2
"""Classes that outputs are counted for; they are a small part of every network."""

TOKENS = 216
"""Tokens of the published UNETR's patch of 96 x 96 x 96 voxels."""

SIDE = 64
"""Voxels along each axis of the patch that a Swin UNETR is counted in. Smaller grids fill windows worse: against this
patch the published one of 96 costs a voxel 2 % less arithmetic and 13 % less memory, one of 64 x 32 x 32 2 % and 15 %
more."""


class _Cost(NamedTuple):
    """Multiply-adds of a forward pass and values kept for the backward pass, both of each voxel of the patch."""

    macs: float
    values: float

    def __add__(self, other: _Cost) -> _Cost:  # type: ignore[override]  # costs add up, they are not joined
        return _Cost(self.macs + other.macs, self.values + other.values)

    def at(self, share: float) -> _Cost:
        """Return the cost where there are `share` cells for each voxel of the patch."""
        return _Cost(self.macs * share, self.values * share)


def macs_a_voxel(config: NetworkBase, in_channels: int, patch: Sequence[int] | None = None) -> float:
    """Return multiply-adds of a forward pass of one patch, divided by its voxels.

    Counted are convolutions, linear layers and attention, as torch's own counter does. What a MedNeXt saves by
    up-convolutions that are a voxel shorter than twice their input is left in, some percent of small patches.

    Args:
        config: a UNETR, SegResNet, DynUNet, MedNeXt or Swin UNETR, with what the plan has to fill.
        in_channels: channels of the input.
        patch: its voxels on each axis. The attention of a UNETR grows faster than the patch, and that of a Swin UNETR
            by whole windows. None counts the first as in its published patch, the second in one of 64 voxels an axis.

    Raises:
        ConfigError: a field that the plan has to fill is empty, or the network is another one.
    """
    return _cost(config, in_channels, patch).macs


def values_a_voxel(config: NetworkBase, patch: Sequence[int] | None = None) -> float:
    """Return the values that a training step of one patch keeps for the backward pass, divided by its voxels.

    Counted are the inputs of convolutions and linear layers, of normalisations and of activations, each tensor once.
    In float32 a value takes four bytes. Of what checkpointing computes again the largest part is counted.

    Args:
        config: as above.
        patch: as above.

    Raises:
        ConfigError: a field that the plan has to fill is empty, or the network is another one.
    """
    return _cost(config, 1, patch).values


def _cost(config: NetworkBase, in_channels: int, patch: Sequence[int] | None) -> _Cost:
    match config:
        case UnetrConfig():
            tokens = TOKENS if patch is None else math.prod(patch) // math.prod(config.multiple)
            return _unetr(config, in_channels, tokens)
        case SegResNetConfig():
            return _segresnet(config, in_channels)
        case DynUNetConfig():
            return _dynunet(config, in_channels)
        case MedNeXtConfig():
            return _mednext(config, in_channels)
        case SwinUnetrConfig():
            return _swin_unetr(config, in_channels, patch or (SIDE,) * config.spatial_dims)
        case _:
            raise ConfigError(
                f"There is no table of costs for network {config.kind!r}: give one of MONAI's or a UNETR."
            )


def _pair(kernel: int, before: int, width: int, *, residual: bool) -> _Cost:
    """Return two convolutions, each with norm and activation; what goes in is not counted as kept.

    Kept are what comes out of each convolution and of each activation, and of the convolution of a residual.
    """
    carried = residual and before != width
    return _Cost(kernel * (before + width) * width + carried * before * width, (4 + carried) * width)


def _with_part_again(total: _Cost, again: Sequence[float]) -> _Cost:
    """Return a cost without the values that are computed again, but for those of the largest part, as one is at a time.

    Args:
        total: of the whole network.
        again: values of each part that is computed again, without those that go into it or that others keep.
    """
    return _Cost(total.macs, total.values - sum(again) + max(again, default=0.0))


def _unetr(config: UnetrConfig, in_channels: int, tokens: int) -> _Cost:
    hidden, mlp, f, kernel = config.hidden, config.mlp, config.feature_size, 3**config.spatial_dims
    steps = [math.prod(step) for step in step_sizes(config.multiple)]
    # cells of each grid for a voxel of the patch: tokens first, the full size last
    shares = [1 / math.prod(steps[stage:]) for stage in range(len(steps) + 1)]
    layer = _Cost(4 * hidden**2 + 2 * hidden * mlp + 2 * tokens * hidden, 8 * hidden + 2 * mlp)
    total = _Cost(in_channels * hidden, 0) + layer.at(shares[0] * config.layers) + _Cost(0, 2 * hidden).at(shares[0])
    everything, full_size = config.checkpointing == "all", config.checkpointing != "none"
    again = [(layer.values - hidden) * shares[0]] * config.layers * everything
    before = hidden
    for stage, width in enumerate((8 * f, 4 * f, 2 * f, f), start=1):
        share, last = shares[stage], stage == len(steps)
        if last:
            row = _pair(kernel, in_channels, width, residual=True)
        else:
            row = _Cost(hidden * width, 0 if stage == 1 else width).at(shares[1])
            for higher in shares[2 : stage + 1]:
                row += (_Cost(width * width, width) + _pair(kernel, width, width, residual=True)).at(higher)
        fuse = _pair(kernel, 2 * width, width, residual=True).at(share)
        total += row + _Cost(before * width, 2 * width).at(share) + fuse
        if everything or (full_size and last):
            # what comes out of the first goes into a copy, that of the second into the next convolution, which keeps it
            again += [row.values, fuse.values - width * share]
        if config.deep_supervision or last:
            total += _Cost(width * CLASSES, 0).at(share)
        before = width
    return _with_part_again(total, again)


def _segresnet(config: SegResNetConfig, in_channels: int) -> _Cost:
    axes, top = config.spatial_dims, len(config.blocks_down) - 1
    kernel, shares = 3**axes, [1 / 2 ** (axes * level) for level in range(len(config.blocks_down))]
    widths = [config.width * 2**level for level in range(len(shares))]
    total = _Cost(kernel * in_channels * config.width + config.width * CLASSES, config.width)
    for level, (blocks, width, share) in enumerate(zip(config.blocks_down, widths, shares, strict=True)):
        block = _Cost(2 * kernel * width**2, 4 * width)
        total += (block.at(blocks) + _Cost(kernel * width * (width // 2) * (level > 0), width)).at(share)
    for level, blocks in zip(range(top - 1, -1, -1), config.blocks_up, strict=True):
        width = widths[level]
        block = _Cost(2 * kernel * width**2, 4 * width)
        total += (block.at(blocks) + _Cost(0, width)).at(shares[level])
        total += _Cost(widths[level + 1] * width, 0).at(shares[level + 1])
        if config.upsample == "deconv":
            total += _Cost(2**axes * width**2, width).at(shares[level + 1])
    return total


def _dynunet(config: DynUNetConfig, in_channels: int) -> _Cost:
    widths, strides, kernels = config.widths_strides_kernels
    shares = [1 / n for n in itertools.accumulate((math.prod(stride) for stride in strides), lambda a, b: a * b)]
    total, before = _Cost(widths[0] * CLASSES, 0), in_channels
    for width, stride, kernel, share in zip(widths, strides, kernels, shares, strict=True):
        size = math.prod(kernel)
        total += _pair(size, before, width, residual=False).at(share)
        if config.residual and (before != width or math.prod(stride) > 1):
            total += _Cost(before * width, width).at(share)
        before = width
    for level in range(len(widths) - 2, -1, -1):
        width, size = widths[level], math.prod(kernels[level + 1])
        up = _Cost(widths[level + 1] * width, 2 * width) + _pair(size, 2 * width, width, residual=False)
        total += up.at(shares[level])
        if level and config.deep_supervision:
            total += _Cost(width * CLASSES, 0).at(shares[level])
    return total


def _mednext(config: MedNeXtConfig, in_channels: int) -> _Cost:
    axes, kernel = config.spatial_dims, config.kernel**config.spatial_dims
    blocks, expansions = MEDNEXT_SIZES[config.size]
    top = len(blocks) // 2
    total = _Cost(config.width * (in_channels + CLASSES), config.width)
    for place, (count, factor) in enumerate(zip(blocks, expansions, strict=True)):
        level = top - abs(top - place)
        width, share, lower = config.width * 2**level, 2.0 ** -(axes * level), 2.0 ** -(axes * (level + 1))
        total += _Cost(kernel * width + 2 * factor * width**2, (3 + 2 * factor) * width).at(count * share)
        if place < top:  # down to the next level: depthwise, wider, narrower, and the strided residual
            down = kernel * width + factor * width * 3 * width + 2 * width**2
            total += _Cost(down, (2 + 2 * factor) * width).at(lower) + _Cost(0, width).at(share)
        elif place > top:  # up from the level below, whose channels are expanded at the higher resolution
            below = 2 * width
            up = factor * below * (below + width)
            total += _Cost(up, (2 + 2 * factor) * below).at(share)
            total += _Cost(kernel * below + below * width, below).at(lower)
            if config.deep_supervision:
                total += _Cost(below * CLASSES, 0).at(lower)
    return total


def _swin_unetr(config: SwinUnetrConfig, in_channels: int, patch: Sequence[int]) -> _Cost:
    axes, f = config.spatial_dims, config.feature_size
    kernel, halved = 3**axes, 2**axes
    # cells of each grid for a voxel of the patch: the full size first, then the tokens, then the lowest
    shares = [1 / halved**level for level in range(len(config.depths) + 2)]
    total = _Cost(in_channels * f, 0)
    everything, full_size = config.checkpointing == "all", config.checkpointing != "none"
    again: list[float] = []
    for level, (width, heads, depth) in enumerate(zip(config.widths, config.heads, config.depths, strict=True)):
        grid = [size / 2 ** (level + 1) for size in patch]
        window = [min(config.window, math.ceil(size)) for size in grid]
        seen = math.prod(window)
        padded = math.prod(math.ceil(size / side) * side / size for size, side in zip(grid, window, strict=True))
        attention = _Cost(4 * width**2 + 2 * seen * width, 5 * width + heads * seen).at(padded)
        perceptron = _Cost(8 * width**2, 12 * width)
        merging = _Cost(2 * width * width, 2 * width)
        total += ((attention + perceptron).at(depth) + merging).at(shares[level + 1])
        if everything:
            again += [(part.values - width) * shares[level + 1] for part in (attention, perceptron)] * depth
    # as tokens leave the encoder they are normalised once more
    for level, width in enumerate((f, *config.widths, 2 * config.widths[-1])):
        before = in_channels if level == 0 else width
        if level != len(config.depths):
            pair = _pair(kernel, before, width, residual=True).at(shares[level])
            total += pair
            passed_on = width * shares[level] if level > len(config.depths) else 0.0
            again += [pair.values - passed_on] * (everything or (full_size and level == 0))
        if level:
            total += _Cost(0, 2 * width).at(shares[level])
    before = 2 * config.widths[-1]
    for level, width in zip(range(len(config.depths), -1, -1), (*config.widths[::-1], f), strict=True):
        pair = _pair(kernel, 2 * width, width, residual=True).at(shares[level])
        total += _Cost(before * width, 2 * width).at(shares[level]) + pair
        again += [pair.values - width * shares[level]] * (everything or (full_size and level == 0))
        before = width
    return _with_part_again(total + _Cost(f * CLASSES, 0), again)
