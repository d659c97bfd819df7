"""Residual pairs of convolutions."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.normalisation import Norm, normalisation
from neoseg.networks.blocks.tokens import conv_of

__all__ = ["SLOPE", "ResidualConv"]

SLOPE = 0.01


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
