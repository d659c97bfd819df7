"""Residual pairs of convolutions, and the normalisations that they use."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.tokens import batch_norm_of, conv_of

__all__ = ["InstanceNorm", "Norm", "ResidualConv", "group_width", "normalisation"]

Norm = Literal["batch", "instance", "group", "plain_instance"]
SLOPE = 0.01
EPSILON = 1e-5
GROUP_WIDTH = 8


def normalisation(kind: Norm, channels: int, axes: int = 3) -> nn.Module:
    """Return a normalisation of (B, C, x, y, z) with eps 1e-5; "plain_instance" learns no scale and no shift."""
    if kind == "batch":
        return batch_norm_of(axes)(channels)
    if kind == "group":
        return nn.GroupNorm(channels // group_width(channels), channels)
    return InstanceNorm(channels, affine=kind == "instance")


def group_width(channels: int) -> int:
    """Return the channels of a group: 8, or the divisor nearest to 8 of a number of channels that is no multiple of it.

    Of two that are as near it is the smaller one. It is never 1 unless there is one channel: a single voxel at the
    lowest level would leave nothing to normalise.
    """
    divisors = [width for width in range(2, channels + 1) if channels % width == 0] or [1]
    return min(divisors, key=lambda width: abs(width - GROUP_WIDTH))


class InstanceNorm(nn.Module):
    """Bring each channel of each sample to mean 0 and variance 1 over its voxels, in training and evaluation alike.

    Args:
        channels: channels C of (B, C, x, y, z).
        affine: learn a scale and a shift for each channel.
    """

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        if x.is_contiguous():
            return functional.group_norm(x, self.channels, self.weight, self.bias, EPSILON)
        # Batch normalisation of one sample is the same function; with channels-last memory on a CPU it is several times
        # faster than either of torch's own ways to normalise an instance.
        return self._of_one(x) if len(x) == 1 else torch.cat([self._of_one(sample) for sample in x.chunk(len(x))])

    def _of_one(self, sample: Tensor) -> Tensor:
        # Not functional.batch_norm: where several processes share a batch, that one is taken over all of their samples
        # (training.whole_batch), and a sample is no share of a batch here.
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(sample, self.weight, self.bias, None, None, True, 0.0, EPSILON, cudnn)


class ResidualConv(nn.Module):
    """Two 3x3x3 convolutions, each normalised, with leaky ReLU and a residual: (B, in, x, y, z) to (B, out, x, y, z).

    Where the widths differ the residual is carried by a 1x1x1 convolution and its own normalisation.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        norm: the normalisation after each convolution.
        axes: 2 for planes, 3 for volumes.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: Norm, axes: int = 3) -> None:
        super().__init__()
        conv = conv_of(axes)
        self.conv1 = conv(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = normalisation(norm, out_channels, axes)
        self.conv2 = conv(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = normalisation(norm, out_channels, axes)
        self.conv3: nn.Module | None = None
        self.norm3: nn.Module | None = None
        if in_channels != out_channels:
            self.conv3 = conv(in_channels, out_channels, 1, bias=False)
            self.norm3 = normalisation(norm, out_channels, axes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, x, y, z) to (B, out, x, y, z)."""
        residual = x
        if self.conv3 is not None and self.norm3 is not None:
            residual = self.norm3(convolve(self.conv3, x))
        y = functional.leaky_relu(self.norm1(convolve(self.conv1, x)), SLOPE, inplace=True)
        z = self.norm2(convolve(self.conv2, y)).add_(residual)
        return functional.leaky_relu(z, SLOPE, inplace=True)
