"""Efficient paired attention: over channels and over projected tokens, from one set of queries and keys."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.precision import without_autocast
from neoseg.networks.blocks.token_grid import GridCache, TokenShape, pool_tokens, resize_rows
from neoseg.networks.configs import UnetrPPConfig

__all__ = ["PairedAttention", "TokenProjection", "TokenShape"]

SMALLEST_NORM = 1e-12


class PairedAttention(nn.Module):
    """Efficient paired attention of UNETR++ (Shaker et al. 2024, section III-B), as the authors' code computes it.

    With x of shape (B, N, C), heads h of width d = C/h, and q, k, v, u four linear images of x:

        q^ , k^  = q, k divided by their L2 norm over the N tokens, each channel on its own
        channel  = softmax(q^T k^ * t1) v                  maps of shape (d, d)
        spatial  = softmax(q^ (E k) * t2) (F u)            maps of shape (N, p); E, F project N tokens to p slots

    t1, t2 are learned per head and take the place of the paper's 1/sqrt(d). Four exact rearrangements save time
    and memory: E k = (E x) W_k, so u is never formed over N; the norm of q is moved onto the p keys; the channel
    maps are multiplied into the weights, so v is never formed over N; and q^T k = W_q^T (x^T x) W_k, from whose
    diagonals the norms follow, so k is never formed over N either.

    Another number of tokens than the network was built for changes the size of q^, which is about 1/sqrt(N). With
    size "flex" the spatial logits are multiplied by sqrt(N / N built for), and with "free" by sqrt(N / d), so that they
    keep their size.

    Args:
        shape: number of tokens, their width C, the number of slots p, and the grid (needed by "flex" and "free").
        config: heads, token_projection, fusion, layout, attention_dropout, size, pool_cells, branches and
            shared_queries_keys are read.
    """

    def __init__(self, shape: TokenShape, config: UnetrPPConfig) -> None:
        super().__init__()
        self.heads, self.legacy, self.dropout = config.heads, config.layout == "legacy", config.attention_dropout
        self.size, self.native_tokens = config.size, shape.tokens
        channel, spatial = config.branches != "spatial", config.branches != "channel"
        images = ["q", "k", *["v"] * channel, *["u"] * spatial]
        if not config.shared_queries_keys:
            images += ["q_spatial", "k_spatial"]
        self.images = tuple(images)
        if channel:
            self.temperature_channel = nn.Parameter(torch.ones(config.heads, 1, 1))
        if spatial:
            self.temperature_spatial = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.qkvv = nn.Linear(shape.dim, len(self.images) * shape.dim, bias=False)
        self.project_matrix: nn.Parameter | None = None
        self.project_keys: nn.Linear | None = None
        self.project_values: nn.Linear | None = None
        self.projection = TokenProjection(shape, config)
        if spatial:
            sources = self.projection.sources
            if config.token_projection == "matrix":
                bound = shape.slots**-0.5
                self.project_matrix = nn.Parameter(torch.empty(sources, shape.slots).uniform_(-bound, bound))
            else:
                self.project_keys = nn.Linear(sources, shape.slots)
                if config.token_projection == "separate":
                    self.project_values = nn.Linear(sources, shape.slots)
        self.out_spatial: nn.Linear | None = None
        self.out_channel: nn.Linear | None = None
        if config.fusion == "concat":
            width = shape.dim // 2 if config.branches == "both" else shape.dim
            self.out_spatial = nn.Linear(shape.dim, width) if spatial else None
            self.out_channel = nn.Linear(shape.dim, width) if channel else None

    def forward(self, x: Tensor, grid: Sequence[int] | None = None) -> Tensor:
        """Map tokens (B, N, C) to tokens of the same shape.

        Args:
            x: tokens, the last axis of their grid running fastest.
            grid: the grid of N tokens; None is the one that the attention was built for.
        """
        weights = dict(zip(self.images, self.qkvv.weight.chunk(len(self.images)), strict=True))
        with without_autocast(x.device):
            # Sums over tens of thousands of tokens, and norms that may be zero, need float32 (or float64) throughout.
            wide = x.to(torch.promote_types(x.dtype, torch.float32))
            gram = wide.mT @ wide
        spatial = self._spatial(x, weights, gram, grid) if "u" in weights else None
        channel = self._channel_weight(weights, gram, x.shape[-1]) if "v" in weights else None
        return self._fuse(x, channel, spatial)

    def _channel_weight(self, weights: dict[str, Tensor], gram: Tensor, dim: int) -> Tensor:
        """Return the weights (B, C, C) that map tokens to what the channel maps make of their values."""
        with without_autocast(gram.device):
            q, k = (self._rows(weights[name], gram.dtype) for name in ("q", "k"))
            shared = gram[:, None]
            cosines = (q @ shared @ k.mT) * _inverse_norm(q, shared) * _inverse_norm(k, shared).mT
            channel_map = torch.softmax(cosines * self.temperature_channel, dim=-1)
        channel_map = functional.dropout(channel_map, self.dropout, self.training)
        values = self._rows(weights["v"], weights["v"].dtype)
        return (channel_map.to(values.dtype) @ values).flatten(1, 2)

    def _spatial(self, x: Tensor, weights: dict[str, Tensor], gram: Tensor, grid: Sequence[int] | None) -> Tensor:
        """Return the spatial branch, (B, N, C)."""
        q_weight, k_weight = weights.get("q_spatial", weights["q"]), weights.get("k_spatial", weights["k"])
        q = functional.linear(x, q_weight).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        keys, values = self._slots(x, k_weight, weights["u"], grid)
        with without_autocast(x.device):
            gain = _inverse_norm(self._rows(q_weight, gram.dtype), gram[:, None]).mT * self.temperature_spatial
            keys = keys.to(gram.dtype) * (gain * self._size_gain(x.shape[1], q.shape[-1]))
        share = self.dropout if self.training else 0.0
        attended = functional.scaled_dot_product_attention(
            q, keys.to(q.dtype), values.to(q.dtype), dropout_p=share, scale=1.0
        )
        return self._merge(attended)

    def _size_gain(self, tokens: int, width: int) -> float:
        """Return what keeps the spatial logits alike when the number of tokens changes."""
        if self.size == "free":
            return math.sqrt(tokens / width)
        return 1.0 if tokens == self.native_tokens else math.sqrt(tokens / self.native_tokens)

    def _slots(
        self, x: Tensor, k_weight: Tensor, u_weight: Tensor, grid: Sequence[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of the p slots, each (B, h, p, d), projecting tokens before widening them."""
        x = self.projection.sources_of(x, grid)
        if self.project_matrix is not None:
            (rows,) = self.projection.rows((self.project_matrix.mT,), grid)
            pooled = rows @ x
            return self._split(functional.linear(pooled, k_weight)), self._split(functional.linear(pooled, u_weight))
        assert self.project_keys is not None
        if self.project_values is None:
            (rows,) = self.projection.rows((self.project_keys.weight,), grid)
            pooled, bias = rows @ x, self.project_keys.bias[:, None]
            keys, values = functional.linear(pooled, k_weight) + bias, functional.linear(pooled, u_weight) + bias
        else:
            rows, other = self.projection.rows((self.project_keys.weight, self.project_values.weight), grid)
            keys = functional.linear(rows @ x, k_weight) + self.project_keys.bias[:, None]
            values = functional.linear(other @ x, u_weight) + self.project_values.bias[:, None]
        return self._split(keys), self._split(values)

    def _split(self, slots: Tensor) -> Tensor:
        """Split (B, p, C) into heads: (B, h, p, d)."""
        return slots.view(*slots.shape[:2], self.heads, -1).transpose(1, 2)

    def _rows(self, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Split weights (C, C) by the heads of their outputs: (h, d, C)."""
        return weight.to(dtype).view(self.heads, -1, weight.shape[-1])

    def _merge(self, spatial: Tensor) -> Tensor:
        """Join the heads of (B, h, N, d) to (B, N, C); the legacy order mixes tokens and features."""
        batch, heads, tokens, width = spatial.shape
        if self.legacy:
            return spatial.permute(0, 3, 1, 2).reshape(batch, tokens, heads * width)
        return spatial.transpose(1, 2).reshape(batch, tokens, heads * width)

    def _fuse(self, x: Tensor, weight: Tensor | None, spatial: Tensor | None) -> Tensor:
        """Join the branches; the channel branch comes as weights that are applied to the tokens here."""
        if weight is None:
            assert spatial is not None
            return spatial if self.out_spatial is None else cast(Tensor, self.out_spatial(spatial))
        if self.out_channel is None:
            return x @ weight.mT if spatial is None else torch.baddbmm(spatial, x.to(spatial.dtype), weight.mT)
        weight, bias = self.out_channel.weight @ weight, self.out_channel.bias
        if spatial is None:
            return x @ weight.mT + bias
        assert self.out_spatial is not None
        # Two products into all C channels, each zero in the other's half, cost less than joining two halves in memory.
        nothing = torch.zeros_like(self.out_spatial.weight)
        half = functional.linear(
            spatial, torch.cat((self.out_spatial.weight, nothing)), torch.cat((self.out_spatial.bias, bias))
        )
        return torch.baddbmm(half, x.to(half.dtype), functional.pad(weight, (0, 0, len(nothing), 0)).mT)


class TokenProjection(nn.Module):
    """What is projected to slots, and with which weights, on whatever grid the tokens lie.

    Size "native" knows one grid; "flex" interpolates the rows of the projection; "free" averages tokens in cells, so
    that the projection has the same sources on every grid. It has no parameters of its own.

    Args:
        shape: the tokens that the network was built for.
        config: size and pool_cells are read.
    """

    def __init__(self, shape: TokenShape, config: UnetrPPConfig) -> None:
        super().__init__()
        self.size, self.grid, self.cells = config.size, shape.grid, config.pool_cells
        self.cache = GridCache()
        self.sources = self.cells ** len(shape.grid) if self.size == "free" else shape.tokens

    def sources_of(self, x: Tensor, grid: Sequence[int] | None) -> Tensor:
        """Return what is projected: the tokens (B, N, C), or their means in cells."""
        return pool_tokens(x, grid or self.grid, self.cells) if self.size == "free" else x

    def rows(self, weights: tuple[Tensor, ...], grid: Sequence[int] | None) -> tuple[Tensor, ...]:
        """Return projections (p, N native) for the grid at hand."""
        if self.size != "flex" or grid is None or tuple(grid) == self.grid:
            return weights
        wanted = tuple(grid)
        return self.cache.get(wanted, weights, lambda: tuple(resize_rows(w, self.grid, wanted) for w in weights))


def _inverse_norm(rows: Tensor, gram: Tensor) -> Tensor:
    """Return 1 / L2 norm over tokens of the features x W^T, and 0 where the norm is below 1e-12.

    Args:
        rows: weights W of the features, (h, d, C).
        gram: x^T x, (B, 1, C, C).

    Returns:
        (B, h, d, 1).
    """
    # Features that are zero throughout, as in an empty patch, stay zero whatever they are multiplied with; a gain of
    # 1e12, as the authors' code has, would give the same values and gradients that overflow.
    squares = ((rows @ gram) * rows).sum(dim=-1, keepdim=True)
    smallest = SMALLEST_NORM**2
    return torch.where(squares > smallest, squares.clamp(min=smallest).rsqrt(), 0.0)
