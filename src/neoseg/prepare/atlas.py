"""The record of a normative atlas: voxelwise mean and standard deviation of a healthy group in one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError, model_validator

from ..atomic import DAMAGED_NPZ, read_json, replacing, write_json
from ..errors import InputError
from ..volume import Grid, Volume, same_grid

__all__ = ["Atlas", "Calibration"]

FORMAT = 2
READABLE = (1, 2)


class Calibration(BaseModel, frozen=True, extra="forbid"):
    """How Z maps of healthy heads spread that the atlas did not see: measured on each of its heads, left out in turn.

    Smoothing a Z map makes its spread smaller and registration makes it larger; dividing by the spread found here
    gives healthy heads a standard deviation of 1 again.

    Attributes:
        smooth_mm: widths of the smoothing of Z at which it was measured, in mm, rising from 0.
        plain: pooled standard deviation of Z of the heads left out, one a width.
        small_sample: the same with the small-sample correction.
        sd_floor: the floor of the sd that Z was made with, a share of the atlas' mean value.
        heads: how many heads were left out in turn.
    """

    smooth_mm: tuple[float, ...]
    plain: tuple[float, ...]
    small_sample: tuple[float, ...]
    sd_floor: float
    heads: int

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.smooth_mm or self.smooth_mm[0] != 0 or list(self.smooth_mm) != sorted(set(self.smooth_mm)):
            raise ValueError(f"smooth_mm has to rise from 0, but it is {self.smooth_mm}")
        for spread in (self.plain, self.small_sample):
            if len(spread) != len(self.smooth_mm) or not all(0 < s < np.inf for s in spread):
                raise ValueError(f"a spread above 0 is needed for each width of {self.smooth_mm}, not {spread}")
        return self

    def spread(self, smooth_mm: float, *, small_sample: bool) -> float:
        """Return the standard deviation that a smoothing leaves, linearly between the widths measured.

        Raises:
            InputError: a wider smoothing than any that was measured.
        """
        if smooth_mm > self.smooth_mm[-1]:
            raise InputError(
                f"The atlas says how Z spreads up to a smoothing of {self.smooth_mm[-1]:g} mm, but smooth_mm is "
                f"{smooth_mm:g}; choose a smaller one or set calibrate = false."
            )
        return float(np.interp(smooth_mm, self.smooth_mm, self.small_sample if small_sample else self.plain))


@dataclass(frozen=True, eq=False)
class Atlas:
    """What is normal at each voxel of a template.

    Attributes:
        mean: float32, one channel, in ``unit``; 0 outside the mask.
        sd: float32, one channel, in ``unit``, between subjects (n - 1), or with a calibration that of heads left out
            about the mean of the others; 0 outside the mask.
        mask: uint8, one channel, 1 where mean and sd are known.
        count: healthy subjects that the atlas was built from.
        unit: unit of the maps, such as "1e-6 mm2/s".
        provenance: how it was made, JSON values only; "warnings" is a list of sentences.
        channel: what was measured, such as "adc".
        counts: uint16, one channel, subjects behind each voxel; ``None``: ``count`` everywhere.
        regions: uint16, one channel, region labels by majority vote, 0: none; ``None``: no labels were given.
        calibration: how Z spreads in healthy heads left out; ``None``: not known.
    """

    mean: Volume
    sd: Volume
    mask: Volume
    count: int
    unit: str
    provenance: Mapping[str, Any] = field(default_factory=dict)
    channel: str = "adc"
    counts: Volume | None = None
    regions: Volume | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        """Check that the parts fit together.

        Raises:
            InputError: parts on different grids, numbers that are not finite, a negative sd, an empty mask or a count
                below 2.
        """
        for name, volume in self._parts().items():
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

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the building found worth a sentence."""
        return tuple(self.provenance.get("warnings", ()))

    @property
    def deforms(self) -> bool | None:
        """Whether its heads were registered with a free-form deformation; ``None``: not known."""
        config = self.provenance.get("config")
        rounds = config.get("rounds") if isinstance(config, Mapping) else None
        return rounds > 0 if isinstance(rounds, int) else None

    def require(self, channel: str, unit: str) -> None:
        """Refuse the atlas for scans of another kind.

        Raises:
            InputError: it was made from another channel or in another unit.
        """
        if self.channel != channel or self.unit != unit:
            raise InputError(
                f"The atlas holds {self.channel!r} in {self.unit!r}, but the scans hold {channel!r} in {unit!r}; give "
                "an atlas of the same kind."
            )

    def save(self, folder: Path) -> None:
        """Write ``atlas.npz`` (maps and grid) and ``atlas.json`` (the rest) into a folder; half of them is no atlas."""
        arrays = {name: volume.array[0] for name, volume in self._parts().items()}
        arrays |= {"mask": self.inside.astype(np.uint8), "affine": self.grid.affine}
        with replacing(folder / "atlas.npz") as temporary:
            with temporary.open("wb") as stream:
                np.savez_compressed(stream, **arrays)
            # Without its words the folder holds no atlas, so a kill before they are written leaves no mixture of two.
            (folder / "atlas.json").unlink(missing_ok=True)
        words = {
            "format": FORMAT,
            "count": self.count,
            "unit": self.unit,
            "channel": self.channel,
            "calibration": self.calibration.model_dump(mode="json") if self.calibration else None,
            "provenance": dict(self.provenance),
        }
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
                found = {name: arrays[name] for name in arrays.files}
            known, count, unit = int(words["format"]), int(words["count"]), str(words["unit"])
            provenance = dict(words["provenance"])
            needed = [found.pop(name) for name in ("mean", "sd", "mask", "affine")]
            record = words.get("calibration")
            calibration = None if record is None else Calibration.model_validate(record)
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: no atlas lies here ({Path(str(error.filename)).name} is missing); build it."
            ) from None
        except (*DAMAGED_NPZ, KeyError, TypeError, ValidationError) as error:
            raise InputError(f"{folder}: the atlas cannot be read ({error}); build it again.") from None
        if known not in READABLE:
            raise InputError(
                f"{folder}: the atlas has format {known}, but this version reads {FORMAT}; build it again."
            )
        shapes = {"mean": needed[0].shape, "sd": needed[1].shape, "mask": needed[2].shape}
        shapes |= {name: array.shape for name, array in found.items()}
        if len(shapes["mean"]) != 3 or len(set(shapes.values())) > 1:
            raise InputError(f"{folder}: the maps of the atlas have the shapes {shapes}, but all need one 3-D shape.")
        grid = Grid(shapes["mean"], needed[3])
        mean, sd, mask = (Volume(array[None], grid) for array in needed[:3])
        more = {name: Volume(found[name][None], grid) for name in ("counts", "regions") if name in found}
        return Atlas(
            mean,
            sd,
            mask,
            count=count,
            unit=unit,
            provenance=provenance,
            channel=str(words.get("channel", "adc")),
            counts=more.get("counts"),
            regions=more.get("regions"),
            calibration=calibration,
        )

    def _parts(self) -> dict[str, Volume]:
        parts = {"mean": self.mean, "sd": self.sd, "mask": self.mask, "counts": self.counts, "regions": self.regions}
        return {name: volume for name, volume in parts.items() if volume is not None}
