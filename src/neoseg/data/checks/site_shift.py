"""Sites, or groups of cases without a site, whose intensities lie on another level."""

from __future__ import annotations

import math

from ..site_levels import FEWEST_CASES, Level, sites_that_differ, two_groups
from ..units import MICRO, UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro
from .facts import CaseFacts, DataFacts
from .problem import Problem, warning

__all__ = ["site_shift"]


def site_shift(data: DataFacts) -> list[Problem]:
    """Report sites whose images lie on another level than those of the others, and unnamed groups of ADC maps.

    The level of a case is the 90th percentile in the middle of its head: healthy white matter, which injury moves
    little. ADC is compared in 1e-6 mm2/s whatever the unit of the file. Cases of one site, or without one, are looked
    through for two groups when the channel is an ADC map; other images have no scale that two scanners share.
    """
    found = []
    for channel in data.channels:
        levels = [level for facts in data.cases if (level := _level(facts, channel)) is not None]
        adc = channel_kind(channel) == "adc"
        unit = f" in {MICRO}" if adc else ""
        advice = (
            "thresholds, atlas and Z map made on one do not hold on the other; look at the scanners' scaling, and do "
            "not trust a split that mixes them"
        )
        what = f"(90th percentile of {channel} in the middle of the head{unit})"
        if told := sites_that_differ(levels):
            found.append(warning("", None, f"{told} {what}; {advice}."))
        for site, group in _groups(levels).items() if adc else ():
            if told := two_groups(group):
                where = f"site {site}: " if site else ""
                found.append(warning("", None, f"{where}{told} {what}; name the sites in the column `site`; {advice}."))
    return found


def _groups(levels: list[Level]) -> dict[str, list[Level]]:
    """Return the cases of each site; all as one group where fewer than two sites can be compared."""
    sites: dict[str, list[Level]] = {}
    for level in levels:
        sites.setdefault(level.site, []).append(level)
    comparable = [site for site, group in sites.items() if site and len(group) >= FEWEST_CASES]
    return sites if len(comparable) > 1 else {"": levels}


def _level(facts: CaseFacts, channel: str) -> Level | None:
    file = facts.images.get(channel)
    if file is None or math.isnan(file.upper):
        return None
    unit = facts.case.units.get(channel) or (adc_unit(file.level) if channel_kind(channel) == "adc" else "")
    factor = factor_to_micro(unit) if unit in UNITS_OF_ADC else 1.0
    return Level(facts.case.case, facts.case.site, file.upper * factor)
