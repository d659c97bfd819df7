"""Which classes a data set has, and which stored values mean them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, InputError

__all__ = ["LabelSet", "check_name"]

_MOST_CLASSES = 255
"""Class indices are uint8, and 0 is the background."""


def check_name(table: str, name: str) -> None:
    """Refuse a name of a class or region that cannot be part of a file's: empty, or with a separator or line break.

    Raises:
        ConfigError: naming the table that it stands in.
    """
    if not name.strip() or any(c in "/\\" or unicodedata.category(c) in ("Cc", "Cs") for c in name):
        what = "region" if table == "regions" else "class"
        raise ConfigError(f"{table}: {name!r} becomes part of files' names; give the {what} another name.")


@dataclass(frozen=True)
class LabelSet:
    """Names of the foreground classes, in order; class ``i + 1`` is ``names[i]``, class 0 is background.

    Attributes:
        names: one name a class.
        values: for each class the stored values that mean it; the first is the one that predictions are written with.
        tolerance: how far a stored value may lie from a declared one (0: exactly equal).
        instances: every whole number above 0 means the one class: the values number its instances.
    """

    names: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    tolerance: float = 0.0
    instances: bool = False

    @staticmethod
    def of(
        mapping: Mapping[str, float | Sequence[float]], tolerance: float = 0.0, *, instances: bool = False
    ) -> LabelSet:
        """Make a label set from ``{"lesion": 1}`` or ``{"lesion": [1, 255]}``.

        Raises:
            ConfigError: no class or more than 255, a name that no file can have, a value used twice, the background
                value 0 used, or instances of several classes.
        """
        values = tuple(
            tuple(float(v) for v in (value if isinstance(value, Sequence) else (value,))) for value in mapping.values()
        )
        flat = [v for group in values for v in group]
        if not flat or any(not group for group in values):
            raise ConfigError("labels: at least one class with one stored value is wanted, such as lesion = 1.")
        if len(values) > _MOST_CLASSES:
            raise ConfigError(
                f"labels: {len(values)} classes were given, at most {_MOST_CLASSES} are possible; if the values number "
                "instances, declare one class and label_instances = true."
            )
        for name in mapping:
            check_name("labels", name)
        if len(set(flat)) < len(flat) or 0.0 in flat:
            raise ConfigError(f"labels: the stored values {flat} must differ from each other and from background 0.")
        if any(group[0] != int(group[0]) or not 0 < group[0] <= 65535 for group in values):
            raise ConfigError(
                f"labels: the first value of each class is written into masks, so it must be a whole number from 1 to "
                f"65535, but {[group[0] for group in values]} were given."
            )
        if instances and (len(values) > 1 or tolerance):
            raise ConfigError(
                f"labels: with label_instances = true every value is an instance of one class, without a "
                f"label_tolerance, but {list(mapping)} with {tolerance:g} were given."
            )
        return LabelSet(tuple(mapping), values, tolerance, instances)

    @property
    def count(self) -> int:
        """Number of classes with the background."""
        return len(self.names) + 1

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Smallest of uint8 and uint16 that holds every written value."""
        return np.uint8 if max(group[0] for group in self.values) <= 255 else np.uint16

    def unknown(self, array: NDArray[Any]) -> list[float]:
        """Return the stored values (at most ten, sorted) that no class declares; NaN counts as unknown."""
        found = np.unique(array).astype(np.float64)
        if self.instances:
            return [float(v) for v in found[~((found >= 0) & np.isfinite(found) & (found == np.rint(found)))][:10]]
        declared = np.array([0.0] + [v for group in self.values for v in group])
        gaps = np.abs(found[:, None] - declared).min(axis=1)
        return [float(v) for v in found[~(gaps <= self.tolerance)][:10]]

    def encode(self, array: NDArray[Any], name: str) -> NDArray[np.uint8]:
        """Turn stored values into class indices 0..n (uint8).

        Args:
            array: any shape, values as stored in the file.
            name: the file, for the error.

        Raises:
            InputError: a value that no class declares.
        """
        unknown = self.unknown(array)
        if unknown:
            declared = {name: list(group) for name, group in zip(self.names, self.values, strict=True)}
            raise InputError(
                f"{name}: the label holds the values {unknown}, but only 0 and {declared} are declared; add the values "
                "to [labels] (or a label_tolerance for rounded ones) or correct the file."
            )
        if self.instances:
            return np.asarray(array > 0, dtype=np.uint8)
        classes = np.zeros(array.shape, dtype=np.uint8)
        for index, group in enumerate(self.values, start=1):
            for value in group:
                classes[np.abs(array.astype(np.float64) - value) <= self.tolerance] = index
        return classes

    def decode(self, classes: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
        """Turn class indices back into the values that are written to files."""
        table = np.array([0] + [int(group[0]) for group in self.values], dtype=self.dtype)
        return np.asarray(table[classes], dtype=self.dtype)
