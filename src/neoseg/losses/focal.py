"""Focal loss: cross-entropy in which easy voxels count little."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.bounded_power import bounded_power
from neoseg.losses.configs import FocalTerm
from neoseg.losses.probabilities import surprise

__all__ = ["focal_loss"]


def focal_loss(logits: Tensor, target: Tensor, config: FocalTerm) -> Tensor:
    """Return the mean over voxels of -a (1 - p)^gamma log p, p the probability of the true class, in nats.

    Lin et al., Focal Loss for Dense Object Detection, ICCV 2017, equations 4 and 5, with a softmax in place of their
    sigmoid, which regions have. They divide the sum by the number of objects; a volume without a lesion would divide by
    zero, so here it is the mean over voxels, and with gamma = 0 and no alpha the loss is the cross-entropy. MONAI's
    FocalLoss divides by the number of classes too, and its gradient is not finite at p = 1 with a gamma below 1.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: gamma, and alpha, which is a for the foreground and 1 - a for the background.
    """
    with torch.autocast(logits.device.type, enabled=False):
        of_truth = surprise(logits, target)
        loss = bounded_power(-torch.expm1(-of_truth), config.gamma) * of_truth
        if config.alpha is not None:
            loss = loss * torch.where(target > 0, config.alpha, 1 - config.alpha)
        return loss.mean()
