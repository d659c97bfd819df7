"""What the values of masks of pictures mean: classes, instances, or the grey edges of a mask that was resized."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from ...errors import InputError
from ...io import read_label
from ...wording import counted, listed
from ..cases import Case
from .files import FULL, LARGEST_LABEL, refuse_unclear, two_codings
from .imported import Meaning

__all__ = ["MERGED", "classes_of", "has_grey_edges", "unlike_the_masks"]

MERGED = FULL
"""What a mask that is merged from one file an instance holds where there is one; white in every viewer."""

EDGE = 4
"""Pixels from the edge of one class within which resizing leaves values between 0 and 255."""

SHARE = 0.95
"""So much of what lies between 0 and 255 has to be near an edge."""

MIDDLE, LEAST = (32, 223), 0.1
"""At least this share of it is that far from 0 and 255: small numbers of classes beside borders of 255 are not."""

FEWEST = 3
"""So many values between 0 and 255 halving leaves; one or two may be classes of borders."""


def classes_of(
    root: Path, cases: Sequence[Case], merged: dict[str, list[Path]], meaning: Meaning | None, notes: list[str]
) -> tuple[dict[str, int | list[int]], bool]:
    """Return the classes with their stored values, and whether the values number instances.

    Args:
        root: of the data.
        cases: with the masks.
        merged: case to its files of one instance each.
        meaning: of the values, where it is known.
        notes: what a person should know is added here.

    Raises:
        InputError: nobody said what so many values are, or they are the grey edges of one class.
    """
    plain = [case.label for case in cases if case.label is not None]
    if merged:
        if meaning == "classes":
            raise InputError(
                f"{root}: a picture with a folder of masks has one file an instance, so the masks cannot hold classes; "
                "leave out --masks classes."
            )
        several = sum(len(files) for files in merged.values())
        notes.append(
            f"{several} files with one instance each are merged to {counted(len(merged), 'mask')} of one class."
        )
    if meaning == "instances":
        return {"foreground": MERGED}, True
    values, smeared, others = _values(plain, notes)
    every = {value for found in values.values() for value in found}
    if merged:
        every.add(MERGED)
    if every in (set(), {1}, {MERGED}):
        return {"foreground": max(every, default=1)}, False
    if two_codings([*values.values(), *([{MERGED}] if merged else [])]):
        notes.append("Some masks hold 1 and others 255; both are declared as one class, and masks are written 255.")
        return {"foreground": [MERGED, 1]}, False
    if meaning is None:
        if smeared and not others:
            raise InputError(
                f"{root}: {counted(len(smeared), 'mask')} ({listed(sorted(file.name for file in smeared))}) with grey "
                "edges from 0 to 255, as resizing and drawing leave them; write 255 where a pixel is above 127 and 0 "
                "elsewhere (docs/how-to/planar-images.md has the line), or say --masks classes when each value is a "
                "class."
            )
        refuse_unclear(root, every)
        bordered = sorted(file.name for file, found in values.items() if MERGED in found and len(found) > 1)
        if bordered:
            notes.append(
                f"Masks that hold 255 beside other values ({listed(bordered)}) have it as a class of its own; "
                "if 255 marks borders that count for nothing, set them to 0 or a class in copies of the masks."
            )
        notes.append("Each value is taken as a class; say --masks instances if they number the instances of one class.")
    return {f"label_{value}": value for value in sorted(every)}, False


def unlike_the_masks(labels: Mapping[str, int | list[int]], cases: Sequence[Case]) -> list[str]:
    """Return notes about values that a ``dataset.json`` declares and no mask holds, and the other way round."""
    notes: list[str] = []
    held, _, _ = _values([case.label for case in cases if case.label is not None], notes)
    every = {value for found in held.values() for value in found}
    declared = {name: value if isinstance(value, list) else [value] for name, value in labels.items()}
    for name, values in declared.items():
        if every and not every & set(values):
            notes.append(f"dataset.json declares {name} = {labels[name]}, which no mask holds.")
    if others := every - {value for values in declared.values() for value in values}:
        shown = listed(sorted(f"{value:5d}" for value in others))
        notes.append(f"Masks hold values that dataset.json does not declare: {' '.join(shown.split())}; see [labels].")
    return notes


def has_grey_edges(mask: NDArray[Any]) -> bool:
    """Tell whether the values between 0 and 255 are the smoothed edge of one class that is 255.

    Args:
        mask: ``(x, y)``.
    """
    between = (mask > 0) & (mask < FULL)
    if mask.max() != FULL or len(np.unique(mask[between])) < FEWEST:
        return False
    inside, reach = mask > FULL / 2, 2 * EDGE + 1
    edge = ndimage.maximum_filter(inside, reach) & ndimage.maximum_filter(~inside, reach)
    middle = (mask[between] >= MIDDLE[0]) & (mask[between] <= MIDDLE[1])
    return float(edge[between].mean()) >= SHARE and float(middle.mean()) >= LEAST


def _values(files: Sequence[Path], notes: list[str]) -> tuple[dict[Path, set[int]], list[Path], list[Path]]:
    """Return the values above 0 of each mask that can be read, the masks with grey edges, and those with other values.

    A mask without 255 in which nothing is thicker than an edge tells neither.
    """
    result: dict[Path, set[int]] = {}
    smeared: list[Path] = []
    others: list[Path] = []
    for file in files:
        try:
            mask = read_label(file).array[0]
        except InputError as error:
            notes.append(f"A mask could not be read: {error}")
            continue
        found = np.unique(mask)
        odd = [float(v) for v in found if not (float(v).is_integer() and 0 <= v <= LARGEST_LABEL)]
        if odd:
            told = f"the values {odd[:3]} are no whole numbers from 1 to {LARGEST_LABEL} and were not declared."
            notes.append(f"{file.name}: {told}")
        result[file] = {int(v) for v in found if v > 0 and float(v) not in odd}
        if has_grey_edges(mask):
            smeared.append(file)
        elif result[file] - {FULL} and (FULL in result[file] or not _is_thin(mask)):
            others.append(file)
    return result, smeared, others


def _is_thin(mask: NDArray[Any]) -> bool:
    return not ndimage.minimum_filter(mask != 0, 2 * EDGE + 1, mode="constant").any()
