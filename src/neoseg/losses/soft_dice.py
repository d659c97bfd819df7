"""Soft Dice: one minus the overlap of probabilities and truth."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import SoftDiceConfig
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["soft_dice_loss"]


def soft_dice_loss(logits: Tensor, target: Tensor, config: SoftDiceConfig) -> Tensor:
    """Return 1 - mean over classes of (2 sum p g + s) / (sum p^2 + sum g^2 + s), from 0 (perfect) to 1.

    p is the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1, s the smoothing. V-Net (Milletari
    et al. 2016) has the squares; UNETR and UNETR++ print the same sum. What UNETR++ prints lacks the factor 1 / number
    of classes, so it would fall below zero with more than one class: it is put in here. With "summed" the squares fall
    away, as in the code of UNETR++. A class that is absent from the truth keeps the term s / (sum p^2 + s), whose
    gradient lowers its probabilities.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: denominator, smoothing, pooling, foreground_only.
    """
    with torch.autocast(logits.device.type, enabled=False):
        both = probabilities_and_truth(logits, target, foreground_only=config.foreground_only)
        p, g = (part.flatten(2) for part in both)
        pooled = (0, 2) if config.pooling == "batch" else (2,)
        overlap = (p * g).sum(pooled)
        size = (p.square() if config.denominator == "squared" else p).sum(pooled) + g.sum(pooled)
        dice = (2 * overlap + config.smoothing) / (size + config.smoothing)
        return 1 - dice.mean()
