"""Focal Tversky loss: a root of the Tversky loss of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.bounded_power import bounded_power
from neoseg.losses.configs import FocalTverskyTerm
from neoseg.losses.tversky import tversky_losses

__all__ = ["focal_tversky_loss"]


def focal_tversky_loss(logits: Tensor, target: Tensor, config: FocalTverskyTerm) -> Tensor:
    """Return the mean over classes of L^(1 / gamma), L the Tversky loss of a class, from 0 (perfect) to 1.

    Abraham and Khan, A novel focal Tversky loss function with improved attention U-Net for lesion segmentation, ISBI
    2019, on MONAI's TverskyLoss. The paper sums over classes; here it is the mean, so that the weight does
    not grow with their number. Its alpha is the price of false negatives; here alpha and beta mean what they mean in
    the Tversky loss. Below L = 1e-6 the power goes on as a line, since its slope is infinite at 0.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: gamma, and what the Tversky loss has.
    """
    with torch.autocast(logits.device.type, enabled=False):
        return bounded_power(tversky_losses(logits, target, config), 1 / config.gamma).mean()
