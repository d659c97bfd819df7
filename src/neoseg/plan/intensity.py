"""How the intensities of each channel are brought to a range that networks learn from: rules and statistics."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, model_validator

__all__ = ["ChannelStatistics", "NormaliseConfig", "Rule", "default_rule"]

Rule = Literal["auto", "case", "dataset", "percentile", "range", "none"]


class NormaliseConfig(BaseModel, frozen=True, extra="forbid"):
    """How one channel is brought to a range that networks learn from.

    Attributes:
        rule: "case": (x - mean) / sd over the foreground of the case itself, for images without a unit.
            "dataset": the mean and sd of the training cases, so that a value means the same in every case (ADC, Z, HU).
            "percentile": the case's 0.5 and 99.5 foreground percentiles become 0 and 1, values beyond are clipped.
            "range": ``low`` and ``high`` become 0 and 1, nothing is clipped.
            "none": left as it is. "auto": "dataset" for a channel with a physical unit, else "case".
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


class ChannelStatistics(BaseModel, frozen=True, extra="forbid"):
    """Foreground mean and sd of one channel over the training cases, in the channel's unit."""

    mean: float
    sd: float


def default_rule(channel: str, unit: str) -> Rule:
    """Return the rule that "auto" stands for."""
    physical = channel.lower() in ("adc", "zadc") or unit not in ("", "a.u.")
    return "dataset" if physical else "case"
