"""Post-processing, chosen by mean scores on cases that are not scored with it: for networks and rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.configs import Criterion, PostprocessSearch
from ..inference.postprocess import Lesions, scores_by_size

__all__ = ["Choice", "best_choice", "best_counts", "class_table", "score_table"]


@dataclass(frozen=True)
class Choice:
    """A chosen post-processing with the scores that it reached.

    Attributes:
        threshold: as tried, of a probability or in a channel's unit; 0.5, unused, with several foreground classes.
        minimum_lesion_mm3: smaller components are removed.
        dice: mean Dice over the cases that it was chosen on; optimistic, for information only.
        cases: how many those were.
        keep_largest: how many of the largest components of each foreground class stay, 0 for all; empty: all.
        lesion_f1: mean lesion-wise F1 over the same cases; ``None`` in runs of versions that did not compute it.
        criterion: what it was chosen by.
    """

    threshold: float
    minimum_lesion_mm3: float
    dice: float
    cases: int
    keep_largest: Sequence[int] = ()
    lesion_f1: float | None = None
    criterion: Criterion = "dice"


def score_table(
    mask_at: Callable[[float], NDArray[np.uint8]],
    truth: NDArray[np.uint8],
    *,
    thresholds: Sequence[float],
    search: PostprocessSearch,
    voxel_mm3: float,
) -> NDArray[np.float64]:
    """Return the scores of one case for each post-processing of one foreground class.

    Args:
        mask_at: threshold to class indices ``(x, y, z)``, 0 or 1.
        truth: class indices ``(x, y, z)``.
        thresholds: what is tried.
        search: the smallest lesions and counts of largest components that are tried.
        voxel_mm3: volume of a voxel.

    Returns:
        ``(2, thresholds, smallest lesions, counts)``: Dice and lesion-wise F1, see
        :func:`neoseg.inference.postprocess.scores_by_size`.
    """
    least = np.asarray(search.minimum_lesion_mm3, dtype=np.float64) / voxel_mm3
    lesions = Lesions.of(truth)
    found = [scores_by_size(mask_at(t), lesions, 2, least, search.keep_largest)[0] for t in thresholds]
    return np.stack([[scores.dice for scores in found], [scores.lesion_f1 for scores in found]])


def class_table(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], *, search: PostprocessSearch, classes: int
) -> NDArray[np.float64]:
    """Return the scores of one case of several foreground classes for each count of largest components.

    Args:
        mask, truth: class indices ``(x, y, z)``.
        search: the counts that are tried.
        classes: with background.

    Returns:
        ``(2, classes - 1, counts)``: Dice and lesion-wise F1.
    """
    found = scores_by_size(mask, Lesions.of(truth), classes, [0.0], search.keep_largest)
    return np.stack([[scores.dice[0] for scores in found], [scores.lesion_f1[0] for scores in found]])


def best_choice(
    tables: Sequence[NDArray[np.float64]],
    *,
    thresholds: Sequence[float],
    search: PostprocessSearch,
    usual: float | None = None,
    subjects: Sequence[str] | None = None,
) -> Choice:
    """Return a candidate by its mean over cases of what ``search.criterion`` names.

    Thresholds are judged by the mean of themselves and their neighbours, so that a lucky single value does not win.
    Of a few cases many candidates reach nearly the same mean, and which one is highest is chance. So with ``usual``
    all candidates count as good whose mean lies within one standard error, over the subjects, of the difference from
    the highest one (Breiman, Friedman, Olshen and Stone, Classification and Regression Trees, 1984, section 3.4.3, in
    pairs); of these the threshold nearest to the usual one is taken, then the smaller volume, and all components before
    some. Without it, and of a single subject, the highest mean is taken; of equal ones the smaller volume, all
    components, and the threshold nearer the middle of the list.

    Args:
        tables: one of :func:`score_table` a case.
        thresholds: those of the tables.
        search: that of the tables.
        usual: the threshold that is taken where nothing speaks against it; ``None``: there is none.
        subjects: of each table, whose cases are not independent; ``None``: each is of another.
    """
    dice, f1 = np.mean(tables, axis=0)
    judged = np.stack([_judged(table[0], table[1], search.criterion) for table in tables])
    padded = np.pad(judged, ((0, 0), (1, 1), (0, 0), (0, 0)), mode="edge")
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    middle = (len(thresholds) - 1) / 2
    volumes, counts = search.minimum_lesion_mm3, search.keep_largest
    good = _as_good_as_the_best(smooth, 0.0 if usual is None else 1.0, subjects)
    i, j, k = min(
        (at for at in np.ndindex(good.shape) if good[at]),
        key=lambda at: (
            0.0 if usual is None else round(abs(thresholds[at[0]] - usual), 9),
            volumes[at[1]],
            _fewer(counts[at[2]]),
            abs(at[0] - middle),
        ),
    )
    return Choice(
        threshold=float(thresholds[i]),
        minimum_lesion_mm3=float(volumes[j]),
        dice=float(dice[i, j, k]),
        cases=len(tables),
        keep_largest=(counts[k],) if counts[k] else (),
        lesion_f1=float(f1[i, j, k]),
        criterion=search.criterion,
    )


def best_counts(
    tables: Sequence[NDArray[np.float64]], *, search: PostprocessSearch, subjects: Sequence[str] | None = None
) -> Choice:
    """Return for each foreground class a count of largest components by its mean over cases.

    As in :func:`best_choice` all counts are good whose mean lies within one standard error of the highest; of these all
    components are taken before some, and more before fewer.

    Args:
        tables: one of :func:`class_table` a case.
        search: that of the tables.
        subjects: as of :func:`best_choice`.
    """
    dice, f1 = np.mean(tables, axis=0)
    judged, counts = np.stack([_judged(table[0], table[1], search.criterion) for table in tables]), search.keep_largest
    picks = []
    for index in range(judged.shape[1]):
        good = _as_good_as_the_best(judged[:, index], 1.0, subjects)
        picks.append(min(np.flatnonzero(good), key=lambda k: _fewer(counts[k])))
    rows = np.arange(len(picks))
    return Choice(
        threshold=0.5,
        minimum_lesion_mm3=0.0,
        dice=float(dice[rows, picks].mean()),
        cases=len(tables),
        keep_largest=tuple(counts[k] for k in picks),
        lesion_f1=float(f1[rows, picks].mean()),
        criterion=search.criterion,
    )


def _as_good_as_the_best(
    scores: NDArray[np.float64], standard_errors: float, subjects: Sequence[str] | None
) -> NDArray[np.bool_]:
    """Tell which candidates of ``(cases, *candidates)`` have a mean near the highest one.

    Near is within so many standard errors of the mean difference between the two on the same cases; a subject's cases
    are one draw (the cluster-robust standard error of a mean: Cameron and Miller, Journal of Human Resources 2015).
    """
    flat = scores.reshape(len(scores), -1)
    behind = flat[:, [int(flat.mean(axis=0).argmax())]] - flat
    _, owner = np.unique(np.arange(len(flat)) if subjects is None else np.asarray(subjects), return_inverse=True)
    draws = int(owner.max()) + 1
    sums = np.zeros((draws, flat.shape[1]))
    np.add.at(sums, owner, behind - behind.mean(axis=0))
    correction = draws / (draws - 1) if draws > 1 else 0.0
    error = np.sqrt(correction * (sums**2).sum(axis=0)) / len(flat)
    return np.asarray(behind.mean(axis=0) <= standard_errors * error + 1e-9).reshape(scores.shape[1:])


def _judged(dice: NDArray[np.float64], f1: NDArray[np.float64], criterion: Criterion) -> NDArray[np.float64]:
    return {"dice": dice, "lesion_f1": f1, "both": (dice + f1) / 2}[criterion]


def _fewer(count: int) -> float:
    """Sort counts so that all components come first and the fewest last."""
    return -count if count else -np.inf
