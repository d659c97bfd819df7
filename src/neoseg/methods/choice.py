"""Post-processing, chosen by mean scores on cases that are not scored with it: for networks and rules alike."""

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
    tables: Sequence[NDArray[np.float64]], *, thresholds: Sequence[float], search: PostprocessSearch
) -> Choice:
    """Return the candidate with the highest mean over cases of what ``search.criterion`` names.

    Thresholds are judged by the mean of themselves and their neighbours, so that a lucky single value does not win;
    of equal ones the smaller volume, all components before some, and the threshold nearer the middle of the list are
    taken.

    Args:
        tables: one of :func:`score_table` a case.
        thresholds: those of the tables.
        search: that of the tables.
    """
    dice, f1 = np.mean(tables, axis=0)
    padded = np.pad(_judged(dice, f1, search.criterion), ((1, 1), (0, 0), (0, 0)), mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    middle = (len(thresholds) - 1) / 2
    volumes, counts = search.minimum_lesion_mm3, search.keep_largest
    i, j, k = min(
        np.ndindex(smooth.shape),
        key=lambda at: (-round(float(smooth[at]), 9), volumes[at[1]], _fewer(counts[at[2]]), abs(at[0] - middle)),
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


def best_counts(tables: Sequence[NDArray[np.float64]], *, search: PostprocessSearch) -> Choice:
    """Return for each foreground class the count of largest components with the highest mean over cases.

    Args:
        tables: one of :func:`class_table` a case.
        search: that of the tables.
    """
    dice, f1 = np.mean(tables, axis=0)
    judged, counts = _judged(dice, f1, search.criterion), search.keep_largest
    picks = [min(range(len(counts)), key=lambda k: (-round(float(row[k]), 9), _fewer(counts[k]))) for row in judged]
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


def _judged(dice: NDArray[np.float64], f1: NDArray[np.float64], criterion: Criterion) -> NDArray[np.float64]:
    return {"dice": dice, "lesion_f1": f1, "both": (dice + f1) / 2}[criterion]


def _fewer(count: int) -> float:
    """Sort counts so that all components come first and the fewest last."""
    return -count if count else -np.inf
