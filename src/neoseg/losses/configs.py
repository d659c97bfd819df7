"""What a loss is made of; no torch here, so plans and config files read it cheaply."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

__all__ = [
    "BinaryCrossEntropyTerm",
    "BoundaryTerm",
    "FocalTerm",
    "FocalTverskyTerm",
    "HausdorffTerm",
    "JaccardTerm",
    "LossConfig",
    "LossTerm",
    "MsSsimTerm",
    "SoftDiceConfig",
    "TverskyTerm",
]

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Smoothing = Annotated[float, Field(ge=1e-12, allow_inf_nan=False)]
"""Large enough to keep an empty class from 0 / 0 in float32."""

Pooling = Literal["batch", "sample"]


class SoftDiceConfig(BaseModel, frozen=True, extra="forbid"):
    """How overlap is measured on probabilities.

    Attributes:
        denominator: "squared" sums p^2 and g^2, as the papers print it; "summed" sums p and g, as the code of
            UNETR++ does.
        smoothing: voxels added to numerator and denominator. With 1, a false positive in an empty sample costs as
            much as one beside a found lesion of half a voxel without smoothing; the code of UNETR++ has 1e-5, which
            leaves such samples almost without a gradient from this term.
        pooling: "batch" counts over the whole batch, which keeps a sample without a class from weighing as much as
            one with it; "sample" counts each sample on its own and averages.
        foreground_only: leave class 0, the background, out of the average; with [regions] what lies outside of each.
    """

    denominator: Literal["squared", "summed"] = "squared"
    smoothing: Smoothing = 1.0
    pooling: Pooling = "batch"
    foreground_only: bool = True


class BinaryCrossEntropyTerm(BaseModel, frozen=True, extra="forbid"):
    """Binary cross-entropy of each foreground class against the rest, as in UNet++ (Zhou et al. 2018).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term.
    """

    kind: Literal["binary_cross_entropy"] = "binary_cross_entropy"
    weight: Weight = 1.0


class FocalTerm(BaseModel, frozen=True, extra="forbid"):
    """Focal loss: cross-entropy in which voxels that are already right count little (Lin et al. 2017).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term.
        gamma: exponent of 1 - p of the true class; 0 gives cross-entropy.
        alpha: factor of the foreground's voxels, 1 - alpha that of the background's; omitted: 1 for both.
    """

    kind: Literal["focal"] = "focal"
    weight: Weight = 1.0
    gamma: Weight = 2.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None


class TverskyBase(BaseModel, frozen=True, extra="forbid"):
    """What the Tversky loss and its focal form share.

    Attributes:
        weight: factor of the term.
        smoothing: voxels added to numerator and denominator in the form of Dice, see [loss.dice].
        pooling: "batch" counts over the whole batch; "sample" counts each sample on its own and averages.
        foreground_only: leave class 0, the background, out of the average; with [regions] what lies outside of each.
    """

    weight: Weight = 1.0
    alpha: Weight = 0.3
    beta: Weight = 0.7
    smoothing: Smoothing = 1.0
    pooling: Pooling = "batch"
    foreground_only: bool = True

    @model_validator(mode="after")
    def _errors_cost_something(self) -> Self:
        """Refuse prices with which every prediction is perfect."""
        if self.alpha + self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that no error costs anything: give one of them a value")
        return self


class TverskyTerm(TverskyBase, frozen=True, extra="forbid"):
    """Tversky loss: soft Dice whose two errors have prices of their own (Salehi et al. 2017).

    Attributes:
        kind: the name of the term in configuration files.
        alpha: price of false positives.
        beta: price of false negatives. With alpha = beta = 0.5 the term is soft Dice with summed denominator, with
            both 1 it is the Jaccard loss.
    """

    kind: Literal["tversky"] = "tversky"


class FocalTverskyTerm(TverskyBase, frozen=True, extra="forbid"):
    """Focal Tversky loss: a root of the Tversky loss of each class (Abraham and Khan 2019).

    Attributes:
        kind: the name of the term in configuration files.
        gamma: the loss of a class is taken to the power 1 / gamma; the paper tries 1 to 3 and keeps 4/3. With 1 the
            term is the Tversky loss.
        alpha: price of false positives, as in the Tversky loss; the paper's beta.
        beta: price of false negatives; the paper's alpha.
    """

    kind: Literal["focal_tversky"] = "focal_tversky"
    gamma: Positive = 4 / 3


class JaccardTerm(BaseModel, frozen=True, extra="forbid"):
    """Jaccard loss: one minus the soft intersection over union (Rahman and Wang 2016).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term.
        smoothing: voxels added to numerator and denominator in the form of Dice, see [loss.dice].
        pooling: "batch" counts over the whole batch; "sample" counts each sample on its own and averages.
        foreground_only: leave class 0, the background, out of the average; with [regions] what lies outside of each.
    """

    kind: Literal["jaccard"] = "jaccard"
    weight: Weight = 1.0
    smoothing: Smoothing = 1.0
    pooling: Pooling = "batch"
    foreground_only: bool = True


class MsSsimTerm(BaseModel, frozen=True, extra="forbid"):
    """Structural similarity of probabilities and truth at several resolutions, as in UNet 3+ (Huang et al. 2020).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term.
        window: voxels of the Gaussian window on each axis, an odd number; on a shorter axis the window is the largest
            odd number that fits.
        sigma: standard deviation of the window in voxels.
        scales: resolutions, each half of the one before, at most; patches and heads whose shortest axis has fewer than
            `window` voxels at one of them use those before it.
    """

    kind: Literal["ms_ssim"] = "ms_ssim"
    weight: Weight = 1.0
    window: Annotated[int, Field(ge=3)] = 11
    sigma: Positive = 1.5
    scales: Annotated[int, Field(ge=1, le=5)] = 5

    @model_validator(mode="after")
    def _window_has_a_centre(self) -> Self:
        """Refuse a window between voxels."""
        if self.window % 2 == 0:
            raise ValueError(
                f"window = {self.window} is even and has no voxel in its centre: use {self.window - 1} or "
                f"{self.window + 1}"
            )
        return self


class HausdorffTerm(BaseModel, frozen=True, extra="forbid"):
    """Squared errors weighted by their distance from both boundaries (Karimi and Salcudean 2019).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term.
        alpha: exponent of the distances, which are in voxels of the head at hand; the paper keeps 2.
        logarithm: take log(1 + loss), which keeps far errors from outweighing the other terms of the sum.
    """

    kind: Literal["hausdorff"] = "hausdorff"
    weight: Weight = 1.0
    alpha: Positive = 2.0
    logarithm: bool = False


class BoundaryTerm(BaseModel, frozen=True, extra="forbid"):
    """Boundary loss: probabilities weighted by their signed distance from the truth (Kervadec et al. 2019).

    Attributes:
        kind: the name of the term in configuration files.
        weight: factor of the term. The paper starts with 0.01 beside 0.99 of a loss on regions.
    """

    kind: Literal["boundary"] = "boundary"
    weight: Weight = 1.0


LossTerm = Annotated[
    BinaryCrossEntropyTerm
    | FocalTerm
    | TverskyTerm
    | FocalTverskyTerm
    | JaccardTerm
    | MsSsimTerm
    | HausdorffTerm
    | BoundaryTerm,
    Field(discriminator="kind"),
]
"""One further term of a loss, told apart by `kind`; `neoseg.losses.registry` has their functions and papers."""

OWN_FIELDS = {"dice": "dice_weight and [loss.dice]", "cross_entropy": "cross_entropy_weight"}
"""Terms that are no entries of `terms`, and what sets them."""


class LossConfig(BaseModel, frozen=True, extra="forbid"):
    """A weighted sum of soft Dice, cross-entropy and further terms, the same for every head of a network.

    Attributes:
        dice_weight: factor of the soft Dice loss; 0 leaves it out.
        cross_entropy_weight: factor of the cross-entropy; 0 leaves it out.
        dice: how the overlap is measured.
        terms: further terms of the sum, each with its kind and weight.
    """

    dice_weight: Weight = 1.0
    cross_entropy_weight: Weight = 1.0
    dice: SoftDiceConfig = SoftDiceConfig()
    terms: tuple[LossTerm, ...] = ()

    @field_validator("terms", mode="before")
    @classmethod
    def _terms_have_no_other_place(cls, terms: Any) -> Any:
        """Name the fields of the two terms that stand outside the list."""
        for term in terms if isinstance(terms, list | tuple) else ():
            kind = term.get("kind") if isinstance(term, dict) else None
            if isinstance(kind, str) and kind in OWN_FIELDS:
                raise ValueError(f"kind = {kind!r} is set by {OWN_FIELDS[kind]}, not in this list: move it there")
        return terms

    @model_validator(mode="after")
    def _some_term(self) -> Self:
        """Refuse a loss that is always zero."""
        if self.dice_weight == self.cross_entropy_weight == 0 and not any(term.weight for term in self.terms):
            others = ", and so are the weights of all terms" if self.terms else " and there are no terms"
            raise ValueError(f"dice_weight and cross_entropy_weight are both 0{others}: give one of them a weight")
        return self

    @model_serializer(mode="wrap")
    def _as_before_when_nothing_is_added(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an empty list out: records of trainings hash this, and those without further terms stay current."""
        stored: dict[str, Any] = handler(self)
        if not self.terms:
            stored.pop("terms", None)
        return stored
