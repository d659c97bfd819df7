"""Boundary loss: probabilities weighted by their signed distance from the truth's boundary."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import BoundaryTerm
from neoseg.losses.distance import signed_distance
from neoseg.losses.probabilities import probabilities_and_truth

__all__ = ["boundary_loss"]


def boundary_loss(logits: Tensor, target: Tensor, config: BoundaryTerm) -> Tensor:
    """Return the mean over voxels, samples and foreground classes of d (p - g), 0 (perfect) or more, in voxels.

    p is the softmax of the logits (of regions the sigmoid), g the truth as 0 and 1, d the signed distance from the
    boundary of g in voxels, negative inside. Kervadec et al., Boundary loss for highly unbalanced segmentation, MIDL
    2019: the sum is half the squared distance between the boundaries of p and g, summed along that of g. Their loss has
    d p alone and drops d g, which does not depend on p; it is kept here, so that a perfect prediction costs 0. The
    gradient is the same. Their code, and MONAI's BoundaryLoss, let the boundary run through the outermost voxels
    inside, which then cost nothing when they are missed; here it runs between the voxels. A class that is absent, or
    fills the patch, has d = 0.5 or -0.5; MONAI's has 0, which teaches nothing there, and theirs too where it is absent.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: of the term; it has no field besides its weight.
    """
    with torch.autocast(logits.device.type, enabled=False):
        p, g = probabilities_and_truth(logits, target)
        return (signed_distance(g > 0.5) * (p - g)).mean()
