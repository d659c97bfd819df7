"""Registrations that are kept on disk under what they were made from, so that a stopped building goes on."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ..atomic import DAMAGED_NPZ, replacing
from ..errors import InputError, NeosegError
from ..register.transforms import Transform, from_arrays, to_arrays

__all__ = ["Attempt", "Found", "Remembered", "content_key", "installed_version"]


@dataclass(frozen=True)
class Found:
    """What a registration of one head gave.

    Attributes:
        transform: fixed world to moving world.
        ncc: normalised cross-correlation of the alignment; NaN when none was measured.
        warnings: sentences for the report.
        facts: numbers of the affine alignment, see :meth:`neoseg.register.affine.AffineRegistration.facts`.
    """

    transform: Transform
    ncc: float
    warnings: tuple[str, ...]
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Attempt:
    """What a registration gave, or the sentence that says why it gave nothing."""

    found: Found | None
    error: str | None


@dataclass(frozen=True)
class Remembered:
    """A registration of one job that is done once: its result lies in a folder under a hash of all that it depends on.

    Attributes:
        function: gives the result of a job; defined at the top of a module, so that workers can be told of it.
        folder: where results are kept; ``None``: nowhere.
    """

    function: Callable[[Any], Found]
    folder: Path | None

    def __call__(self, job: Any) -> Attempt:
        """Return the kept result or make it; an error that was raised on purpose becomes a sentence."""
        path = None
        if self.folder is not None:
            path = self.folder / f"{content_key((self.function.__name__, installed_version(), job))}.npz"
            kept = _read(path)
            if kept is not None:
                return Attempt(kept, None)
        try:
            found = self.function(job)
        except NeosegError as error:
            return Attempt(None, str(error))
        if path is not None:
            words = {
                "ncc": np.array(found.ncc),
                "warnings": np.array(found.warnings, dtype=np.str_),
                "fact_names": np.array(list(found.facts), dtype=np.str_),
                "fact_values": np.array(list(found.facts.values()), dtype=np.float64),
            }
            arrays: dict[str, Any] = {**to_arrays(found.transform), **words}
            with replacing(path) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **arrays)
        return Attempt(found, None)


def installed_version() -> str:
    """Return the version of neoseg; what another version kept or built is made again."""
    return metadata.version("neoseg")


def content_key(value: Any) -> str:
    """Return a hash of arrays, transforms, configurations, dataclasses and plain values, by content."""
    total = hashlib.sha256()
    _feed(total, value)
    return total.hexdigest()[:32]


def _feed(total: Any, value: Any) -> None:
    total.update(type(value).__name__.encode() + b"\0")
    if isinstance(value, np.ndarray):
        total.update(f"{value.dtype.str}{value.shape}".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, Transform):
        _feed(total, to_arrays(value))
    elif isinstance(value, BaseModel):
        total.update(value.model_dump_json().encode())
    elif is_dataclass(value):
        _feed(total, [getattr(value, part.name) for part in fields(value)])
    elif isinstance(value, dict):
        _feed(total, sorted(value.items()))
    elif isinstance(value, (list, tuple)):
        for part in value:
            _feed(total, part)
    else:
        total.update(repr(value).encode())
    total.update(b"\1")


def _read(path: Path) -> Found | None:
    """Return a kept result; one that cannot be read is made again."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
        ncc, warnings = float(kept.pop("ncc")), tuple(str(w) for w in kept.pop("warnings"))
        names, values = kept.pop("fact_names").tolist(), kept.pop("fact_values").tolist()
        return Found(from_arrays(kept), ncc, warnings, dict(zip(names, values, strict=True)))
    except (*DAMAGED_NPZ, KeyError, InputError):
        return None
