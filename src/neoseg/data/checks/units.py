"""Units of one channel that differ from case to case."""

from __future__ import annotations

from ..units import UNITS_OF_ADC, channel_kind, is_physical
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["units"]


def units(data: DataFacts) -> list[Problem]:
    """Report images whose declared unit is not that of the case before; maps of ADC are converted, others are not."""
    found: list[Problem] = []
    first: dict[str, tuple[str, str]] = {}
    for facts in data.cases:
        for channel, file in facts.images.items():
            unit = facts.case.units.get(channel, "").strip()
            if not is_physical(unit) or unit in UNITS_OF_ADC or channel_kind(channel) == "adc":
                continue
            case, usual = first.setdefault(channel, (facts.case.case, unit))
            if unit != usual:
                sentence = (
                    f"The unit of {channel} is {unit!r} here and {usual!r} in case {case}; bring the images to one "
                    "unit, and correct the unit_ column of cases.csv."
                )
                found.append(error(facts.case.case, file.path, sentence))
    return found
