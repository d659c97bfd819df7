"""Channels of pictures: colours, or one file each, by the number behind its name (``p1_0000.png``, ``p1_0001.png``)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io import COLOURS, read_volume, volumes_in
from ..cases import Case
from .files import CHANNEL_SUFFIX, describe_some
from .planar_parts import SUFFIXES

__all__ = ["GREY", "Numbering", "numbering_of", "with_colours"]

GREY = "grey"
"""The channel of a picture that has one file, until it is seen to be in colour."""


@dataclass(frozen=True)
class Numbering:
    """What a number behind the names of pictures is.

    Attributes:
        channels: number to the channel that it stands for; empty: numbers are part of the names.
    """

    channels: Mapping[int, str]

    def pictures(
        self, files: Mapping[str, Path], masks: Collection[str]
    ) -> tuple[dict[str, dict[str, Path]], list[Path]]:
        """Return the pictures of a folder, channel to file, by name, and files without a number and without a mask.

        Args:
            files: by their name without ending.
            masks: names of masks.
        """
        if not self.channels:
            return {name: {GREY: file} for name, file in files.items()}, []
        found: dict[str, dict[str, Path]] = {}
        others: list[str] = []
        for name, file in files.items():
            if match := CHANNEL_SUFFIX.match(name):
                found.setdefault(match["case"], {})[self.channels[int(match["channel"])]] = file
            else:
                others.append(name)
        called = {mask.lower() for mask in masks}
        alone = [name for name in others if name in found or not _has_mask(name, called)]
        first = next(iter(self.channels.values()))
        return found | {name: {first: files[name]} for name in others if name not in alone}, [files[n] for n in alone]


def numbering_of(
    folders: Sequence[tuple[Collection[str], Collection[str]]], names: Sequence[str], root: Path
) -> Numbering:
    """Tell from all folders of a data set what the numbers are: channels where most masks are called without them.

    Args:
        folders: names of the pictures and of the masks of each.
        names: of the channels, where the data set has so many.
        root: of the data set.

    Raises:
        InputError: pictures have several files, and their numbers do not begin at 0.
    """
    numbers: dict[tuple[int, str], set[int]] = {}
    masks = paired = 0
    for place, (pictures, own) in enumerate(folders):
        called = {mask.lower() for mask in own}
        for match in filter(None, map(CHANNEL_SUFFIX.match, pictures)):
            numbers.setdefault((place, match["case"]), set()).add(int(match["channel"]))
        masks += len(own)
        paired += sum(_has_mask(name, called) for at, name in numbers if at == place)
    every = sorted(set().union(*numbers.values()))
    if 2 * paired <= masks:
        return Numbering({})
    if all(len(found) == 1 for found in numbers.values()):
        return Numbering(dict.fromkeys(every, GREY))
    if every != list(range(len(every))):
        raise InputError(
            f"{root}: the names of pictures end in the numbers {describe_some(f'{n:04d}' for n in every)}, but "
            "channels are counted from 0 (_0000, _0001); rename the files, or number the masks' names alike."
        )
    return Numbering(dict(enumerate(names if len(names) == len(every) else [f"channel_{n}" for n in every])))


def _has_mask(name: str, called: Collection[str]) -> bool:
    return any((name + suffix).lower() in called for suffix in SUFFIXES)


def with_colours(cases: Sequence[Case], notes: list[str]) -> list[Case]:
    """Give the cases red, green and blue where any picture is in colour.

    Raises:
        InputError: one of several files of a picture is in colour.
    """
    colour: dict[str, bool] = {}
    for case in cases:
        for file in case.images.values():
            try:
                colour[case.case] = _is_coloured(file)
            except InputError as error:
                notes.append(f"An image could not be read: {error}")
                continue
            if colour[case.case] and GREY not in case.images:
                raise InputError(
                    f"{file}: this is one of several channels of a picture, and in colour; store red, green and blue "
                    "as channels of their own, in grey."
                )
    if not any(colour.values()):
        return list(cases)
    grey = [name for name, coloured in colour.items() if not coloured]
    if grey:
        notes.append(
            f"{len(grey)} of {len(colour)} images are grey; since the others are in colour, their grey stands for red, "
            "green and blue alike."
        )
    index = {name: number for number, name in enumerate(COLOURS)}
    return [
        replace(case, images=dict.fromkeys(COLOURS, case.images[GREY]), channel_index=index)
        if GREY in case.images
        else case
        for case in cases
    ]


def _is_coloured(file: Path) -> bool:
    if volumes_in(file) == 1:
        return False
    red, green, blue = (read_volume(file, volume_index=i).array for i in range(len(COLOURS)))
    return not (np.array_equal(red, green) and np.array_equal(red, blue))
