"""The unit of each ADC map, told from the median in the middle of the head."""

from __future__ import annotations

import math

from ..units import MICRO, UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro
from .facts import DataFacts
from .problem import Problem, error, warning

__all__ = ["adc_units"]


def adc_units(data: DataFacts) -> list[Problem]:
    """Report ADC maps in another unit than 1e-6 mm2/s, in none that is plausible, or in another than declared."""
    found = []
    for facts in data.cases:
        for channel, file in facts.images.items():
            declared = facts.case.units.get(channel, "")
            if (channel_kind(channel) != "adc" and declared not in UNITS_OF_ADC) or math.isnan(file.level):
                continue
            told = adc_unit(file.level)
            of_median = f"The median in the middle of the head is {file.level:.4g}"
            if declared and declared not in UNITS_OF_ADC:
                sentence = f"The unit {declared!r} is not one of an ADC map ({', '.join(UNITS_OF_ADC)}); correct it."
                found.append(error(facts.case.case, file.path, sentence))
            elif not told:
                sentence = (
                    f"{of_median}, which is no plausible ADC in any of {', '.join(UNITS_OF_ADC)}; check the file."
                )
                found.append(warning(facts.case.case, file.path, sentence))
            elif declared and factor_to_micro(declared) != factor_to_micro(told):
                sentence = f"{of_median}: that is {told}, but {declared} is declared; correct the unit_ column."
                found.append(error(facts.case.case, file.path, sentence))
            elif factor_to_micro(told) != 1.0:
                sentence = f"{of_median}: ADC recognised in {told}; it will be converted to {MICRO}."
                found.append(warning(facts.case.case, file.path, sentence))
    return found
