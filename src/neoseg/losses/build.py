"""From a config to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from neoseg.errors import InputError
from neoseg.losses.configs import LossConfig
from neoseg.losses.cross_entropy import cross_entropy_loss
from neoseg.losses.deep_supervision import supervise
from neoseg.losses.registry import TERMS
from neoseg.losses.soft_dice import soft_dice_loss
from neoseg.targets import Targets

__all__ = ["Loss", "build_loss"]

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


def build_loss(config: LossConfig, targets: Targets | None = None) -> Loss:
    """Return the weighted sum of soft Dice, cross-entropy and further terms, of a network's outputs and the truth.

    The function takes logits (B, K, ...), full size first, as a network returns them, and class indices (whole
    numbers of any type) (B, ...) of full size, and returns a scalar; its sums are in float32 under autocast too. A term
    of weight 0 is not computed.

    Args:
        config: the terms with their weights, and how overlap is measured.
        targets: what the channels of the logits stand for; default classes. Of regions each channel is a problem of
            its own, and every term is the mean over them (but for the logarithm of the Hausdorff term, which is taken
            of the mean).
    """

    def one_head(logits: Tensor, classes: Tensor) -> Tensor:
        target = classes if targets is None else targets.truth(classes)
        terms = []
        if config.dice_weight:
            terms.append(config.dice_weight * soft_dice_loss(logits, target, config.dice))
        if config.cross_entropy_weight:
            terms.append(config.cross_entropy_weight * cross_entropy_loss(logits, target))
        for term in config.terms:
            if term.weight:
                terms.append(term.weight * TERMS[term.kind].function(logits, target, term))
        total = terms[0]
        for further in terms[1:]:
            total = total + further
        return total

    def loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
        if target.is_floating_point() or target.is_complex():
            raise InputError(
                f"The target has the type {target.dtype}, but one whole number, its class, is wanted for each voxel; "
                "round it first."
            )
        return supervise(one_head, logits, target.long())

    return loss
