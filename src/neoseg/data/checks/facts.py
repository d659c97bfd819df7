"""The facts that the checks look at: each file is read once, and only numbers are kept of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...io import read_label, read_volume
from ...labels import LabelSet
from ...progress import Progress
from ...volume import Grid
from ..cases import Case
from ..extreme_voxels import extreme_voxels
from ..folds import Fold
from ..foreground import head_levels

__all__ = ["CaseFacts", "DataFacts", "FileFacts", "gather"]


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What is known of one image or label.

    Attributes:
        path: the file.
        missing: there is no such file.
        error: why it could not be read, or "".
        grid: where its voxels lie; None when it could not be read.
        dtype: number type after reading.
        nan, infinite: number of such voxels; a number that float32 cannot hold is infinite for an image.
        minimum, maximum: over the finite voxels; NaN when there are none.
        level, upper: median and 90th percentile in the middle of the head without its background, which say the same
            of a skull-stripped scan and of an unstripped one; NaN for a label and for an image without content.
        zeros: share of the voxels that are exactly 0.
        extreme: what a few voxels of an image reach, where they lie far from all others that are not 0, or "".
        values: for a label, the distinct values (at most 1000); empty for an image.
        digest: SHA-256 of shape, type and voxels in canonical order.
    """

    path: Path
    missing: bool = False
    error: str = ""
    grid: Grid | None = None
    dtype: str = ""
    nan: int = 0
    infinite: int = 0
    minimum: float = float("nan")
    maximum: float = float("nan")
    level: float = float("nan")
    upper: float = float("nan")
    zeros: float = 0.0
    extreme: str = ""
    values: tuple[float, ...] = ()
    digest: str = ""

    @property
    def constant(self) -> bool:
        """Whether every finite voxel has the same value."""
        return self.grid is not None and not self.minimum < self.maximum


@dataclass(frozen=True)
class CaseFacts:
    """One case with the facts of its files by channel (of those that are read), of its label and of its brain mask."""

    case: Case
    images: dict[str, FileFacts]
    label: FileFacts | None
    mask: FileFacts | None = None


@dataclass(frozen=True)
class DataFacts:
    """A data set as the checks see it.

    Attributes:
        cases: in the order of cases.csv.
        labels: the declared classes.
        channels: the channels that every patient needs, in order.
        folds: the cross-validation, when it is made already.
    """

    cases: tuple[CaseFacts, ...]
    labels: LabelSet
    channels: tuple[str, ...]
    folds: tuple[Fold, ...] = ()


def gather(
    cases: Sequence[Case], progress: Progress, read: Callable[[Case], Collection[str]] | None = None
) -> tuple[CaseFacts, ...]:
    """Read every file of every case once; see :func:`neoseg.data.checks.run_checks`."""
    found = []
    with progress.track("Reading files", len(cases)) as advance:
        for case in cases:
            wanted = case.images if read is None else read(case)
            paths = {n: p for n, p in case.images.items() if n in wanted or not p.is_file()}
            images = {name: _image(path, case.channel_index.get(name)) for name, path in paths.items()}
            label = _label(case.label) if case.label is not None else None
            mask = _label(case.mask) if case.mask is not None else None
            found.append(CaseFacts(case, images, label, mask))
            advance(1, case.case)
    return tuple(found)


_MOST_VALUES = 1000


def _image(path: Path, index: int | None) -> FileFacts:
    return _facts(path, index, label=False)


def _label(path: Path) -> FileFacts:
    return _facts(path, None, label=True)


def _facts(path: Path, index: int | None, *, label: bool) -> FileFacts:
    if not path.is_file():
        return FileFacts(path=path, missing=True, error=f"{path}: this file does not exist.")
    try:
        volume = read_label(path) if label else read_volume(path, volume_index=index)
    except InputError as problem:
        return FileFacts(path=path, error=str(problem))
    array = volume.array
    finite = array[np.isfinite(array)] if array.dtype.kind == "f" else array.ravel()
    level, upper = (float("nan"), float("nan")) if label else head_levels(array[0])
    return FileFacts(
        path=path,
        grid=volume.grid,
        dtype=str(array.dtype),
        nan=int(np.isnan(array).sum()),
        infinite=_infinite(array, label=label),
        minimum=float(finite.min()) if finite.size else float("nan"),
        maximum=float(finite.max()) if finite.size else float("nan"),
        level=level,
        upper=upper,
        zeros=float((array == 0).mean()),
        extreme="" if label else _extreme(finite),
        values=tuple(float(v) for v in np.unique(array)[:_MOST_VALUES]) if label else (),
        digest=_digest(array),
    )


def _extreme(finite: NDArray[Any]) -> str:
    """Return what a few voxels reach; zeros may be surroundings, and what float32 cannot hold is told as infinite."""
    held = np.abs(finite) <= float(np.finfo(np.float32).max)
    return extreme_voxels(finite[held & (finite != 0)]) or ""


def _infinite(array: NDArray[Any], *, label: bool) -> int:
    if not label:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    return int(np.isinf(array).sum())


def _digest(array: NDArray[Any]) -> str:
    content = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    content.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return content.hexdigest()
