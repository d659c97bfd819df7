"""Sites whose images lie on another level than the others': by the site of each case, or by a split of the levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Level", "sites_that_differ", "two_groups"]

FEWEST_CASES = 3
"""Fewer cases tell nothing of a site."""

PLAUSIBLE_SHIFT = 0.15
"""Share of the level by which scans of one scale may differ between sites: scanners, protocols, ages."""

STANDARD_ERRORS = 4.0
"""A shift has to exceed its standard error this many times."""

SMALLEST_SCATTER = 0.05
"""Share of the level that cases of one site scatter at least; that of three cases is often too small by chance."""

SPLIT_SHIFT, SPLIT_DISTANCE, SPLIT_MORE = 0.25, 3.0, 4.0
"""Without sites: two groups lie apart by this share of the lower, and by ``3 + 4 / n`` standard deviations. The best
split of one normal group of 20 lies 3 apart; chance grows with fewer cases.
"""

SMALLEST_GROUP = 0.1
"""Share of the cases that the smaller of two groups holds: single cases are no site."""


@dataclass(frozen=True)
class Level:
    """The level of one case: a percentile over its brain, in a unit that all cases share.

    Attributes:
        case: its name.
        site: hospital or scanner, "" when it is not known.
        value: the level, above 0.
    """

    case: str
    site: str
    value: float


def sites_that_differ(levels: Sequence[Level]) -> str:
    """Return what is to be said about the sites: their numbers when they differ by more than is plausible, or "".

    A site's level is the median of its cases; it is compared with the median of all cases of the other sites. The
    scatter is the median absolute deviation from the own site's median, times 1.4826 (the standard deviation of normal
    data), and the standard error of a median is 1.2533 scatters over the root of the number of cases. Robust numbers
    are used because heads with large injuries lie below their site.

    Args:
        levels: cases that are comparable, patients and healthy.
    """
    sites = _by_site(levels)
    if len(sites) < 2:
        return ""
    centre = float(np.median([v for values in sites.values() for v in values]))
    deviations = [abs(v - float(np.median(values))) for values in sites.values() for v in values]
    scatter = max(1.4826 * float(np.median(deviations)), SMALLEST_SCATTER * abs(centre))
    odd = []
    for site, values in sites.items():
        rest = [v for other, group in sites.items() if other != site for v in group]
        shift = abs(float(np.median(values)) - float(np.median(rest)))
        error = 1.2533 * scatter * (1 / len(values) + 1 / len(rest)) ** 0.5
        if shift > max(PLAUSIBLE_SHIFT * abs(centre), STANDARD_ERRORS * error):
            odd.append(site)
    if not odd:
        return ""
    medians = {site: float(np.median(values)) for site, values in sites.items()}
    numbers = ", ".join(f"{site} {medians[site]:.4g} (n {len(sites[site])})" for site in sorted(sites))
    low, high = min(medians.values()), max(medians.values())
    return f"The sites differ by {high - low:.4g}, more than scans on one scale do: {numbers}"


def two_groups(levels: Sequence[Level]) -> str:
    """Return what is to be said about cases of one site or of unknown sites that fall into two groups, or "".

    Of all cuts of the sorted levels the one is taken whose groups lie furthest apart in pooled standard deviations
    (Ashman's D for equal variances).

    Args:
        levels: cases that are comparable and should be one group.
    """
    count = len(levels)
    fewest = max(FEWEST_CASES, int(np.ceil(SMALLEST_GROUP * count)))
    if count < 2 * fewest:
        return ""
    ordered = sorted(levels, key=lambda level: level.value)
    values = np.array([level.value for level in ordered])
    cut = max(range(fewest, count - fewest + 1), key=lambda k: _distance(values[:k], values[k:]))
    low, high = values[:cut], values[cut:]
    shift = float(np.median(high) - np.median(low))
    apart = SPLIT_DISTANCE + SPLIT_MORE / count
    if shift <= SPLIT_SHIFT * abs(float(np.median(low))) or _distance(low, high) <= apart:
        return ""
    some = ", ".join(level.case for level in ordered[cut:][:FEWEST_CASES])
    return (
        f"The cases fall into two groups that lie {shift:.4g} apart, as if from two scanners or scales: "
        f"{float(np.median(low)):.4g} (n {len(low)}) and {float(np.median(high)):.4g} (n {len(high)}: {some}, ...)"
    )


def _by_site(levels: Sequence[Level]) -> dict[str, list[float]]:
    """Return the levels of every site that has enough cases."""
    sites: dict[str, list[float]] = {}
    for level in levels:
        if level.site:
            sites.setdefault(level.site, []).append(level.value)
    return {site: values for site, values in sites.items() if len(values) >= FEWEST_CASES}


def _distance(low: NDArray[np.float64], high: NDArray[np.float64]) -> float:
    squares = float(np.square(low - low.mean()).sum() + np.square(high - high.mean()).sum())
    pooled = float(np.sqrt(squares / (len(low) + len(high) - 2)))
    return float(high.mean() - low.mean()) / max(pooled, 0.01 * abs(float(low.mean())), 1e-12)
