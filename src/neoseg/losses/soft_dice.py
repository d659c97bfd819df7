"""Soft Dice: one minus the overlap of probabilities and truth."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import SoftDiceConfig

__all__ = ["soft_dice_loss"]


def soft_dice_loss(logits: Tensor, target: Tensor, config: SoftDiceConfig) -> Tensor:
    """Return 1 - mean over classes of (2 sum p g + s) / (sum p^2 + sum g^2 + s), from 0 (perfect) to 1.

    p is the softmax of the logits, g the truth as 0 and 1, s the smoothing. V-Net (Milletari et al. 2016) has the
    squares; UNETR and UNETR++ print the same sum. What UNETR++ prints lacks the factor 1 / number of classes, so it
    would fall below zero with more than one class: it is put in here. With "summed" the squares fall
    away, as in the code of UNETR++. A class that is absent from the truth keeps the term s / (sum p^2 + s), whose
    gradient lowers its probabilities.

    Args:
        logits: (B, K, ...), K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...).
        config: denominator, smoothing, pooling, foreground_only.
    """
    with torch.autocast(logits.device.type, enabled=False):
        probabilities = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=1)
        truth = torch.zeros_like(probabilities).scatter_(1, target.unsqueeze(1), 1.0)
        first = 1 if config.foreground_only else 0
        p, g = probabilities[:, first:].flatten(2), truth[:, first:].flatten(2)
        pooled = (0, 2) if config.pooling == "batch" else (2,)
        overlap = (p * g).sum(pooled)
        size = (p.square() if config.denominator == "squared" else p).sum(pooled) + g.sum(pooled)
        dice = (2 * overlap + config.smoothing) / (size + config.smoothing)
        return 1 - dice.mean()
