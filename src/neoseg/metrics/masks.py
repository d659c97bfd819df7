"""Pairs of binary masks: the checks before any score, and the box outside which nothing has to be looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError

__all__ = ["check_pair", "common_box"]


def check_pair(
    truth: NDArray[np.bool_], prediction: NDArray[np.bool_], spacing_mm: Sequence[float]
) -> tuple[float, ...]:
    """Check a pair of masks and return the spacing as floats.

    Args:
        truth: bool (x, y, z) or (x, y).
        prediction: bool, of the same shape.
        spacing_mm: voxel spacing along each array axis, in mm.

    Raises:
        InputError: a mask is not bool.
        GeometryError: the shapes differ, the masks are not 2-D or 3-D, a spacing is missing or not positive.
    """
    for name, mask in (("truth", truth), ("prediction", prediction)):
        if mask.dtype != np.bool_:
            raise InputError(
                f"The {name} mask has the type {mask.dtype}, but a bool array is wanted; select the class first, "
                "such as with `array == 1`."
            )
    if truth.shape != prediction.shape:
        raise GeometryError(
            f"The truth has the shape {truth.shape} and the prediction {prediction.shape}, but only masks on the same "
            "grid can be scored; resample the prediction onto the grid of the truth."
        )
    if truth.ndim not in (2, 3) or truth.size == 0:
        raise GeometryError(f"The masks have the shape {truth.shape}, but (x, y) or (x, y, z) with voxels is wanted.")
    spacing = tuple(float(s) for s in spacing_mm)
    if len(spacing) != truth.ndim or not all(np.isfinite(s) and s > 0 for s in spacing):
        raise GeometryError(
            f"The spacing is {spacing} mm, but {truth.ndim} positive numbers are wanted, one for each array axis."
        )
    return spacing


def common_box(truth: NDArray[np.bool_], prediction: NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the smallest box that holds both masks; of zero size when both are empty."""
    either = truth | prediction
    box: list[slice] = []
    for axis in range(either.ndim):
        # The array is cut after each axis, so that the later and slower directions have less to read.
        cut = either[tuple(box)]
        filled = np.flatnonzero(cut.any(axis=tuple(a for a in range(either.ndim) if a != axis)))
        if filled.size == 0:
            return (slice(0, 0),) * either.ndim
        box.append(slice(int(filled[0]), int(filled[-1]) + 1))
    return tuple(box)
