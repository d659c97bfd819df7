"""Logits and class indices as probabilities and a truth of 0 and 1, in the precision that sums over voxels need."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["probabilities_and_truth", "wide"]


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are when they are wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def probabilities_and_truth(logits: Tensor, target: Tensor, *, foreground_only: bool = True) -> tuple[Tensor, Tensor]:
    """Return the softmax of logits and the truth as 0 and 1, both (B, C, ...), C = K - 1 or K.

    Args:
        logits: (B, K, ...), K at least 2.
        target: class indices int64 (B, ...).
        foreground_only: leave class 0, the background, out.
    """
    probabilities = torch.softmax(wide(logits), dim=1)
    truth = torch.zeros_like(probabilities).scatter_(1, target.unsqueeze(1), 1.0)
    first = 1 if foreground_only else 0
    return probabilities[:, first:], truth[:, first:]
