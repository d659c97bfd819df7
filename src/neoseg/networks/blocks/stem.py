"""Steps between resolutions: the stem that makes tokens of voxels, and the halving between levels."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from neoseg.networks.blocks.normalisation import GroupNorm
from neoseg.networks.blocks.tokens import conv_of

__all__ = ["step_down"]


def step_down(in_channels: int, out_channels: int, step: Sequence[int], *, groups: int) -> nn.Sequential:
    """Return a convolution whose kernel is its stride, then group normalisation: each axis is divided by `step`.

    Args:
        in_channels: channels in.
        out_channels: channels out; a multiple of `groups`.
        step: voxels that become one, on each axis.
        groups: groups of the normalisation; the published networks use the number of channels in.
    """
    size = tuple(step)
    conv = conv_of(len(size))(in_channels, out_channels, size, stride=size, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=GroupNorm(groups, out_channels)))
