"""From a Case to arrays: its channels in one unit on one grid, and its label as classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..io import read_volume
from ..labels import LabelSet
from ..volume import Volume, same_grid
from .cases import Case
from .foreground import foreground_mask
from .units import UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro

__all__ = ["LoadedImages", "load_images", "load_label", "unit_of"]


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """The channels of one case.

    Attributes:
        image: float32 ``(c, x, y, z)``, ADC in 1e-6 mm2/s, other channels as stored.
        channels: the channel names, in the order of the first axis.
        notes: what was recognised or converted, one sentence each.
    """

    image: Volume
    channels: tuple[str, ...]
    notes: tuple[str, ...]


def load_images(case: Case, channels: Sequence[str]) -> LoadedImages:
    """Read the channels of a case, convert ADC to 1e-6 mm2/s, and stack them.

    Raises:
        InputError: a channel is missing or unreadable, or an image holds NaN or infinity.
        GeometryError: two channels lie on different grids.
    """
    if not channels:
        raise InputError(f"case {case.case}: none of its images ({sorted(case.images)}) is a channel of this run.")
    volumes: list[Volume] = []
    notes: list[str] = []
    for channel in channels:
        if channel not in case.images:
            raise InputError(
                f"case {case.case}: the channel {channel!r} has no image (given: {sorted(case.images)}); "
                "add the file to cases.csv or leave the case out."
            )
        path = case.images[channel]
        volume = read_volume(path, volume_index=case.channel_index.get(channel))
        values = np.asarray(volume.array[:1], dtype=np.float32)
        if not np.isfinite(values).all():
            raise InputError(
                f"{path}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; set them to a number first."
            )
        if volumes and not same_grid(volume.grid, volumes[0].grid):
            raise GeometryError(
                f"case {case.case}: {path.name} has the grid {_shown(volume)}, but {case.images[channels[0]].name} "
                f"has {_shown(volumes[0])}; resample one onto the other first."
            )
        unit = unit_of(case, channel, values)
        if channel_kind(channel) == "adc" and unit not in UNITS_OF_ADC:
            if unit:
                raise InputError(
                    f"case {case.case}: unit_{channel} is {unit!r}, but one of {', '.join(UNITS_OF_ADC)} is wanted."
                )
            notes.append(f"{path.name}: its values are those of no known unit of ADC; they are taken as they are.")
        factor = factor_to_micro(unit) if unit in UNITS_OF_ADC else 1.0
        if factor != 1.0:
            notes.append(f"{path.name}: ADC recognised in {unit} and converted to 1e-6 mm2/s.")
        volumes.append(volume.with_array(np.asarray(values * np.float32(factor), dtype=np.float32)))
    stacked = np.concatenate([v.array for v in volumes])
    return LoadedImages(Volume(stacked, volumes[0].grid), tuple(channels), tuple(notes))


def unit_of(case: Case, channel: str, values: NDArray[np.float32]) -> str:
    """Return the unit written in cases.csv or, for a channel named ADC, the one that its median tells."""
    if unit := case.units.get(channel):
        return unit
    if channel_kind(channel) == "adc":
        inside = values[0][foreground_mask(values)]
        return adc_unit(float(np.median(inside))) if inside.size else ""
    return ""


def load_label(case: Case, labels: LabelSet, grid_of: Volume) -> Volume:
    """Read the label of a case as classes 0..n (uint8) on the grid of its image.

    Raises:
        InputError: no label, an unreadable file or an undeclared value.
        GeometryError: the label lies on another grid than the image.
    """
    if case.label is None:
        raise InputError(f"case {case.case}: no label is given in cases.csv, but this step needs one.")
    volume = read_volume(case.label)
    if not same_grid(volume.grid, grid_of.grid):
        raise GeometryError(
            f"{case.label}: the label has the grid {_shown(volume)}, but its image has {_shown(grid_of)}; "
            "resample the label onto the image first."
        )
    return Volume(labels.encode(volume.array[:1], str(case.label)), grid_of.grid)


def _shown(volume: Volume) -> str:
    size = "x".join(str(n) for n in volume.grid.shape)
    spacing = "x".join(f"{s:.4g}" for s in volume.spacing)
    origin = ", ".join(f"{o:.1f}" for o in volume.grid.affine[:-1, -1])
    return f"{size} at {spacing} mm from ({origin})"
