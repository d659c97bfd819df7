"""One prepared case as the later stages read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.store import CaseStore
from ..prepare.standardise import Space
from ..register.transforms import Transform, from_arrays, to_arrays
from ..volume import Grid

__all__ = ["PreparedCase", "transform_arrays"]


class PreparedCase:
    """Arrays of a case in the store, with the grids they lie on.

    Attributes:
        name: the case.
        native: the lattice of the scan, set upright (see :func:`neoseg.volume.upright`).
        box: the part of the native grid around the foreground; ``physical`` and ``mask`` lie on it.
        grid: the grid of ``image`` and ``label``.
    """

    def __init__(self, store: CaseStore, name: str) -> None:
        self.store = store
        self.name = name
        self.record: dict[str, Any] = store.record(name)
        self.native = _grid(self.record["native"])
        self.start = tuple(self.record["box"]["start"])
        self.box = self.native.cropped(self.start, tuple(self.record["box"]["shape"]))
        self.grid = _grid(self.record["prepared"])

    @property
    def space(self) -> Space:
        """Where ``image`` and ``label`` lie, and how the scan got there."""
        in_template = self.record["prepared"]["space"] == "template"
        return Space(self.grid, self.transform if in_template else None)

    @property
    def transform(self) -> Transform | None:
        """Scan world to the world of the atlas or template; ``None`` when the case was not registered."""
        names = self.record["transform"]
        return from_arrays({n: self.store.array(self.name, _file(n)) for n in names}) if names else None

    @property
    def image(self) -> NDArray[np.float32]:
        """What the network sees, ``(c, x, y, z)``."""
        return self.store.array(self.name, "image")

    @property
    def label(self) -> NDArray[np.uint8]:
        """Classes on the network's grid, ``(x, y, z)``."""
        return self.store.array(self.name, "label")

    @property
    def physical(self) -> NDArray[np.float32]:
        """Channels in physical units, ``(c, x, y, z)`` on the box."""
        return self.store.array(self.name, "physical")

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The foreground on the box."""
        return self.store.array(self.name, "mask").astype(bool)

    @property
    def truth(self) -> NDArray[np.uint8]:
        """Classes on the native grid, ``(x, y, z)``."""
        return self.store.array(self.name, "truth")

    @property
    def truth_in_box(self) -> NDArray[np.uint8]:
        """Classes on the box."""
        return self.truth[self._slices]

    @property
    def has_truth(self) -> bool:
        """Whether the case came with a label."""
        return self.record["label_ml"] is not None

    def on_native(self, array: NDArray[Any]) -> NDArray[Any]:
        """Put an array ``(x, y, z)`` that lies on the box into the native grid; outside is 0."""
        full = np.zeros(self.native.shape, dtype=array.dtype)
        full[self._slices] = array
        return full

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.box.shape, strict=True))


def transform_arrays(transform: Transform | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of the store that hold a transform; the record names them without their beginning."""
    return {} if transform is None else {_file(name): array for name, array in to_arrays(transform).items()}


def _file(name: str) -> str:
    return f"transform.{name}"


def _grid(record: dict[str, Any]) -> Grid:
    return Grid(tuple(record["shape"]), np.asarray(record["affine"], dtype=np.float64))
