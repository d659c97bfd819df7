"""What a loss is made of; no torch here, so plans and config files read it cheaply."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

__all__ = ["LossConfig", "SoftDiceConfig"]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SoftDiceConfig(BaseModel, frozen=True, extra="forbid"):
    """How overlap is measured on probabilities.

    Attributes:
        denominator: "squared" sums p^2 and g^2, as the papers print it; "summed" sums p and g, as the code of
            UNETR++ does.
        smoothing: voxels added to numerator and denominator. With 1, a false positive in an empty sample costs as
            much as one beside a lesion of a voxel; the code of UNETR++ has 1e-5, which leaves such samples almost
            without a gradient from this term.
        pooling: "batch" counts over the whole batch, which keeps a sample without a class from weighing as much as
            one with it; "sample" counts each sample on its own and averages.
        foreground_only: leave class 0, the background, out of the average.
    """

    denominator: Literal["squared", "summed"] = "squared"
    smoothing: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    pooling: Literal["batch", "sample"] = "batch"
    foreground_only: bool = True


class LossConfig(BaseModel, frozen=True, extra="forbid"):
    """A weighted sum of soft Dice and cross-entropy, the same for every head of a deeply supervised network.

    Attributes:
        dice_weight: factor of the soft Dice loss.
        cross_entropy_weight: factor of the cross-entropy.
        dice: how the overlap is measured.
    """

    dice_weight: Weight = 1.0
    cross_entropy_weight: Weight = 1.0
    dice: SoftDiceConfig = SoftDiceConfig()

    @model_validator(mode="after")
    def _some_term(self) -> Self:
        """Refuse a loss that is always zero."""
        if self.dice_weight == self.cross_entropy_weight == 0:
            raise ValueError("dice_weight and cross_entropy_weight are both 0: give one of them a weight")
        return self
