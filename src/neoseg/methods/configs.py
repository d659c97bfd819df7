"""Configs of the methods that stand beside the network."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field, model_validator

__all__ = ["RuleConfig"]


class RuleConfig(BaseModel, frozen=True, extra="forbid"):
    """A threshold on one channel, in the channel's physical unit, such as Z < a or ADC < b.

    Attributes:
        name: short name in scores and reports ("z", "adc").
        channel: the channel that is compared.
        side: "below": lesion where the value is smaller than the threshold; "above": where it is larger.
        low, high, count: the thresholds that are tried, evenly spaced.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$")
    channel: str
    side: Literal["below", "above"] = "below"
    low: float
    high: float
    count: int = Field(33, ge=2, le=500)

    @model_validator(mode="after")
    def _range_is_one(self) -> RuleConfig:
        if not self.low < self.high:
            raise ValueError(f"low = {self.low:g} has to be smaller than high = {self.high:g}")
        if self.name == "network":
            raise ValueError("the name 'network' is the network's own; give the rule another one")
        return self
