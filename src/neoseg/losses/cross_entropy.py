"""Cross-entropy, in the precision that a sum over a million voxels needs."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.probabilities import surprise

__all__ = ["cross_entropy_loss"]


def cross_entropy_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over voxels of -log p of the true class, in nats; of regions the mean of their binary ones.

    UNETR++ prints the plain sum over voxels of g log p beside the Dice terms. Without a factor 1 / number of voxels
    it would outweigh the overlap a millionfold, and with the sign of the overlap's loss it would reward errors:
    here it is the mean, with the sign that makes it fall as the prediction improves.

    Args:
        logits: (B, K, ...); computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
    """
    with torch.autocast(logits.device.type, enabled=False):
        return surprise(logits, target, reduction="mean")
