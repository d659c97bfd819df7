"""Means with bootstrap intervals, once without undefined cases and once with the worst value in their place.

A metric can be undefined for a case (a surface distance to an empty mask). A mean that leaves such cases out rewards
a method for missing a lesion completely, so every summary also holds the mean with the worst value put in.

Cases of one subject are alike. Where any subject has several of them, intervals are therefore drawn over subjects, each
with all its cases (cluster bootstrap; Davison and Hinkley, 1997, section 3.8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = [
    "BURDEN_PERCENT",
    "BurdenBin",
    "FalsePositives",
    "PairedDifference",
    "Summary",
    "by_burden",
    "false_positives",
    "paired_difference",
    "subject_means",
    "subject_numbers",
    "summarise",
]

BURDEN_PERCENT = (0.0, 1.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Edges of the lesion burden bins in percent of the brain (BONBID-HIE, Sci Data 12:53, 2025)."""

LEVEL = 0.95
"""Share of the resampled means that lies inside an interval."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Summary:
    """One metric over many cases, in the unit of the metric.

    Attributes:
        n: cases, those with an undefined value included.
        n_undefined: cases whose value is undefined.
        mean: mean without the undefined cases; None when no case is left.
        mean_worst: mean with the worst value in place of each undefined one; None when there is no case.
        median: median without the undefined cases.
        sd: standard deviation (n - 1) without the undefined cases; None below two of them.
        interval: 95 % percentile bootstrap interval of ``mean``; None below two subjects with a defined case.
        interval_worst: the same of ``mean_worst``; None below two subjects.
    """

    n: int
    n_undefined: int
    mean: float | None
    mean_worst: float | None
    median: float | None
    sd: float | None
    interval: Interval | None
    interval_worst: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values; what is not known is null, never NaN."""
        return {
            "n": self.n,
            "n_undefined": self.n_undefined,
            "mean": self.mean,
            "mean_worst": self.mean_worst,
            "median": self.median,
            "sd": self.sd,
            "interval": list(self.interval) if self.interval else None,
            "interval_worst": list(self.interval_worst) if self.interval_worst else None,
        }


@dataclass(frozen=True)
class PairedDifference:
    """Mean of first minus second over the cases where both are defined.

    Attributes:
        mean: mean difference; None when no pair is left.
        interval: its 95 % percentile bootstrap interval; None below two subjects with a pair.
        n: pairs used.
    """

    mean: float | None
    interval: Interval | None
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"mean": self.mean, "interval": list(self.interval) if self.interval else None, "n": self.n}


@dataclass(frozen=True)
class BurdenBin:
    """The cases whose lesion fills ``low <= percent < high`` of the brain (the last bin holds its upper edge)."""

    low: float
    high: float
    summary: Summary

    @property
    def name(self) -> str:
        """The bin in words, such as ``1-5 %``."""
        return f"{self.low:g}–{self.high:g} %"

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"low_percent": self.low, "high_percent": self.high} | self.summary.to_json()


@dataclass(frozen=True)
class FalsePositives:
    """What was predicted where there is nothing to find.

    Attributes:
        n: lesion-free cases.
        n_false: those of them with at least one predicted voxel.
        mean_ml: mean predicted volume over all lesion-free cases; None without such cases. Of pictures the area in
            their unit.
        largest_ml: largest predicted volume.
    """

    n: int
    n_false: int
    mean_ml: float | None
    largest_ml: float | None

    def to_json(self, unit: str = "mL") -> dict[str, Any]:
        """Return the fields as JSON values, the sizes named by their unit, such as "px²" of pictures."""
        end = unit.lower().replace("²", "2").replace("³", "3")
        return {"n": self.n, "n_false": self.n_false, f"mean_{end}": self.mean_ml, f"largest_{end}": self.largest_ml}


def summarise(
    values: Sequence[float | None],
    worst_values: Sequence[float],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    subjects: Sequence[str] | None = None,
) -> Summary:
    """Summarise one metric over cases.

    Args:
        values: one a case; None or a value that is not finite means undefined.
        worst_values: for each case the worst value that the metric can take there (the image diagonal for a distance).
        generator: draws the bootstrap; the same state gives the same intervals.
        resamples: bootstrap resamples.
        subjects: whose each case is, see :func:`subject_numbers`.

    Raises:
        InputError: the lists differ in length, or a worst value is not finite.
    """
    found = _numbers(values)
    worst = _numbers(worst_values)
    if found.shape != worst.shape or not np.isfinite(worst).all():
        raise InputError(
            f"A summary wants one finite worst value for each of the {found.size} values, but {worst.tolist()} "
            "were given; take them from the metric's own rule."
        )
    whose = subject_numbers(subjects, found.size)
    defined = np.isfinite(found)
    kept, filled = found[defined], np.where(defined, found, worst)
    interval = _interval(kept, whose[defined], generator, resamples)
    return Summary(
        n=found.size,
        n_undefined=int((~defined).sum()),
        mean=_mean(kept),
        mean_worst=_mean(filled),
        median=float(np.median(kept)) if kept.size else None,
        sd=float(np.std(kept, ddof=1)) if kept.size > 1 else None,
        interval=interval,
        # of the same values: another draw would show two intervals of one mean
        interval_worst=interval if defined.all() else _interval(filled, whose, generator, resamples),
    )


def paired_difference(
    a: Sequence[float | None],
    b: Sequence[float | None],
    generator: np.random.Generator,
    *,
    resamples: int = 2000,
    subjects: Sequence[str] | None = None,
) -> PairedDifference:
    """Compare two methods on the same cases, in the same order: mean of ``a - b``, resampled over subjects.

    Args:
        a, b: one value a case; pairs that are not both defined are left out.
        generator: draws the bootstrap.
        resamples: bootstrap resamples.
        subjects: whose each case is, see :func:`subject_numbers`.

    Raises:
        InputError: the lists differ in length.
    """
    first, second = _numbers(a), _numbers(b)
    if first.shape != second.shape:
        raise InputError(
            f"A paired difference wants the same cases on both sides, but {first.size} and {second.size} values were "
            "given; score both methods on one list of cases."
        )
    difference = first - second
    whose, defined = subject_numbers(subjects, difference.size), np.isfinite(difference)
    kept = difference[defined]
    return PairedDifference(_mean(kept), _interval(kept, whose[defined], generator, resamples), kept.size)


def by_burden(
    values: Sequence[float | None],
    worst_values: Sequence[float],
    percent: Sequence[float],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    subjects: Sequence[str] | None = None,
) -> tuple[BurdenBin, ...]:
    """Summarise within the bins of :data:`BURDEN_PERCENT`, all bins given, empty ones too.

    Cases without any lesion (0 %) are left out: an overlap has no meaning there; see :func:`false_positives`.

    Args:
        values: as in :func:`summarise`.
        worst_values: as in :func:`summarise`.
        percent: true lesion volume of each case in percent of the brain, 0..100.
        generator: draws the bootstrap.
        resamples: bootstrap resamples.
        subjects: as in :func:`summarise`.

    Raises:
        InputError: the lists differ in length, or a percentage is not within 0..100.
    """
    share = _numbers(percent)
    if share.size != len(values) or not ((share >= 0) & (share <= BURDEN_PERCENT[-1])).all():
        raise InputError(
            f"Burden bins want one percentage of the brain within 0..100 for each of the {len(values)} values, but "
            f"{share.tolist()} were given; check the brain mask."
        )
    whose = subject_numbers(subjects, share.size)
    bins = []
    for low, high in pairwise(BURDEN_PERCENT):
        inside = (share >= low) & (share > 0) & ((share < high) | (high == BURDEN_PERCENT[-1]))
        chosen = [int(i) for i in np.flatnonzero(inside)]
        summary = summarise(
            [values[i] for i in chosen],
            [worst_values[i] for i in chosen],
            generator=generator,
            resamples=resamples,
            subjects=[str(whose[i]) for i in chosen],
        )
        bins.append(BurdenBin(low, high, summary))
    return tuple(bins)


def false_positives(predicted_ml: Sequence[float]) -> FalsePositives:
    """Count what was predicted in lesion-free cases, given the predicted volume (mL) of each of them."""
    volumes = _numbers(predicted_ml)
    largest = float(volumes.max()) if volumes.size else None
    return FalsePositives(volumes.size, int((volumes > 0).sum()), _mean(volumes), largest)


def subject_numbers(subjects: Sequence[str] | None, count: int) -> NDArray[np.intp]:
    """Return the number of each value's subject, counted from 0 in the order in which they are met.

    Args:
        subjects: whose each value is; None where each is of a subject of its own.
        count: how many values there are.

    Raises:
        InputError: there is not one subject a value.
    """
    if subjects is None:
        return np.arange(count, dtype=np.intp)
    if len(subjects) != count:
        raise InputError(
            f"One subject is wanted for each of the {count} values, but {len(subjects)} were given; name the subject "
            "of every case."
        )
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(subject, len(numbers)) for subject in subjects], dtype=np.intp)


def subject_means(values: Sequence[float | None], subjects: Sequence[str]) -> list[float | None]:
    """Return the mean of each subject's values, in the order in which they are met; None where none is defined.

    Args:
        values: one a case; None or a value that is not finite means undefined and is left out.
        subjects: whose each case is.

    Raises:
        InputError: there is not one subject a value.
    """
    found = _numbers(values)
    whose, defined = subject_numbers(subjects, found.size), np.isfinite(found)
    own = [found[defined & (whose == number)] for number in range(int(whose.max(initial=-1)) + 1)]
    return [_mean(one) for one in own]


def _numbers(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    return float(values.mean()) if values.size else None


def _interval(
    values: NDArray[np.float64], whose: NDArray[np.intp], generator: np.random.Generator, resamples: int
) -> Interval | None:
    """Percentile bootstrap of the mean (Efron and Tibshirani, 1993, section 13.3), subjects drawn whole."""
    _, place, counts = np.unique(whose, return_inverse=True, return_counts=True)
    if counts.size < 2:
        return None
    drawn = generator.integers(0, counts.size, (resamples, counts.size))
    if counts.max() == 1:
        means = values[drawn].mean(axis=1)
    else:
        sums = np.bincount(place, weights=values)
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
