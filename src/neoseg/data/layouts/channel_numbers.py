"""What a number behind the name of an image is: a channel (``p1_0000.png``, ``p1_0001.png``), or part of the name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...wording import listed
from .files import CHANNEL_SUFFIX

__all__ = ["Numbering", "Pairing", "numbering_of", "told_unnumbered"]

_NUMBER = re.compile(r"_\d{4}")


@dataclass(frozen=True)
class Pairing:
    """How images and masks of a layout are called.

    Attributes:
        suffixes: what the name of a mask has after that of its image, in lower case.
        single: the channel of an image that has one file.
        any_number: the one file of an image may have another number than 0, and several that differ by it alone may be
            images of their own, such as those of a film.
    """

    suffixes: Sequence[str]
    single: str
    any_number: bool = False

    def has_mask(self, name: str, called: Collection[str]) -> bool:
        """Tell whether one of these names of masks, in lower case, is that of the image's mask."""
        return any((name + suffix).lower() in called for suffix in self.suffixes)


@dataclass(frozen=True)
class Numbering:
    """What numbers behind names are.

    Attributes:
        pairing: of images and masks.
        channels: number to the channel that it stands for; empty: numbers are part of the names.
    """

    pairing: Pairing
    channels: Mapping[int, str]

    def by_name(
        self, files: Mapping[str, Path], masks: Collection[str]
    ) -> tuple[dict[str, dict[str, Path]], list[Path]]:
        """Return the images of a folder, channel to file, by name, and files without a number and without a mask.

        Args:
            files: by their name without ending.
            masks: names of masks.
        """
        if not self.channels:
            return {name: {self.pairing.single: file} for name, file in files.items()}, []
        found: dict[str, dict[str, Path]] = {}
        others: list[str] = []
        for name, file in files.items():
            if match := CHANNEL_SUFFIX.match(name):
                found.setdefault(match["case"], {})[self.channels[int(match["channel"])]] = file
            else:
                others.append(name)
        called = {mask.lower() for mask in masks}
        alone = [name for name in others if name in found or not self.pairing.has_mask(name, called)]
        first = next(iter(self.channels.values()))
        return found | {name: {first: files[name]} for name in others if name not in alone}, [files[n] for n in alone]


def numbering_of(
    folders: Sequence[tuple[Collection[str], Collection[str]]], names: Sequence[str], root: Path, pairing: Pairing
) -> Numbering:
    """Tell from all folders of a data set what the numbers are: channels where more masks are called without them.

    Where no mask tells, they are channels where every image begins with 0.

    Args:
        folders: names of the images and of the masks of each.
        names: of the channels, where the data set has so many.
        root: of the data set.
        pairing: of images and masks.

    Raises:
        InputError: the numbers of channels do not begin at 0, or have a gap.
    """
    numbers: dict[tuple[int, str], set[int]] = {}
    images = without = behind = 0
    for place, (own, labels) in enumerate(folders):
        called = {label.lower() for label in labels}
        for match in filter(None, map(CHANNEL_SUFFIX.match, own)):
            numbers.setdefault((place, match["case"]), set()).add(int(match["channel"]))
        images += len(own)
        without += sum(pairing.has_mask(name, called) for at, name in numbers if at == place)
        behind += _with_number(called, {name.lower() for name in own})
    every = sorted(set().union(*numbers.values()))
    whole = sum(map(len, numbers.values())) == images and all(0 in own for own in numbers.values())
    untold = without == behind == 0 and whole and (len(numbers) > 1 or not pairing.any_number)
    if without <= behind and not untold:
        return Numbering(pairing, {})
    if all(len(found) == 1 for found in numbers.values()) and (pairing.any_number or every == [0]):
        return Numbering(pairing, dict.fromkeys(every, pairing.single))
    if every != list(range(len(every))):
        raise InputError(
            f"{root}: the names of images end in the numbers {listed(sorted(f'{n:04d}' for n in every))}, but channels "
            "are counted from 0 without a gap (_0000, _0001); rename the files, here and of new scans, or number the "
            "masks' names alike."
        )
    return Numbering(pairing, dict(enumerate(names if len(names) == len(every) else [f"channel_{n}" for n in every])))


def _with_number(called: Collection[str], images: Collection[str]) -> int:
    """Return how many masks begin with the name of an image that ends in a number."""
    return sum(any(mask[: found.end()] in images for found in _NUMBER.finditer(mask)) for mask in called)


def told_unnumbered(files: Sequence[Path]) -> list[str]:
    """Return a note about the images that :meth:`Numbering.by_name` left out."""
    if not files:
        return []
    names = listed(sorted(file.name for file in files))
    return [f"Images with neither the number of a channel nor a mask were left out: {names}."]
