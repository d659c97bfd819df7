"""One decision of the planner, with the numbers that led to it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

__all__ = ["Reason", "as_text"]


class Reason(BaseModel, frozen=True, extra="forbid"):
    """One decision: what was decided, its value as text, the rule, and the numbers that the rule was given."""

    what: str
    value: str
    why: str
    inputs: str = ""

    @property
    def told(self) -> str:
        """The rule and its numbers in one line."""
        return f"{self.why} (from: {self.inputs})" if self.inputs else self.why


def as_text(value: Any) -> str:
    """Return a value as it stands in a reason: lists as ``48 x 48 x 24``."""
    if isinstance(value, tuple | list):
        return " x ".join(as_text(v) for v in value)
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else f"{value}"
