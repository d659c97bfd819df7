"""Jaccard loss: one minus the soft intersection over union."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import JaccardTerm
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["jaccard_loss"]


def jaccard_loss(logits: Tensor, target: Tensor, config: JaccardTerm) -> Tensor:
    """Return 1 - mean over classes of (2 T + s) / (2 (sum p + sum g - T) + s), from 0 (perfect) to 1.

    T = sum p g, p is the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1, s the smoothing.
    Rahman and Wang, Optimizing intersection-over-union in deep neural networks for image segmentation, ISVC 2016, by
    MONAI's DiceLoss with jaccard. The paper has no smoothing; in this form the Jaccard index of a class is D / (2 - D)
    of its soft Dice D with summed denominator and the same smoothing.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: smoothing, pooling, foreground_only.
    """
    from monai.losses.dice import DiceLoss  # MONAI takes seconds to import

    measure = DiceLoss(
        jaccard=True, smooth_nr=config.smoothing, smooth_dr=config.smoothing, batch=config.pooling == "batch"
    )
    with torch.autocast(logits.device.type, enabled=False):
        p, g = probabilities_and_truth(logits, target, foreground_only=config.foreground_only)
        loss: Tensor = measure(p, g)
        return loss
