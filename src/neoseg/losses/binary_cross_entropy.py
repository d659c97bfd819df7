"""Binary cross-entropy of each foreground class against the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from neoseg.losses.configs import BinaryCrossEntropyTerm
from neoseg.losses.probabilities import is_of_regions, surprise, wide

__all__ = ["binary_cross_entropy_loss"]


def binary_cross_entropy_loss(logits: Tensor, target: Tensor, config: BinaryCrossEntropyTerm) -> Tensor:
    """Return the mean over voxels and foreground classes of -(g log p + (1 - g) log(1 - p)), in nats.

    p is the softmax of the logits, g the truth as 0 and 1. UNet++ (Zhou et al., DLMIA 2018; IEEE TMI 39, 2020) adds
    half of it to the Dice loss, but prints g log p alone, which a prediction of 1 everywhere would satisfy: the term
    (1 - g) log(1 - p) that makes it the binary cross-entropy of the name is put in here. The paper's p is a sigmoid of
    each class; with two classes the softmax is that sigmoid of their difference, and the loss is the cross-entropy.
    With more classes the truth of a voxel is one class, which the softmax says and sigmoids do not; regions, of which a
    voxel may have several, have the sigmoids.

    Args:
        logits: (B, K, ...), of class indices K at least 2; computed in float32 or wider.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        config: of the term; it has no field besides its weight.
    """
    with torch.autocast(logits.device.type, enabled=False):
        if is_of_regions(logits, target):
            return surprise(logits, target, reduction="mean")
        given = wide(logits)
        total = given.logsumexp(1)
        terms = []
        for index in range(1, given.shape[1]):
            # log(1 - p) from the other logits: 1 - p itself is rounded to 0 where p is near to 1.
            rest = torch.cat((given[:, :index], given[:, index + 1 :]), dim=1).logsumexp(1)
            terms.append((total - torch.where(target == index, given[:, index], rest)).mean())
        return torch.stack(terms).mean()
