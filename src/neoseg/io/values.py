"""Which number type a volume is kept in after reading, and which it is written in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

__all__ = ["as_read", "as_written"]

LABEL_LIKE = 1e-3
"""Floating-point files whose values all lie this near to whole numbers are taken for labels when choosing a type."""


def as_read(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the values in the type that neoseg keeps: integers as stored, floating point as float32 where it can.

    float64 is kept where float32 would make a finite value infinite, or would round away that the values of a label
    are not whole (0.99999997 becomes 1 in float32).

    Raises:
        InputError: complex or colour voxels.
    """
    kind = array.dtype.kind
    if kind == "b":
        return array.astype(np.uint8)
    if kind in "iu":
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if kind != "f":
        raise InputError(
            f"{path}: its voxels are of type {array.dtype}, but one real number a voxel is wanted; "
            "store magnitude or grey values instead."
        )
    if array.dtype.itemsize <= 4:
        return array.astype(np.float32, copy=False)
    wide = array.astype(np.float64, copy=False)
    with np.errstate(over="ignore"):
        narrow = wide.astype(np.float32)
    return wide if _needs_float64(wide, narrow) else narrow


def as_written(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Return the values in a type that every format can write: bool as uint8, half precision as float32.

    Raises:
        InputError: complex, text or other voxels that no format holds.
    """
    if array.dtype.kind == "b":
        return array.astype(np.uint8)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    if array.dtype.kind in "iu" or array.dtype in (np.float32, np.float64):
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    raise InputError(f"{path}: an array of type {array.dtype} cannot be written; convert it to float32 or an integer.")


def _needs_float64(wide: NDArray[np.float64], narrow: NDArray[np.float32]) -> bool:
    finite = np.isfinite(wide)
    if bool((finite & np.isinf(narrow)).any()):
        return True
    values = wide[finite]
    off = np.abs(values - np.rint(values))
    return bool(0 < off.max(initial=0.0) <= LABEL_LIKE)
