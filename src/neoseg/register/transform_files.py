"""Transforms as data: a folder of plain arrays with a JSON record that says what they mean."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import DAMAGED_NPZ, read_json, replacing_folder, write_json
from ..errors import InputError
from .transforms import Affine, Chain, Ffd, InverseFfd, Transform, from_arrays, to_arrays

__all__ = ["load_transform", "save_transform", "transform_record"]

ARRAYS, RECORD = "transform.npz", "transform.json"


def transform_record(transform: Transform) -> dict[str, Any]:
    """Return what a transform is, as plain data for JSON; with ``to_arrays`` it is all that a store needs.

    Returns:
        ``maps``, ``units`` and ``steps``, first applied first, each with its kind and what a reader can check.
    """
    steps = transform.transforms if isinstance(transform, Chain) else (transform,)
    return {
        "format": "neoseg transform",
        "version": 1,
        "maps": "fixed world points to moving world points",
        "units": "RAS mm",
        "steps": [_described(step) for step in steps],
    }


def save_transform(transform: Transform, folder: Path, about: Mapping[str, Any] | None = None) -> None:
    """Write a transform as ``transform.npz`` and ``transform.json``; the folder is there whole or not at all.

    Args:
        transform: any.
        folder: replaced when it is there.
        about: plain data that are kept in the record, such as how the transform was found.
    """
    with replacing_folder(folder) as temporary:
        np.savez(temporary / ARRAYS, allow_pickle=False, **to_arrays(transform))
        write_json(temporary / RECORD, {**transform_record(transform), "about": dict(about or {})})


def load_transform(folder: Path) -> Transform:
    """Read a transform that :func:`save_transform` wrote; it has the same bits.

    Raises:
        InputError: a file is missing or damaged, was written by another version, or the two do not belong together.
    """
    try:
        record = read_json(folder / RECORD)
        with (folder / ARRAYS).open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            transform = from_arrays(arrays)
    except (*DAMAGED_NPZ, AttributeError, TypeError) as error:
        raise InputError(f"{folder}: this transform cannot be read ({error}); save it again.") from error
    known = transform_record(transform)
    if not isinstance(record, dict) or any(record.get(key) != value for key, value in known.items()):
        raise InputError(
            f"{folder}: {RECORD} and {ARRAYS} do not belong together or come from another version; save it again."
        )
    return transform


def _described(step: Transform) -> dict[str, Any]:
    if isinstance(step, Affine):
        return {"kind": "affine", "matrix": step.matrix.tolist()}
    ffd = step.forward if isinstance(step, InverseFfd) else step
    assert isinstance(ffd, Ffd)
    return {
        "kind": "inverse_ffd" if isinstance(step, InverseFfd) else "ffd",
        "control_points": list(ffd.coefficients.shape[1:]),
        "spacing_mm": ffd.spacing.tolist(),
        "largest_coefficient_mm": float(np.abs(ffd.coefficients).max()),
        "smallest_jacobian": ffd.smallest_determinant(),
    }
