"""How often sites on another scale are found in cohorts of procedural heads, and how often there is a false alarm.

python benchmarks/sites.py   writes benchmarks/results/sites.json
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from machine import machine
from neoseg.atomic import write_json
from neoseg.data.foreground import head_levels
from neoseg.data.site_levels import Level, sites_that_differ, two_groups
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.phantom.lesions import stratified

RESULT = Path(__file__).parent / "results" / "sites.json"
HEADS, COHORTS = 60, 50
CONFIG = HeadConfig(point_mm=(1.7, 3.5))
CHANGES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "none": lambda v: v,
    "+600": lambda v: v + 600,
    "+300": lambda v: v + 300,
    "* 1.46": lambda v: v * 1.46,
    "* 1.2": lambda v: v * 1.2,
    "* 0.7": lambda v: v * 0.7,
}


def main() -> None:
    burdens: list[float | None] = [*stratified(np.random.default_rng(3), 2 * HEADS // 3), *[None] * (HEADS // 3)]
    upper, median = [], []
    for seed, burden in enumerate(burdens):
        head = make_head(np.random.default_rng([91, seed]), CONFIG, lesion_burden=burden)
        low, high = head_levels(head.adc.array[0])
        median.append(low)
        upper.append(high)
    values = np.array(upper)
    found = {}
    for count in (6, 12, 24, 48):
        for name, change in CHANGES.items():
            hits = [0, 0]
            for seed in range(COHORTS):
                some = np.random.default_rng(seed).permutation(values)[:count]
                some = np.where(np.arange(count) % 2 == 0, change(some), some)
                levels = [Level(f"c{i}", f"S{i % 2}", float(v)) for i, v in enumerate(some)]
                hits[0] += bool(sites_that_differ(levels))
                hits[1] += bool(two_groups(levels))
            found[f"{count} cases, half of them {name}"] = {
                "with_site": hits[0] / COHORTS,
                "without_site": hits[1] / COHORTS,
            }
    spread = {
        "upper_mean": round(float(values.mean()), 1),
        "upper_sd_share": round(float(values.std(ddof=1) / values.mean()), 4),
        "median_mean": round(float(np.mean(median)), 1),
        "median_sd_share": round(float(np.std(median, ddof=1) / np.mean(median)), 4),
    }
    what = f"share of {COHORTS} cohorts, drawn from {HEADS} procedural heads, in which sites are said to differ"
    write_json(RESULT, {"what": what, "machine": machine(), "levels": spread, "found": found})


if __name__ == "__main__":
    main()
