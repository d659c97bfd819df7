"""Paired attention as the paper prints it, without what the authors' code adds."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.normalisation import normalisation
from neoseg.networks.blocks.paired_attention import TokenProjection
from neoseg.networks.blocks.precision import without_autocast
from neoseg.networks.blocks.residual_conv import SLOPE
from neoseg.networks.blocks.token_grid import TokenShape
from neoseg.networks.blocks.tokens import as_tokens, as_volume, conv_of, dropout_of
from neoseg.networks.configs import UnetrPPConfig

__all__ = ["PrintedAttention", "PrintedBlock"]


class PrintedAttention(nn.Module):
    """Efficient paired attention by the equations of the paper (Shaker et al. 2024, section III-B).

    With x of shape (B, N, C), d = C, Q, K shared by both branches, and E, F that project N tokens to p slots:

        spatial  X_s = softmax(Q K_proj^T / sqrt(d)) V_proj      K_proj = E K, V_proj = F V_spatial; map (N, p)
        channel  X_c = V_channel softmax(Q^T K / sqrt(d))        map (C, C), each of its rows sums to 1
        fusion   X_s + X_c

    The paper's figure has the same; the code's norms, temperatures, heads and joined halves are not in it. Q^T K is a
    sum over the N tokens, so on another grid than the one built for it is multiplied by N built for / N.

    Args:
        shape: as for `PairedAttention`.
        config: token_projection, attention_dropout, size, pool_cells and branches are read.
    """

    def __init__(self, shape: TokenShape, config: UnetrPPConfig) -> None:
        super().__init__()
        self.dropout, self.native_tokens = config.attention_dropout, shape.tokens
        channel, spatial = config.branches != "spatial", config.branches != "channel"
        self.images = ("q", "k", *["v"] * channel, *["u"] * spatial)
        self.qkvv = nn.Linear(shape.dim, len(self.images) * shape.dim, bias=False)
        self.projection = TokenProjection(shape, config)
        self.project_matrix: nn.Parameter | None = None
        self.project_keys: nn.Linear | None = None
        self.project_values: nn.Linear | None = None
        if not spatial:
            return
        if config.token_projection == "matrix":
            bound = shape.slots**-0.5
            self.project_matrix = nn.Parameter(torch.empty(self.projection.sources, shape.slots))
            nn.init.uniform_(self.project_matrix, -bound, bound)
        else:
            self.project_keys = nn.Linear(self.projection.sources, shape.slots)
            if config.token_projection == "separate":
                self.project_values = nn.Linear(self.projection.sources, shape.slots)

    def forward(self, x: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """Map tokens (B, N, C) to tokens of the same shape, on a grid of N tokens (None: the one it was built for)."""
        weights = dict(zip(self.images, self.qkvv.weight.chunk(len(self.images)), strict=True))
        branches = []
        if "u" in weights:
            branches.append(self._spatial(x, weights, grid))
        if "v" in weights:
            branches.append(self._channel(x, weights))
        return branches[0] if len(branches) == 1 else branches[0] + branches[1]

    def _spatial(self, x: Tensor, weights: dict[str, Tensor], grid: Sequence[int] | None) -> Tensor:
        share = self.dropout if self.training else 0.0
        sources = self.projection.sources_of(x, grid)
        q, (k, u) = functional.linear(x, weights["q"]), self._slots(sources, weights, grid)
        return functional.scaled_dot_product_attention(
            q[:, None], k[:, None].to(q.dtype), u[:, None].to(q.dtype), dropout_p=share, scale=x.shape[-1] ** -0.5
        )[:, 0]

    def _slots(self, sources: Tensor, weights: dict[str, Tensor], grid: Sequence[int] | None) -> tuple[Tensor, Tensor]:
        """Return E K and F V_spatial, each (B, p, C)."""
        if self.project_matrix is not None:
            (rows,) = self.projection.rows((self.project_matrix.mT,), grid)
            return functional.linear(rows @ sources, weights["k"]), functional.linear(rows @ sources, weights["u"])
        assert self.project_keys is not None
        other = self.project_values or self.project_keys
        rows, more = self.projection.rows((self.project_keys.weight, other.weight), grid)
        keys = functional.linear(rows @ sources, weights["k"]) + self.project_keys.bias[:, None]
        return keys, functional.linear(more @ sources, weights["u"]) + other.bias[:, None]

    def _channel(self, x: Tensor, weights: dict[str, Tensor]) -> Tensor:
        with without_autocast(x.device):
            # A sum over tens of thousands of tokens that no norm keeps small.
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            q, k = weights["q"].to(wide.dtype), weights["k"].to(wide.dtype)
            logits = q @ (wide.mT @ wide) @ k.mT / math.sqrt(x.shape[-1])
            if x.shape[1] != self.native_tokens:
                logits = logits * (self.native_tokens / x.shape[1])
            channel_map = torch.softmax(logits, dim=-1)
        channel_map = functional.dropout(channel_map, self.dropout, self.training)
        return functional.linear(x, weights["v"]) @ channel_map.to(x.dtype)


class PrintedBlock(nn.Module):
    """The block around it: x + Conv1(Conv3(X_s + X_c)).

    Conv3 is a 3x3x3 convolution with normalisation and leaky ReLU, Conv1 a 1x1x1 convolution; the skip is drawn in the
    paper's figure. Tokens are normalised first, which the equations leave out and without which they diverge.

    Args:
        dim: channels C.
        grid: tokens on each axis that the network is built for.
        slots: slots p that tokens are projected to.
        config: the network.
    """

    def __init__(self, dim: int, grid: Sequence[int], slots: int, config: UnetrPPConfig) -> None:
        super().__init__()
        axes = len(grid)
        self.norm = nn.LayerNorm(dim)
        self.attention = PrintedAttention(TokenShape(math.prod(grid), dim, slots, tuple(grid)), config)
        self.conv3 = conv_of(axes)(dim, dim, 3, padding=1, bias=False)
        self.conv_norm = normalisation(config.norm, dim, axes)
        self.dropout = dropout_of(axes)(config.conv_dropout)
        self.conv1 = conv_of(axes)(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        fused = as_volume(self.attention(self.norm(as_tokens(x)), x.shape[2:]), x.shape)
        y = functional.leaky_relu(self.conv_norm(convolve(self.conv3, fused)), SLOPE, inplace=True)
        return x + convolve(self.conv1, self.dropout(y))
