"""One prepared case as the later stages read it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.store import CaseStore
from ..errors import GeometryError, StateError
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

    Raises:
        StateError: on making it and by each array: a file of the case is missing, damaged or of another shape.
    """

    def __init__(self, store: CaseStore, name: str) -> None:
        self.store = store
        self.name = name
        self.record: dict[str, Any] = store.record(name)
        try:
            self.native = _grid(self.record["native"])
            self.start = tuple(self.record["box"]["start"])
            self.box = self.native.cropped(self.start, tuple(self.record["box"]["shape"]))
            self.grid = _grid(self.record["prepared"])
        except (KeyError, TypeError, ValueError, GeometryError) as error:
            raise self._damaged("record.json", f"{error!r} in its grids") from error

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
        return self._on("image", (None, *self.grid.shape))

    @property
    def label(self) -> NDArray[np.uint8]:
        """Classes on the network's grid, ``(x, y, z)``."""
        return self._on("label", self.grid.shape)

    @property
    def physical(self) -> NDArray[np.float32]:
        """Channels in physical units, ``(c, x, y, z)`` on the box."""
        return self._on("physical", (None, *self.box.shape))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The foreground on the box."""
        return self._on("mask", self.box.shape).astype(bool)

    @property
    def limit(self) -> NDArray[np.bool_] | None:
        """The brain on the box where its mask was given; see :attr:`neoseg.prepare.case.Physical.limit`."""
        return self.mask if self.record["facts"].get("brain_mask") == "given" else None

    @property
    def truth(self) -> NDArray[np.uint8]:
        """Classes on the native grid, ``(x, y, z)``."""
        return self._on("truth", self.native.shape)

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

    def _on(self, name: str, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Return an array that has to have a shape; ``None`` stands for any number.

        Raises:
            StateError: it has another, or cannot be read.
        """
        array = self.store.array(self.name, name)
        if len(array.shape) != len(shape) or any(w not in (None, n) for n, w in zip(array.shape, shape, strict=True)):
            raise self._damaged(f"{name}.npy", f"its shape is {array.shape}, but {shape} is wanted")
        return array

    def _damaged(self, file: str, reason: str) -> StateError:
        folder = self.store.folder / self.name
        return StateError(
            f"{folder / file}: this prepared file is not what was written ({reason}); delete the folder {folder} and "
            "run `neoseg prepare` again."
        )

    @property
    def _slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, a + n) for a, n in zip(self.start, self.box.shape, strict=True))


def transform_arrays(transform: Transform | None) -> dict[str, NDArray[Any]]:
    """Return the arrays of the store that hold a transform; the record names them without their beginning."""
    return {} if transform is None else {_file(name): array for name, array in to_arrays(transform).items()}


def _file(name: str) -> str:
    return f"transform.{name}"


def _grid(record: dict[str, Any]) -> Grid:
    return Grid(tuple(record["shape"]), np.asarray(record["affine"], dtype=np.float64), unit=record.get("unit", "mm"))
