"""Scores of overlap and volume; all of them read one record, :class:`Counts`.

Definitions as in Metrics Reloaded (Maier-Hein et al., Nature Methods 21, 2024) and Taha and Hanbury (BMC Medical
Imaging 15:29, 2015). A quotient of nothing by nothing is nan here; what a case without lesion then scores is stated,
metric by metric, in :mod:`neoseg.metrics.table`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .masks import check_pair

__all__ = [
    "Counts",
    "count_voxels",
    "dice",
    "iou",
    "precision",
    "relative_volume_difference",
    "sensitivity",
    "volume_difference",
]

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Counts:
    """Voxels of a pair of masks by agreement.

    Attributes:
        tp: voxels in both masks.
        fp: voxels in the prediction only.
        fn: voxels in the truth only.
        tn: voxels in neither.
        voxel_ml: volume of a voxel in mL (for 2-D masks: area of a pixel in cm2, which is 1 mL at 1 cm depth).
    """

    tp: int
    fp: int
    fn: int
    tn: int
    voxel_ml: float

    @property
    def truth(self) -> int:
        """Voxels of the truth."""
        return self.tp + self.fn

    @property
    def prediction(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp


def count_voxels(truth: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Sequence[float]) -> Counts:
    """Count the voxels of two masks by agreement.

    Args:
        truth: bool (x, y, z) or (x, y).
        prediction: bool, of the same shape.
        spacing_mm: voxel spacing along each array axis, in mm.

    Raises:
        InputError: a mask is not bool.
        GeometryError: shapes or spacing do not fit.
    """
    spacing = check_pair(truth, prediction, spacing_mm)
    in_truth, in_prediction = int(np.count_nonzero(truth)), int(np.count_nonzero(prediction))
    tp = int(np.count_nonzero(truth & prediction)) if in_truth and in_prediction else 0
    tn = truth.size - in_truth - in_prediction + tp
    return Counts(tp, in_prediction - tp, in_truth - tp, tn, float(np.prod(spacing)) * 10.0 ** -len(spacing))


def dice(counts: Counts) -> float:
    """Dice similarity, 2 tp / (2 tp + fp + fn), 0 to 1 (Dice, Ecology 26, 1945)."""
    return 2 * counts.tp / (counts.truth + counts.prediction) if counts.truth + counts.prediction else _NAN


def iou(counts: Counts) -> float:
    """Intersection over union, tp / (tp + fp + fn), 0 to 1 (Jaccard, 1912)."""
    union = counts.tp + counts.fp + counts.fn
    return counts.tp / union if union else _NAN


def sensitivity(counts: Counts) -> float:
    """Share of the truth that was found, tp / (tp + fn), 0 to 1; nan without truth. Also called recall."""
    return counts.tp / counts.truth if counts.truth else _NAN


def precision(counts: Counts) -> float:
    """Share of the prediction that is right, tp / (tp + fp), 0 to 1; nan without prediction."""
    return counts.tp / counts.prediction if counts.prediction else _NAN


def volume_difference(counts: Counts) -> float:
    """Volume of the prediction minus volume of the truth, in mL; positive when too much was drawn."""
    return (counts.prediction - counts.truth) * counts.voxel_ml


def relative_volume_difference(counts: Counts) -> float:
    """Volume difference over the mean of both volumes, 2 (P - T) / (P + T), -2 to 2.

    This is the volume similarity of ITK's LabelOverlapMeasuresImageFilter (Tustison and Gee, Insight Journal 2009) with
    the prediction as source. Unlike (P - T) / T it is bounded, and defined when the truth is empty (then 2).
    """
    both = counts.prediction + counts.truth
    return 2 * (counts.prediction - counts.truth) / both if both else _NAN
