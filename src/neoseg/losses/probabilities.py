"""Logits and truth as probabilities and a truth of 0 and 1, in the precision that sums over voxels need.

A truth is either class indices (B, ...), of which each voxel has one, or bool (B, K, ...), of regions that may overlap.
Of regions each channel is a problem of its own: its probability is the sigmoid of its logit, as in a softmax over that
logit and 0.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["is_of_regions", "probabilities_and_truth", "surprise", "wide"]


def wide(logits: Tensor) -> Tensor:
    """Return logits in float32, or as they are when they are wider."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def is_of_regions(logits: Tensor, target: Tensor) -> bool:
    """Tell whether a truth has a channel for each of the logits, as regions do, and is no class indices."""
    return target.ndim == logits.ndim


def surprise(logits: Tensor, target: Tensor, *, reduction: str = "none") -> Tensor:
    """Return -log of the probability of the truth, in nats: of the true class (B, ...), of regions (B, K, ...).

    Args:
        logits: (B, K, ...).
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        reduction: "none", or "mean" over all of them.
    """
    given = wide(logits)
    if is_of_regions(logits, target):
        return functional.binary_cross_entropy_with_logits(given, target.to(given.dtype), reduction=reduction)
    return functional.cross_entropy(given, target, reduction=reduction)


def probabilities_and_truth(logits: Tensor, target: Tensor, *, foreground_only: bool = True) -> tuple[Tensor, Tensor]:
    """Return probabilities and the truth as 0 and 1, both (B, C, ...).

    Of class indices C is K - 1 or K; of regions it is K, or 2 K with what lies outside of each.

    Args:
        logits: (B, K, ...), of class indices K at least 2.
        target: class indices int64 (B, ...), or of regions bool (B, K, ...).
        foreground_only: leave class 0, the background, out; of regions what lies outside of each.
    """
    if is_of_regions(logits, target):
        given = wide(logits)
        truth = target.to(given.dtype)
        if foreground_only:
            return torch.sigmoid(given), truth
        return torch.sigmoid(torch.cat((given, -given), dim=1)), torch.cat((truth, 1 - truth), dim=1)
    probabilities = torch.softmax(wide(logits), dim=1)
    truth = torch.zeros_like(probabilities).scatter_(1, target.unsqueeze(1), 1.0)
    first = 1 if foreground_only else 0
    return probabilities[:, first:], truth[:, first:]
