"""The block that UNETR++ repeats: paired attention, then residual convolutions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.paired_attention import PairedAttention, TokenShape
from neoseg.networks.blocks.residual_conv import ResidualConv
from neoseg.networks.blocks.token_grid import GridCache, resize_table
from neoseg.networks.blocks.tokens import as_tokens, as_volume, conv_of, dropout_of
from neoseg.networks.configs import UnetrPPConfig

__all__ = ["PairedAttentionBlock"]


class PairedAttentionBlock(nn.Module):
    """Position, paired attention with a per-channel gain, residual convolutions; no perceptron follows.

    Args:
        dim: channels C.
        grid: tokens on each axis that the network is built for; their product is N.
        slots: slots p that tokens are projected to.
        config: the network; attention, convolutions, dropout, norm, size and layer_scale_init are read.
    """

    def __init__(self, dim: int, grid: Sequence[int], slots: int, config: UnetrPPConfig) -> None:
        super().__init__()
        tokens, axes = math.prod(grid), len(grid)
        self.size, self.grid, self.cache = config.size, tuple(grid), GridCache()
        self.position_conv: nn.Module | None = None
        self.position: nn.Parameter | None = None
        if config.size == "free":
            # Zero padding tells a convolution where the edges are; it starts at nothing, as the tables do.
            self.position_conv = conv_of(axes)(dim, dim, 3, padding=1, groups=dim, bias=False)
            nn.init.zeros_(self.position_conv.weight)  # type: ignore[arg-type]
        else:
            self.position = nn.Parameter(torch.zeros(1, tokens, dim))
        self.norm = nn.LayerNorm(dim)
        self.gain = nn.Parameter(torch.full((dim,), config.layer_scale_init))
        self.attention = PairedAttention(TokenShape(tokens, dim, slots, self.grid), config)
        self.convs = nn.Sequential(*(ResidualConv(dim, dim, config.norm, axes) for _ in range(config.conv_blocks)))
        self.dropout = dropout_of(axes)(config.conv_dropout)
        self.mix = conv_of(axes)(dim, dim, 1)

    def train(self, mode: bool = True) -> Self:
        """Change between training and evaluation, and forget what was resized: the parameters may be others now."""
        self.cache.clear()
        self.attention.projection.cache.clear()
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        grid = tuple(x.shape[2:])
        if self.position_conv is not None:
            tokens = as_tokens(x + self.position_conv(x))
        else:
            tokens = as_tokens(x) + self._position(grid)
        tokens = tokens + self.gain * self.attention(self.norm(tokens), grid)
        volume = as_volume(tokens, x.shape)
        mixed = convolve(self.mix, self.dropout(self.convs(volume)))
        return volume + mixed

    def _position(self, grid: tuple[int, ...]) -> Tensor:
        """Return the table (1, N, C) for the grid at hand."""
        table = self.position
        assert table is not None
        if self.size != "flex" or grid == self.grid:
            return table
        (resized,) = self.cache.get(grid, (table,), lambda: (resize_table(table, self.grid, grid),))
        return resized
