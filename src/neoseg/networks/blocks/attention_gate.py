"""The additive attention gate of Oktay et al. (MIDL 2018, arXiv 1804.03999)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.tokens import conv_of

__all__ = ["AttentionGate", "enlarged"]


class AttentionGate(nn.Module):
    """One factor in 0..1 for each voxel of a skip, from the skip x and from the features g of the level below.

    On the grid of the level below the factors are sigmoid(psi relu(W_x x + W_g g + b_g) + b_psi), equations 1 and 2 of
    the paper; W_x brings x to that grid by a convolution whose kernel is its stride, as in the authors' code. Linear
    interpolation makes them as many as x has voxels. What the authors' code has behind the gate and the equations do
    not, a 1x1x1 convolution with batch norm and ReLU, is left out: the convolutions of the decoder follow.

    Args:
        channels: channels of the skip x.
        gating: channels of g.
        hidden: channels inside the gate.
        step: voxels of x along each axis for one of g.
    """

    def __init__(self, channels: int, gating: int, hidden: int, step: Sequence[int]) -> None:
        super().__init__()
        conv, step = conv_of(len(step)), tuple(step)
        self.skip = conv(channels, hidden, step, stride=step, bias=False)
        self.gating = conv(gating, hidden, 1)
        self.psi = conv(hidden, 1, 1)

    def forward(self, x: Tensor, g: Tensor) -> Tensor:
        """Map x (B, channels, x, y, z) and g (B, gating, x / step, ...) to the factors (B, 1, x, y, z)."""
        both = functional.relu(convolve(self.skip, x) + convolve(self.gating, g))
        return enlarged(torch.sigmoid(convolve(self.psi, both)), x.shape[2:])


def enlarged(x: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, x, y, z) at a larger size, linear between the centres of voxels."""
    if tuple(x.shape[2:]) == tuple(size):
        return x
    return functional.interpolate(x, tuple(size), mode="bilinear" if x.ndim == 4 else "trilinear", align_corners=False)
