"""Powers below one and logarithms whose gradient stays finite at zero."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["bounded_log", "bounded_power"]


def bounded_power(base: Tensor, exponent: float, floor: float = 1e-6) -> Tensor:
    """Return base ** exponent; with an exponent between 0 and 1 a line through zero stands in for it below a floor.

    The slope of such a power is infinite at zero, which is where a perfect prediction lies, and infinity times zero
    is no number. With other exponents this is the power itself.

    Args:
        base: 0 or more, but for rounding.
        exponent: 0 or more.
        floor: where the line begins.
    """
    if exponent == 0 or exponent >= 1:
        return base.pow(exponent)
    return base.clamp_min(floor).pow(exponent).where(base > floor, base * floor ** (exponent - 1))


def bounded_log(value: Tensor, floor: float = 0.05) -> Tensor:
    """Return the logarithm, continued by its tangent below a floor, so that zero and less have a value and a slope."""
    return value.clamp_min(floor).log().where(value > floor, value / floor - 1 + math.log(floor))
