"""Hausdorff loss: squared errors weighted by their distances from both boundaries."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import HausdorffTerm
from neoseg.losses.distance import boundary_distance
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["hausdorff_loss"]


def hausdorff_loss(logits: Tensor, target: Tensor, config: HausdorffTerm) -> Tensor:
    """Return the mean over voxels, samples and foreground classes of (p - g)^2 (d_p^alpha + d_g^alpha), 0 or more.

    p is the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1; d_p and d_g are distances from the
    boundaries of p > 0.5 and of g, in voxels; d_p is held constant in the gradient. Karimi and Salcudean, Reducing the
    Hausdorff distance in medical image segmentation with convolutional neural networks, IEEE TMI 39, 2020, the loss by
    distance transforms. With `logarithm` the result is log(1 + mean). Both are MONAI's HausdorffDTLoss and
    LogHausdorffDTLoss wherever all masks have a boundary. Those take the distance 0 where a mask has none, so that a
    prediction of foreground everywhere costs nothing in an image without any; here it is 1 voxel.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: alpha, logarithm.
    """
    with torch.autocast(logits.device.type, enabled=False):
        p, g = probabilities_and_truth(logits, target)
        far = boundary_distance(p.detach() > 0.5).pow(config.alpha) + boundary_distance(g > 0.5).pow(config.alpha)
        loss = ((p - g).square() * far).mean()
        return loss.log1p() if config.logarithm else loss
