"""Efficient paired attention: over channels and over projected tokens, from one set of queries and keys."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.configs import UnetrPPConfig

__all__ = ["PairedAttention", "TokenShape"]

SMALLEST_NORM = 1e-12


class TokenShape(NamedTuple):
    """Tokens that an attention works on: how many, how wide, and the slots they are projected to."""

    tokens: int
    dim: int
    slots: int


class PairedAttention(nn.Module):
    """Efficient paired attention of UNETR++ (Shaker et al. 2024, section III-B), as the authors' code computes it.

    With x of shape (B, N, C), heads h of width d = C/h, and q, k, v, u four linear images of x:

        q^ , k^  = q, k divided by their L2 norm over the N tokens, each channel on its own
        channel  = softmax(q^T k^ * t1) v                  maps of shape (d, d)
        spatial  = softmax(q^ (E k) * t2) (F u)            maps of shape (N, p); E, F project N tokens to p slots

    t1, t2 are learned per head and take the place of the paper's 1/sqrt(d). Three exact rearrangements save time
    and memory: E k = (E x) W_k, so u is never formed over N; the norm of q is moved onto the p keys; and the channel
    maps are multiplied into the weights, so v is never formed over N either.

    Args:
        shape: number of tokens, their width C, and the number of slots p.
        config: heads, token_projection, fusion, layout and attention_dropout are read.
    """

    def __init__(self, shape: TokenShape, config: UnetrPPConfig) -> None:
        super().__init__()
        self.heads, self.legacy, self.dropout = config.heads, config.layout == "legacy", config.attention_dropout
        self.temperature_channel = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.temperature_spatial = nn.Parameter(torch.ones(config.heads, 1, 1))
        self.qkvv = nn.Linear(shape.dim, 4 * shape.dim, bias=False)
        self.project_matrix: nn.Parameter | None = None
        self.project_keys: nn.Linear | None = None
        self.project_values: nn.Linear | None = None
        if config.token_projection == "matrix":
            bound = shape.slots**-0.5
            self.project_matrix = nn.Parameter(torch.empty(shape.tokens, shape.slots).uniform_(-bound, bound))
        else:
            self.project_keys = nn.Linear(shape.tokens, shape.slots)
            if config.token_projection == "separate":
                self.project_values = nn.Linear(shape.tokens, shape.slots)
        self.out_spatial: nn.Linear | None = None
        self.out_channel: nn.Linear | None = None
        if config.fusion == "concat":
            self.out_spatial = nn.Linear(shape.dim, shape.dim // 2)
            self.out_channel = nn.Linear(shape.dim, shape.dim // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, C) to tokens of the same shape."""
        batch, tokens, dim = x.shape
        width = dim // self.heads
        qk_weight, v_weight, u_weight = self.qkvv.weight[: 2 * dim], *self.qkvv.weight[2 * dim :].chunk(2)
        q, k = functional.linear(x, qk_weight).view(batch, tokens, 2, self.heads, width).permute(2, 0, 3, 1, 4)
        keys, values = self._slots(x, qk_weight[dim:], u_weight)
        with torch.autocast(x.device.type, enabled=False):
            # Sums over tens of thousands of tokens, and a norm that may be zero, need float32 (or float64) throughout.
            wide = torch.promote_types(q.dtype, torch.float32)
            q_wide, k_wide = q.to(wide), k.to(wide)
            q_gain, k_gain = _inverse_norm(q_wide), _inverse_norm(k_wide)
            cosines = (q_wide.mT @ k_wide) * q_gain.mT * k_gain
            channel_map = torch.softmax(cosines * self.temperature_channel, dim=-1)
            keys = keys.to(wide) * (q_gain * self.temperature_spatial)
        share = self.dropout if self.training else 0.0
        channel_map = functional.dropout(channel_map, share, self.training)
        spatial = functional.scaled_dot_product_attention(q, keys.to(q.dtype), values, dropout_p=share, scale=1.0)
        return self._fuse(x, channel_map, v_weight, self._merge(spatial))

    def _slots(self, x: Tensor, k_weight: Tensor, u_weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the p slots, each (B, h, p, d), projecting tokens before widening them."""
        if self.project_matrix is not None:
            pooled = self.project_matrix.mT @ x
            return self._split(functional.linear(pooled, k_weight)), self._split(functional.linear(pooled, u_weight))
        assert self.project_keys is not None
        pooled_keys = self.project_keys.weight @ x
        keys = functional.linear(pooled_keys, k_weight) + self.project_keys.bias[:, None]
        if self.project_values is None:
            values = functional.linear(pooled_keys, u_weight) + self.project_keys.bias[:, None]
        else:
            pooled = self.project_values.weight @ x
            values = functional.linear(pooled, u_weight) + self.project_values.bias[:, None]
        return self._split(keys).to(x.dtype), self._split(values)

    def _split(self, slots: Tensor) -> Tensor:
        """Split (B, p, C) into heads: (B, h, p, d)."""
        return slots.view(*slots.shape[:2], self.heads, -1).transpose(1, 2)

    def _merge(self, spatial: Tensor) -> Tensor:
        """Join the heads of (B, h, N, d) to (B, N, C); the legacy order mixes tokens and features."""
        batch, heads, tokens, width = spatial.shape
        if self.legacy:
            return spatial.permute(0, 3, 1, 2).reshape(batch, tokens, heads * width)
        return spatial.transpose(1, 2).reshape(batch, tokens, heads * width)

    def _fuse(self, x: Tensor, channel_map: Tensor, v_weight: Tensor, spatial: Tensor) -> Tensor:
        """Join the branches; the channel maps (B, h, d, d) are applied to the weights in place of the tokens."""
        weight = (channel_map @ v_weight.view(self.heads, -1, x.shape[-1])).flatten(1, 2)
        if self.out_spatial is None or self.out_channel is None:
            return x @ weight.mT + spatial
        weight = self.out_channel.weight @ weight
        return torch.cat((self.out_spatial(spatial), x @ weight.mT + self.out_channel.bias), dim=-1)


def _inverse_norm(features: Tensor) -> Tensor:
    """Return 1 / L2 norm over tokens of features (B, h, N, d), as (B, h, 1, d), and 0 where the norm is below 1e-12."""
    # Features that are zero throughout, as in an empty patch, stay zero whatever they are multiplied with; a gain of
    # 1e12, as the authors' code has, would give the same values and gradients that overflow.
    squares = features.square().sum(dim=-2, keepdim=True)
    smallest = SMALLEST_NORM**2
    return torch.where(squares > smallest, squares.clamp(min=smallest).rsqrt(), 0.0)
