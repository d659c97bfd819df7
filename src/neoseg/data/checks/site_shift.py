"""Sites whose intensities differ from all others."""

from __future__ import annotations

import math

import numpy as np

from ..units import UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro
from .facts import CaseFacts, DataFacts
from .problem import Problem, warning

__all__ = ["site_shift"]

FEWEST_CASES = 3
"""Fewer cases tell nothing of a site."""
SMALLEST_SHIFT = 0.2
"""Share of the other sites' median below which a shift is left unsaid."""


def site_shift(data: DataFacts) -> list[Problem]:
    """Report sites whose median of the cases' medians lies outside what scatter within the sites explains.

    The scatter is the median absolute deviation from the own site's median, times 1.4826 (the standard deviation of
    normal data); a shift is reported beyond three of them and 20 per cent. ADC is compared in one unit.
    """
    found = []
    for channel in data.channels:
        sites: dict[str, list[float]] = {}
        for facts in data.cases:
            value = _median(facts, channel)
            if facts.case.site and not math.isnan(value):
                sites.setdefault(facts.case.site, []).append(value)
        for site, values in sites.items():
            rest = [v for other, group in sites.items() if other != site for v in group]
            if min(len(values), len(rest)) < FEWEST_CASES:
                continue
            here, there = float(np.median(values)), float(np.median(rest))
            scatter = [abs(v - np.median(group)) for group in sites.values() for v in group]
            shift = abs(here - there)
            if shift > max(3 * 1.4826 * float(np.median(scatter)), SMALLEST_SHIFT * abs(there)):
                sentence = (
                    f"{channel} of the site {site} has a median of {here:.4g} ({len(values)} cases), the others "
                    f"{there:.4g}; look at the scanner's scaling, and do not trust a split that mixes the sites."
                )
                found.append(warning("", None, sentence))
    return found


def _median(facts: CaseFacts, channel: str) -> float:
    file = facts.images.get(channel)
    if file is None:
        return float("nan")
    unit = facts.case.units.get(channel) or (adc_unit(file.median) if channel_kind(channel) == "adc" else "")
    return file.median * (factor_to_micro(unit) if unit in UNITS_OF_ADC else 1.0)
