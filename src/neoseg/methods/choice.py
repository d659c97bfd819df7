"""Threshold and smallest lesion, chosen by mean Dice on cases that are not scored: for networks and rules alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inference.postprocess import dice_by_volume

__all__ = ["Choice", "best_choice", "dice_table"]


@dataclass(frozen=True)
class Choice:
    """A chosen threshold (of a probability, or in a channel's unit) and smallest lesion, with the Dice they reached.

    Attributes:
        threshold: as tried.
        minimum_lesion_mm3: smaller components are removed.
        dice: mean Dice over the cases that it was chosen on; optimistic, for information only.
        cases: how many those were.
    """

    threshold: float
    minimum_lesion_mm3: float
    dice: float
    cases: int


def dice_table(
    mask_at: Callable[[float], NDArray[np.uint8]],
    truth: NDArray[np.uint8],
    *,
    thresholds: Sequence[float],
    volumes_mm3: Sequence[float],
    voxel_mm3: float,
    classes: int = 2,
) -> NDArray[np.float64]:
    """Return the Dice of one case for each threshold (rows) and smallest lesion (columns).

    Args:
        mask_at: threshold to class indices ``(x, y, z)``.
        truth: class indices ``(x, y, z)``.
        thresholds, volumes_mm3: what is tried.
        voxel_mm3: volume of a voxel.
        classes: with background; Dice is the mean over the others. An absent class scores 1 when nothing of it is
            predicted, else 0.
    """
    least = np.asarray(volumes_mm3, dtype=np.float64) / voxel_mm3
    return np.stack([dice_by_volume(mask_at(t), truth, classes, least) for t in thresholds])


def best_choice(
    tables: Sequence[NDArray[np.float64]], *, thresholds: Sequence[float], volumes_mm3: Sequence[float]
) -> Choice:
    """Return the candidate with the highest mean over cases.

    Thresholds are judged by the mean of themselves and their neighbours, so that a lucky single value does not win;
    of equal ones the smaller volume and the threshold nearer the middle of the list are taken.
    """
    mean = np.mean(tables, axis=0)
    padded = np.pad(mean, ((1, 1), (0, 0)), mode="edge")
    smooth = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    middle = (len(thresholds) - 1) / 2
    order = sorted(
        ((i, j) for i in range(len(thresholds)) for j in range(len(volumes_mm3))),
        key=lambda ij: (-round(float(smooth[ij]), 9), volumes_mm3[ij[1]], abs(ij[0] - middle)),
    )
    i, j = order[0]
    return Choice(float(thresholds[i]), float(volumes_mm3[j]), float(mean[i, j]), len(tables))
