"""Attention in windows with MONAI's weights, whose gradients are the same bits on any number of threads."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["WindowAttention"]


class WindowAttention(nn.Module):
    """The attention of a Swin Transformer (Liu et al., ICCV 2021, arXiv 2103.14030, equation 4) within windows.

    It computes what `monai.networks.nets.swin_unetr.WindowAttention` does, with its tensors under its names. There the
    table of positions is read by an index, and on several threads of a CPU torch 2.13 adds up the gradient of that in
    changing order. Here it is read as an embedding, whose gradient has one order.

    Args:
        monais: the attention whose tensors and shares of dropout are taken over.
    """

    relative_position_index: Tensor

    def __init__(self, monais: Any) -> None:
        super().__init__()
        self.heads: int = monais.num_heads
        self.scale: float = monais.scale
        self.relative_position_bias_table = monais.relative_position_bias_table
        self.register_buffer("relative_position_index", monais.relative_position_index)
        self.qkv, self.proj = monais.qkv, monais.proj
        self.attn_drop, self.proj_drop = monais.attn_drop, monais.proj_drop

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Map tokens (B x windows, tokens of a window, channels) to the same shape.

        Args:
            x: the tokens.
            mask: what is added before the softmax, (windows, tokens, tokens): 0 where two tokens may see each other,
                -100 where they come from opposite ends of a shifted image. None: all may.
        """
        count, tokens, channels = x.shape
        qkv = self.qkv(x).reshape(count, tokens, 3, self.heads, channels // self.heads)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        weights = (queries * self.scale) @ keys.transpose(-2, -1) + self._bias(tokens)
        if mask is not None:
            windows = mask.shape[0]
            weights = weights.view(count // windows, windows, self.heads, tokens, tokens) + mask[None, :, None]
            weights = weights.view(count, self.heads, tokens, tokens)
        weights = self.attn_drop(weights.softmax(-1)).to(values.dtype)
        mixed = (weights @ values).transpose(1, 2).reshape(count, tokens, channels)
        out: Tensor = self.proj_drop(self.proj(mixed))
        return out

    def _bias(self, tokens: int) -> Tensor:
        """Return the table's entries for all pairs of tokens, (heads, tokens, tokens)."""
        # MONAI takes the first rows and columns for windows that are cut to a small grid, too.
        places = self.relative_position_index[:tokens, :tokens]
        return functional.embedding(places, self.relative_position_bias_table).permute(2, 0, 1)
