"""How the intensities of each channel are brought to a range that networks learn from: rules and statistics."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from ..data.units import channel_kind, is_physical

__all__ = ["ChannelStatistics", "NormaliseConfig", "Rule", "common_unit", "default_rule"]

Rule = Literal["auto", "case", "dataset", "ct", "percentile", "range", "none"]


class NormaliseConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How one channel is brought to a range that networks learn from.

    Attributes:
        rule: "case": (x - mean) / sd over the foreground of the case itself, for images without a unit.
            "dataset": the mean and sd of the training cases, so that a value means the same in every case (ADC, Z).
            "ct": clipped to the 0.5 and 99.5 percentiles of the labelled voxels of the training cases, then their
            mean and sd, for Hounsfield units (nnU-Net's rule for CT).
            "percentile": the case's 0.5 and 99.5 foreground percentiles become 0 and 1, values beyond are clipped.
            "range": ``low`` and ``high`` become 0 and 1, nothing is clipped.
            "none": left as it is. "auto": "ct" for Hounsfield units, "dataset" for a channel with another physical
            unit, "none" for a Z map that is made, else "case".
        low, high: the fixed range of the rule "range", in the channel's unit.
    """

    rule: Rule = "auto"
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _range_is_complete(self) -> NormaliseConfig:
        if self.rule == "range" and (self.low is None or self.high is None or not self.low < self.high):
            raise ValueError("the rule 'range' needs low < high")
        if self.rule != "range" and not self.low is self.high is None:
            raise ValueError("low and high belong to the rule 'range' only")
        return self


class ChannelStatistics(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Statistics of one channel over the training cases, in the channel's unit.

    Attributes:
        mean, sd: over the foreground voxels; for the rule "ct" over the labelled voxels, each case counting alike.
        low, high: the range that the rule "ct" clips to; None for other rules.
    """

    mean: float
    sd: float = Field(gt=0)
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _range_is_complete(self) -> ChannelStatistics:
        if (self.low is None) != (self.high is None) or (
            self.low is not None and self.high is not None and not self.low < self.high
        ):
            raise ValueError("low and high come together, low below high")
        return self


def common_unit(units: Collection[str]) -> str:
    """Return the unit that the images of a channel share, "" where none is known or they have several."""
    known = {unit for unit in units if is_physical(unit)}
    return known.pop() if len(known) == 1 else ""


def default_rule(channel: str, unit: str) -> Rule:
    """Return the rule that "auto" stands for, told from the channel's name and the unit of its images."""
    if channel_kind(channel) == "ct" or unit.strip().upper() == "HU":
        return "ct"
    physical = channel.lower() in ("adc", "zadc") or is_physical(unit)
    return "dataset" if physical else "case"
