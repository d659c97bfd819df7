"""The record of a normative atlas: voxelwise mean and standard deviation of a healthy group in one space."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import read_json, replacing, write_json
from ..errors import InputError
from ..volume import Grid, Volume, same_grid

__all__ = ["Atlas"]

FORMAT = 1


@dataclass(frozen=True, eq=False)
class Atlas:
    """What is normal at each voxel of a template.

    Attributes:
        mean: float32, one channel, in ``unit``; 0 outside the mask.
        sd: float32, one channel, sample standard deviation between subjects (n - 1) in ``unit``; 0 outside the mask.
        mask: uint8, one channel, 1 where mean and sd are known.
        count: healthy subjects that the atlas was built from.
        unit: unit of the maps, such as "1e-6 mm2/s".
        provenance: how it was made, JSON values only.
    """

    mean: Volume
    sd: Volume
    mask: Volume
    count: int
    unit: str
    provenance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            InputError: parts on different grids, numbers that are not finite, a negative sd, an empty mask or a count
                below 2.
        """
        parts = {"mean": self.mean, "sd": self.sd, "mask": self.mask}
        for name, volume in parts.items():
            if volume.grid.ndim != 3 or volume.array.shape[0] != 1 or not same_grid(volume.grid, self.mean.grid):
                raise InputError(
                    f"The {name} of an atlas has to be one 3-D channel on the grid of the mean, but its array has "
                    f"shape {volume.array.shape} and the mean {self.mean.array.shape}."
                )
            if not np.isfinite(volume.array).all():
                raise InputError(f"The {name} of the atlas has voxels that are not numbers; build the atlas again.")
        if not self.inside.any():
            raise InputError("The mask of the atlas is empty; build the atlas again from heads that overlap.")
        if float(self.sd.array.min()) < 0:
            raise InputError("The sd of the atlas has values below 0; build the atlas again.")
        if self.count < 2:
            raise InputError(
                f"An atlas needs two subjects or more for a standard deviation, but its count is {self.count}."
            )

    @property
    def inside(self) -> NDArray[np.bool_]:
        """The mask as ``(x, y, z)`` of booleans."""
        return np.asarray(self.mask.array[0] != 0)

    @property
    def grid(self) -> Grid:
        """The template's grid."""
        return self.mean.grid

    def save(self, folder: Path) -> None:
        """Write ``atlas.npz`` (maps and grid) and ``atlas.json`` (the rest) into a folder."""
        with replacing(folder / "atlas.npz") as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                mean=self.mean.array[0].astype(np.float32),
                sd=self.sd.array[0].astype(np.float32),
                mask=self.inside.astype(np.uint8),
                affine=self.grid.affine,
            )
        words = {"format": FORMAT, "count": self.count, "unit": self.unit, "provenance": dict(self.provenance)}
        write_json(folder / "atlas.json", words)

    @staticmethod
    def load(folder: Path) -> Atlas:
        """Read an atlas that :meth:`save` wrote.

        Raises:
            InputError: a file is missing, damaged or of another format.
        """
        try:
            words = read_json(folder / "atlas.json")
            with (folder / "atlas.npz").open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ("mean", "sd", "mask", "affine")}
            known, count, unit = int(words["format"]), int(words["count"]), str(words["unit"])
            provenance = dict(words["provenance"])
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: no atlas lies here ({Path(str(error.filename)).name} is missing); build it."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"{folder}: the atlas cannot be read ({error}); build it again.") from None
        if known != FORMAT:
            raise InputError(
                f"{folder}: the atlas has format {known}, but this version reads {FORMAT}; build it again."
            )
        if found["mean"].ndim != 3 or any(found[name].shape != found["mean"].shape for name in ("sd", "mask")):
            shapes = {name: found[name].shape for name in ("mean", "sd", "mask")}
            raise InputError(f"{folder}: the maps of the atlas have the shapes {shapes}, but all need one 3-D shape.")
        grid = Grid(found["mean"].shape, found["affine"])
        mean, sd, mask = (Volume(found[name][None], grid) for name in ("mean", "sd", "mask"))
        return Atlas(mean, sd, mask, count=count, unit=unit, provenance=MappingProxyType(provenance))
