"""Scores of detection, lesion by lesion; all of them read one record, :class:`LesionDetection`.

A lesion is a connected component: voxels that touch by a face, an edge or a corner (26-neighbourhood; 8 in 2-D) belong
together. A true lesion is detected when at least one of its voxels, and at least ``minimum_overlap`` of them, are
predicted. A predicted lesion is right when at least one of its voxels, and at least ``minimum_overlap`` of them, are
true; every other one is a false positive. So one predicted lesion may detect several true ones, and the two quotients
have different numerators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .masks import check_pair, common_box

__all__ = ["LesionDetection", "detect_lesions", "lesion_f1", "lesion_precision", "lesion_sensitivity"]


@dataclass(frozen=True, slots=True)
class LesionDetection:
    """Lesions of a pair of masks by agreement.

    Attributes:
        truth_lesions: connected components of the truth.
        detected: components of the truth that the prediction hits.
        missed_ml: volume of the missed components of the truth, in mL.
        predicted_lesions: connected components of the prediction.
        false_positives: components of the prediction that hit no truth.
        false_positive_ml: volume of these, in mL.
    """

    truth_lesions: int
    detected: int
    missed_ml: float
    predicted_lesions: int
    false_positives: int
    false_positive_ml: float


def detect_lesions(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    minimum_overlap: float = 0.0,
) -> LesionDetection:
    """Match the connected components of two masks.

    Args:
        truth: bool (x, y, z) or (x, y).
        prediction: bool, of the same shape.
        spacing_mm: voxel spacing along each array axis, in mm.
        minimum_overlap: share of a lesion that has to be covered, 0 to 1; 0 asks for one voxel.

    Raises:
        InputError: a mask is not bool.
        GeometryError: shapes or spacing do not fit.
        ConfigError: the overlap is not within 0 and 1.
    """
    spacing = check_pair(truth, prediction, spacing_mm)
    if not 0 <= minimum_overlap <= 1:
        raise ConfigError(f"minimum_overlap is {minimum_overlap}, but a share from 0 to 1 is wanted.")
    box = common_box(truth, prediction)
    voxel_ml = float(np.prod(spacing)) * 10.0 ** -len(spacing)
    truth_lesions, missed, missed_voxels = _unmatched(truth[box], prediction[box], minimum_overlap)
    predicted_lesions, false, false_voxels = _unmatched(prediction[box], truth[box], minimum_overlap)
    return LesionDetection(
        truth_lesions=truth_lesions,
        detected=truth_lesions - missed,
        missed_ml=missed_voxels * voxel_ml,
        predicted_lesions=predicted_lesions,
        false_positives=false,
        false_positive_ml=false_voxels * voxel_ml,
    )


def _unmatched(mask: NDArray[np.bool_], other: NDArray[np.bool_], minimum_overlap: float) -> tuple[int, int, int]:
    """Return how many components a mask has, how many of them the other one does not cover enough, and their voxels."""
    if not mask.any():
        return 0, 0, 0
    import cc3d

    # cc3d fails on bool arrays of one voxel's thickness, and errs on cut-outs that are not contiguous
    whole = np.array(mask, dtype=np.uint8, order="C")
    components, count = cc3d.connected_components(whole, connectivity=8 if mask.ndim == 2 else 26, return_N=True)
    sizes = np.bincount(components[mask], minlength=count + 1)[1:]
    covered = np.bincount(components[mask & other], minlength=count + 1)[1:]
    unmatched = (covered == 0) | (covered < minimum_overlap * sizes)
    return int(count), int(unmatched.sum()), int(sizes[unmatched].sum())


def lesion_sensitivity(lesions: LesionDetection) -> float:
    """Share of the true lesions that were detected, 0 to 1; nan without true lesions."""
    return lesions.detected / lesions.truth_lesions if lesions.truth_lesions else float("nan")


def lesion_precision(lesions: LesionDetection) -> float:
    """Share of the predicted lesions that are right, 0 to 1; nan without predicted lesions."""
    predicted = lesions.predicted_lesions
    return (predicted - lesions.false_positives) / predicted if predicted else float("nan")


def lesion_f1(lesions: LesionDetection) -> float:
    """Harmonic mean of lesion-wise sensitivity and precision, 0 to 1; 0 if one mask has no lesions, nan if both."""
    if not (lesions.truth_lesions and lesions.predicted_lesions):
        return 0.0 if lesions.truth_lesions or lesions.predicted_lesions else float("nan")
    found, right = lesion_sensitivity(lesions), lesion_precision(lesions)
    return 2 * found * right / (found + right) if found + right else 0.0
