"""From a Case to arrays: its channels in one unit on one grid with the brain cut out, and its label as classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import GeometryError, InputError
from ..io import read_label, read_volume
from ..labels import LabelSet
from ..volume import Volume, grid_difference, same_grid
from .brain_mask import Origin, brain_mask
from .cases import Case
from .field_of_view import size_doubt, unlikely_size
from .foreground import foreground_mask, head_levels
from .units import MICRO, UNITS_OF_ADC, adc_unit, channel_kind, factor_to_micro

__all__ = ["LoadedImages", "load_images", "load_label", "load_mask", "unit_of"]

CUT_LIMIT = 0.01
"""Share of the brain; when more than that is cut out of the other channels beside it, a note says so."""


@dataclass(frozen=True, eq=False)
class LoadedImages:
    """The channels of one case.

    Attributes:
        image: float32 ``(c, x, y, z)``, ADC in 1e-6 mm2/s, other channels as stored; 0 outside the brain where a mask
            was given or an ADC map shows the brain.
        channels: the channel names, in the order of the first axis.
        notes: what was recognised, converted or cut away, one sentence each.
        origin: how the brain is known, see :class:`neoseg.data.brain_mask.BrainMask`; of images without an ADC map
            "everything" that is not 0.
        mask: the given brain ``(x, y, z)``, outside of which nothing is found; ``None`` unless it was given.
        units: what the values of each channel are in, in the order of the channels; "" where it is not known.
    """

    image: Volume
    channels: tuple[str, ...]
    notes: tuple[str, ...]
    origin: Origin = "everything"
    mask: NDArray[np.bool_] | None = None
    units: tuple[str, ...] = ()


def load_images(case: Case, channels: Sequence[str], *, usual: Mapping[str, str] | None = None) -> LoadedImages:
    """Read the channels of a case, convert ADC to 1e-6 mm2/s, stack them, and set what is not brain to 0.

    So 0 is background in all that follows, and nowhere else assumed. The brain is the case's mask; without one it is
    told from the ADC map by :func:`neoseg.data.brain_mask.brain_mask`. Images without both stay as they are.

    Args:
        case: which one.
        channels: to read, in this order.
        usual: of a new scan, the channels that had a unit of ADC in training, whatever they are called, with that unit,
            or "" where training cases had different ones. The unit of the scan is told from its numbers as for a
            channel called ADC; where they tell none, it is the one of training.

    Raises:
        InputError: a channel or the mask is missing or unreadable, an image holds NaN or infinity, the mask is empty,
            no brain can be told from an ADC map, or of a channel in ``usual`` no unit is known.
        GeometryError: two channels, or a channel and the mask, lie on different grids, or a volume has a size that no
            scan has.
    """
    if not channels:
        raise InputError(f"case {case.case}: none of its images ({sorted(case.images)}) is a channel of this run.")
    volumes: list[Volume] = []
    units: list[str] = []
    notes: list[str] = []
    usual = usual or {}
    for channel in channels:
        if channel not in case.images:
            raise InputError(
                f"case {case.case}: the channel {channel!r} has no image (given: {sorted(case.images)}); "
                "add the file to cases.csv or leave the case out."
            )
        path = case.images[channel]
        volume = read_volume(path, volume_index=case.channel_index.get(channel))
        if (told := unlikely_size(volume.grid)) is not None:
            raise GeometryError(f"{path}: {told}")
        values = np.asarray(volume.array[:1], dtype=np.float32)
        if not np.isfinite(values).all():
            raise InputError(
                f"{path}: {int((~np.isfinite(values)).sum())} voxels are NaN or infinite; set them to a number first."
            )
        if volumes and not same_grid(volume.grid, volumes[0].grid):
            raise GeometryError(
                f"case {case.case}: {path.name} has the grid {_shown(volume)}, but {case.images[channels[0]].name} "
                f"has {_shown(volumes[0])}{_differing(volume, volumes[0])}; resample one onto the other first."
            )
        unit = unit_of(case, channel, values, told=channel in usual)
        recognised = bool(unit)
        given = case.units.get(channel)
        if not unit and channel in usual:
            unit = _usual_unit(path, channel, usual[channel])
            notes.append(f"{path.name}: its values are those of no known unit of ADC; as in training, {unit} is taken.")
        if channel_kind(channel) == "adc" and unit not in UNITS_OF_ADC:
            if unit:
                raise InputError(
                    f"case {case.case}: unit_{channel} is {unit!r}, but one of {', '.join(UNITS_OF_ADC)} is wanted."
                )
            notes.append(f"{path.name}: its values are those of no known unit of ADC; they are taken as they are.")
        factor = factor_to_micro(unit) if unit in UNITS_OF_ADC else 1.0
        if factor != 1.0 and recognised:
            notes.append(
                f"{path.name}: ADC {'given' if given else 'recognised'} in {unit} and converted to 1e-6 mm2/s."
            )
        if given in UNITS_OF_ADC and (likely := adc_unit(head_levels(values[0])[0])) not in ("", given):
            notes.append(f"{path.name}: the unit {given} is given, but its values are those of an ADC map in {likely}.")
        if channel_kind(channel) == "adc" and (doubt := size_doubt(volume.grid)) is not None:
            notes.append(f"{path.name}: {doubt}")
        units.append(MICRO if unit in UNITS_OF_ADC else unit)
        volumes.append(volume.with_array(np.asarray(values * np.float32(factor), dtype=np.float32)))
    stacked = Volume(np.concatenate([v.array for v in volumes]), volumes[0].grid)
    return _brain_only(case, LoadedImages(stacked, tuple(channels), tuple(notes), units=tuple(units)))


def load_mask(path: Path, image: Volume) -> NDArray[np.bool_]:
    """Read a brain mask, ``(x, y, z)``: where the file is not 0.

    Raises:
        InputError: the file is missing or unreadable, holds NaN, or is 0 everywhere.
        GeometryError: it lies on another grid than the image.
    """
    volume = read_label(path)
    if not same_grid(volume.grid, image.grid):
        raise GeometryError(
            f"{path}: the mask has the grid {_shown(volume)}, but its image has {_shown(image)}"
            f"{_differing(volume, image)}; resample the mask onto the image first."
        )
    values = volume.array[0]
    if not np.isfinite(values).all():
        raise InputError(f"{path}: the mask holds NaN or infinite voxels; set them to 0 or 1 first.")
    if not values.any():
        raise InputError(f"{path}: the mask is 0 everywhere, so there is no brain in it; correct the file.")
    return np.asarray(values != 0, dtype=np.bool_)


def _brain_only(case: Case, loaded: LoadedImages) -> LoadedImages:
    """Return the images with 0 outside the brain, how the brain is known, and sentences about it."""
    image = loaded.image

    def cut(inside: NDArray[np.bool_], origin: Origin, *notes: str) -> LoadedImages:
        values = image.with_array(np.where(inside, image.array, 0))
        mask = inside if origin == "given" else None
        return replace(loaded, image=values, notes=(*loaded.notes, *notes), origin=origin, mask=mask)

    if case.mask is not None:
        given = load_mask(case.mask, image)
        if not image.array[:, given].any():
            raise InputError(f"{case.mask}: the image holds only zeros inside the mask; correct the mask.")
        return cut(given, "given", f"The brain mask {case.mask.name} was given.")
    adc = next((i for i, name in enumerate(loaded.channels) if channel_kind(name) == "adc"), None)
    if adc is None or image.grid.ndim != 3 or np.ptp(image.array[adc]) == 0:
        return loaded
    try:
        found = brain_mask(image.with_array(image.array[adc : adc + 1]), "adc")
    except InputError as error:
        raise InputError(f"case {case.case}: {error}") from error
    notes = [found.warning] if found.warning else []
    if found.origin != "background":
        return cut(found.mask, found.origin, *notes)
    if found.background == 0:
        if len(loaded.channels) == 1:
            return replace(loaded, notes=(*loaded.notes, *notes), origin=found.origin)
        inside = foreground_mask(image.array[adc : adc + 1])
        others = (image.array != 0).any(axis=0)
        if np.count_nonzero(others & ~inside) > CUT_LIMIT * np.count_nonzero(inside):
            notes.append(f"What is background in {loaded.channels[adc]} was set to 0 in the other channels.")
        return cut(inside, found.origin, *notes)
    notes.append(f"The background has the value {found.background:g}; it was set to 0.")
    return cut(found.mask & (image.array[adc] != found.background), found.origin, *notes)


def unit_of(case: Case, channel: str, values: NDArray[np.float32], *, told: bool = False) -> str:
    """Return the unit written in cases.csv or, for a channel named ADC, the one that the middle of the head tells.

    With ``told`` the head is asked for a channel of any name.
    """
    if unit := case.units.get(channel):
        return unit
    return adc_unit(head_levels(values[0])[0]) if told or channel_kind(channel) == "adc" else ""


def _usual_unit(path: Path, channel: str, usual: str) -> str:
    """Return the unit that a channel had in training.

    Raises:
        InputError: it had several.
    """
    if not usual:
        raise InputError(
            f"{path}: the training cases had {channel} in different units, and the values of this file are those of "
            f"none ({', '.join(UNITS_OF_ADC)}); bring it to {MICRO}."
        )
    return usual


def load_label(case: Case, labels: LabelSet, grid_of: Volume) -> Volume:
    """Read the label of a case as classes 0..n (uint8) on the grid of its image.

    Raises:
        InputError: no label, an unreadable file or an undeclared value.
        GeometryError: the label lies on another grid than the image.
    """
    if case.label is None:
        raise InputError(f"case {case.case}: no label is given in cases.csv, but this step needs one.")
    volume = read_label(case.label)
    if not same_grid(volume.grid, grid_of.grid):
        raise GeometryError(
            f"{case.label}: the label has the grid {_shown(volume)}, but its image has {_shown(grid_of)}"
            f"{_differing(volume, grid_of)}; resample the label onto the image first."
        )
    return Volume(labels.encode(volume.array[:1], str(case.label)), grid_of.grid)


def _shown(volume: Volume) -> str:
    size = "x".join(str(n) for n in volume.grid.shape)
    spacing = "x".join(f"{s:.4g}" for s in volume.spacing)
    origin = ", ".join(f"{o:.1f}" for o in volume.grid.affine[:-1, -1])
    return size if volume.grid.unit == "px" else f"{size} at {spacing} mm from ({origin})"


def _differing(volume: Volume, other: Volume) -> str:
    """Return what sets two grids of one shape apart, which rounded numbers may not show."""
    same_shape = volume.grid.shape == other.grid.shape
    return f" ({grid_difference(volume.grid, other.grid)})" if same_shape else ""
