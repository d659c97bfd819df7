"""One layer of a vision transformer."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["TransformerLayer"]


class TransformerLayer(nn.Module):
    """Attention of all tokens to all, then a perceptron, each after a layer norm and with a residual.

    Dosovitskiy et al., ICLR 2021, equations 2 and 3; queries, keys and values have no bias.

    Args:
        hidden: channels C of the tokens (B, N, C), a multiple of `heads`.
        heads: attention heads.
        mlp: channels inside the perceptron.
        dropout: share of values dropped while training: of attention weights, and after each linear layer but that of
            queries, keys and values.
    """

    def __init__(self, hidden: int, heads: int, mlp: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(hidden)
        self.qkv = nn.Linear(hidden, 3 * hidden, bias=False)
        self.project = nn.Linear(hidden, hidden)
        self.norm2 = nn.LayerNorm(hidden)
        self.linear1 = nn.Linear(hidden, mlp)
        self.linear2 = nn.Linear(mlp, hidden)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (B, N, C) to the same shape."""
        tokens = tokens + self._dropped(self._attended(self.norm1(tokens)))
        inside = self._dropped(functional.gelu(self.linear1(self.norm2(tokens))))
        return tokens + self._dropped(self.linear2(inside))

    def _attended(self, tokens: Tensor) -> Tensor:
        """Return softmax(Q K^T / sqrt(d)) V of every head, projected."""
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, heads, N, d)
        dropout = self.dropout if self.training else 0.0
        heads = functional.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2], dropout_p=dropout)
        attended: Tensor = self.project(heads.transpose(1, 2).flatten(2))
        return attended

    def _dropped(self, x: Tensor) -> Tensor:
        return functional.dropout(x, self.dropout, self.training)
