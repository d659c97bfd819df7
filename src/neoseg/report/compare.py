"""Several runs on the same cases: who is best, by how much, and what chance alone would explain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .summary import PairedDifference, Summary, paired_difference, subject_numbers, summarise

__all__ = ["RunScores", "Standing", "holm", "permutation_p", "standings"]

PERMUTATIONS = 9999
"""Sign patterns that are drawn for a test; up to 13 subjects there are fewer, and all of them are gone through."""

BATCH_VALUES = 10**6
"""Values of such patterns that are held at once."""

SEED = 0
"""Of the paired intervals and tests, the same for every comparison, so that the order of the runs does not matter."""


@dataclass(frozen=True)
class RunScores:
    """One metric of one run, a value for each case.

    Attributes:
        name: of the run.
        values: by case, in the unit of the metric; None where it is undefined.
        worst: by case, what stands in for an undefined value.
        seed: of the run; its interval is then the one of its own report.
        resamples: of that interval.
    """

    name: str
    values: Mapping[str, float | None]
    worst: Mapping[str, float]
    seed: int = 0
    resamples: int = 2000


@dataclass(frozen=True)
class Standing:
    """A run among others; the fields after ``summary`` are None for the best one.

    Attributes:
        name: of the run.
        summary: over the cases.
        difference: this run minus the best one on the same cases, the worst value in place of an undefined one.
        p: of the test that the mean of this difference is 0.
        p_holm: the same, corrected for the number of runs.
    """

    name: str
    summary: Summary
    difference: PairedDifference | None = None
    p: float | None = None
    p_holm: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {
            "run": self.name,
            **self.summary.to_json(),
            "minus_best": self.difference.to_json() if self.difference else None,
            "p": self.p,
            "p_holm": self.p_holm,
        }


def standings(
    runs: Sequence[RunScores], *, better: Literal["higher", "lower"], subjects: Mapping[str, str] | None = None
) -> tuple[Standing, ...]:
    """Return the runs, best first by the mean with the worst value put in, each tested against the first one.

    Of runs with the same mean the one that was given first stands first.

    Args:
        runs: two or more, all with values of the same cases.
        better: which values are.
        subjects: case to subject; None where each case is of a subject of its own.

    Raises:
        InputError: a single run, no case, or runs with different cases.
    """
    if len(runs) < 2:
        raise InputError(f"A comparison wants two runs or more, but {len(runs)} was given.")
    cases = sorted(runs[0].values)
    for run in runs:
        if sorted(run.values) != cases or not cases:
            raise InputError(
                f"A comparison wants the same cases in all runs, at least one, but {runs[0].name} has {len(cases)} and "
                f"{run.name} has {len(run.values)}, some of them others; reduce both to the cases that they share."
            )
    sign = -1.0 if better == "higher" else 1.0
    filled = {id(run): _filled(run, cases) for run in runs}
    whose = None if subjects is None else [subjects[case] for case in cases]
    order = sorted(runs, key=lambda run: sign * float(filled[id(run)].mean()))
    best = filled[id(order[0])]
    differences = {
        id(run): paired_difference(
            filled[id(run)].tolist(),
            best.tolist(),
            np.random.default_rng(SEED),
            resamples=run.resamples,
            subjects=whose,
        )
        for run in order[1:]
    }
    chances = [permutation_p(filled[id(run)], best, np.random.default_rng(SEED), whose) for run in order[1:]]
    return (
        Standing(order[0].name, _summary(order[0], subjects)),
        *(
            Standing(run.name, _summary(run, subjects), differences[id(run)], p, p_holm)
            for run, p, p_holm in zip(order[1:], chances, holm(chances), strict=True)
        ),
    )


def permutation_p(
    a: NDArray[np.float64],
    b: NDArray[np.float64],
    generator: np.random.Generator,
    subjects: Sequence[str] | None = None,
) -> float:
    """Return the two-sided p value of the paired permutation test of equal means.

    If the two runs were alike, the differences of each subject could as well have had the other sign, those of all its
    cases together. The p value is the share of sign patterns whose mean difference over the cases is at least as far
    from 0 as the one found; all patterns up to 13 subjects, 9999 random ones beyond (Fisher, The Design of Experiments,
    1935, section 21; scipy.stats.permutation_test).

    Args:
        a, b: one value a case, in the same order.
        generator: draws the patterns.
        subjects: whose each case is; None where each is of a subject of its own.
    """
    from scipy.stats import permutation_test

    def mean_difference(x: NDArray[np.float64], y: NDArray[np.float64], axis: int = -1) -> Any:
        return np.mean(x - y, axis=axis)

    if subjects is not None:
        whose = subject_numbers(subjects, a.size)
        # the mean over cases is that of the subjects' sums but for a factor that all patterns share
        a, b = (np.asarray(np.bincount(whose, weights=values), dtype=np.float64) for values in (a, b))
    if a.size < 2:
        return 1.0  # both signs of one difference are equally far from 0
    found = permutation_test(
        (a, b),
        mean_difference,
        permutation_type="samples",
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, BATCH_VALUES // a.size),
        random_state=generator,
    )
    return float(found.pvalue)


def holm(chances: Sequence[float]) -> list[float]:
    """Return p values corrected for their number (Holm, Scandinavian Journal of Statistics 6, 1979), in their order."""
    corrected, largest = [0.0] * len(chances), 0.0
    for place, index in enumerate(np.argsort(chances, kind="stable")):
        largest = max(largest, min(1.0, (len(chances) - place) * chances[index]))
        corrected[index] = largest
    return corrected


def _filled(run: RunScores, cases: Sequence[str]) -> NDArray[np.float64]:
    values = [run.values[case] for case in cases]
    return np.array([run.worst[c] if v is None else v for c, v in zip(cases, values, strict=True)], dtype=np.float64)


def _summary(run: RunScores, subjects: Mapping[str, str] | None) -> Summary:
    return summarise(
        list(run.values.values()),
        [run.worst[case] for case in run.values],
        generator=np.random.default_rng([run.seed, 2]),
        resamples=run.resamples,
        subjects=None if subjects is None else [subjects[case] for case in run.values],
    )
