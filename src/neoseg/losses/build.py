"""From a config to a loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from neoseg.losses.configs import LossConfig
from neoseg.losses.cross_entropy import cross_entropy_loss
from neoseg.losses.deep_supervision import supervise
from neoseg.losses.soft_dice import soft_dice_loss

__all__ = ["Loss", "build_loss"]

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


def build_loss(config: LossConfig) -> Loss:
    """Return soft Dice plus cross-entropy, weighted, as a function of a network's outputs and the truth.

    The function takes logits (B, K, ...), full size first, as a network returns them, and class indices int64
    (B, ...) of full size, and returns a scalar; its sums are in float32 under autocast too.

    Args:
        config: weights of the two terms, and how overlap is measured.
    """

    def one_head(logits: Tensor, target: Tensor) -> Tensor:
        terms = []
        if config.dice_weight:
            terms.append(config.dice_weight * soft_dice_loss(logits, target, config.dice))
        if config.cross_entropy_weight:
            terms.append(config.cross_entropy_weight * cross_entropy_loss(logits, target))
        return terms[0] if len(terms) == 1 else terms[0] + terms[1]

    def loss(logits: Sequence[Tensor], target: Tensor) -> Tensor:
        return supervise(one_head, logits, target)

    return loss
