"""Tversky loss: one minus an overlap whose two errors have prices of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import FocalTverskyTerm, TverskyTerm
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["tversky_loss", "tversky_losses"]


def tversky_loss(logits: Tensor, target: Tensor, config: TverskyTerm) -> Tensor:
    """Return 1 - mean over classes of (2 T + s) / (2 (T + alpha P + beta N) + s), from 0 (perfect) to 1.

    T = sum p g, P = sum p (1 - g) and N = sum (1 - p) g are the true positives, false positives and false negatives, p
    the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1, s the smoothing. Salehi et al., Tversky
    loss function for image segmentation using 3D fully convolutional deep networks, MLMI 2017, by MONAI's TverskyLoss.
    The paper has no smoothing; in this form it is that of the soft Dice loss, which alpha = beta = 0.5 gives exactly.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: alpha, beta, smoothing, pooling, foreground_only.
    """
    return tversky_losses(logits, target, config).mean()


def tversky_losses(logits: Tensor, target: Tensor, config: TverskyTerm | FocalTverskyTerm) -> Tensor:
    """Return the Tversky loss of each class (C,), or with pooling "sample" of each sample and class (B, C)."""
    from monai.losses.tversky import TverskyLoss  # MONAI takes seconds to import

    measure = TverskyLoss(
        alpha=config.alpha,
        beta=config.beta,
        smooth_nr=config.smoothing / 2,
        smooth_dr=config.smoothing / 2,
        batch=config.pooling == "batch",
        reduction="none",
    )
    with torch.autocast(logits.device.type, enabled=False):
        p, g = probabilities_and_truth(logits, target, foreground_only=config.foreground_only)
        losses: Tensor = measure(p, g)
        return losses
