"""The block that UNETR++ repeats: paired attention, then residual convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neoseg.networks.blocks.paired_attention import PairedAttention, TokenShape
from neoseg.networks.blocks.residual_conv import ResidualConv
from neoseg.networks.configs import UnetrPPConfig

__all__ = ["PairedAttentionBlock"]


class PairedAttentionBlock(nn.Module):
    """Position, paired attention with a per-channel gain, residual convolutions; no perceptron follows.

    Args:
        dim: channels C.
        grid: tokens on each axis; their product is N.
        slots: slots p that tokens are projected to.
        config: the network; attention, convolutions, dropout, norm and layer_scale_init are read.
    """

    def __init__(self, dim: int, grid: Sequence[int], slots: int, config: UnetrPPConfig) -> None:
        super().__init__()
        tokens = math.prod(grid)
        self.position = nn.Parameter(torch.zeros(1, tokens, dim))
        self.norm = nn.LayerNorm(dim)
        self.gain = nn.Parameter(torch.full((dim,), config.layer_scale_init))
        self.attention = PairedAttention(TokenShape(tokens, dim, slots), config)
        self.convs = nn.Sequential(*(ResidualConv(dim, dim, config.norm) for _ in range(config.conv_blocks)))
        self.dropout = nn.Dropout3d(config.conv_dropout)
        self.mix = nn.Conv3d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        # With channels-last memory these turns between volume and tokens copy nothing.
        tokens = x.flatten(2).transpose(1, 2) + self.position
        tokens = tokens + self.gain * self.attention(self.norm(tokens))
        volume: Tensor = tokens.transpose(1, 2).view(x.shape)
        mixed: Tensor = self.mix(self.dropout(self.convs(volume)))
        return volume + mixed
