"""Finding image files and folders without minding upper and lower case, and reading what labels hold."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io import is_planar, read_label, stem_of

__all__ = [
    "CHANNEL_SUFFIX",
    "FULL",
    "LARGEST_LABEL",
    "endings_in_lower_case",
    "find_folder",
    "image_files",
    "images_in",
    "refuse_unclear",
    "require_text",
    "scan_labels",
    "two_codings",
]

FEW = 16
"""More values than this in the labels of a data set may be classes or instances; a person has to say which."""

FULL = 255
"""What programs for pictures write where others write 1."""

CHANNEL_SUFFIX = re.compile(r"^(?P<case>.+)_(?P<channel>\d{4})$")
"""nnU-Net's name of an image of one channel."""

_SHOWN = 5
LARGEST_LABEL = 65535
"""The largest value that a mask is written with."""


def find_folder(root: Path, names: Iterable[str]) -> Path | None:
    """Return the first folder directly in ``root`` whose name is one of ``names``, whatever its case."""
    if not root.is_dir():
        return None
    present = {folder.name.lower(): folder for folder in sorted(root.iterdir()) if folder.is_dir()}
    return next((present[name.lower()] for name in names if name.lower() in present), None)


def image_files(folder: Path, *, deep: bool = False, planar: bool = False) -> Iterator[tuple[str, Path]]:
    """Give the image files of a folder with their names without ending, sorted; hidden files are left out."""
    for file in sorted(folder.rglob("*") if deep else folder.iterdir()):
        stem = stem_of(file.name)
        if stem is not None and not file.name.startswith(".") and not file.is_dir() and is_planar(file) == planar:
            yield stem, file


def images_in(folder: Path, *, deep: bool = False, planar: bool = False) -> dict[str, Path]:
    """Return the image files of a folder by their name without ending, sorted; hidden files are left out.

    Pictures lie beside volumes as previews, so either they are wanted (``planar``) or the others.

    Raises:
        InputError: two files differ only in their ending (or, when ``deep``, in their folder).
    """
    found: dict[str, Path] = {}
    for stem, file in image_files(folder, deep=deep, planar=planar):
        require_text(file)
        if stem in found:
            raise InputError(f"{file}: the file {found[stem]} has the same name; keep one of the two.")
        found[stem] = file
    return found


def require_text(file: Path) -> None:
    """Refuse a file whose name is no text: it cannot stand in cases.csv or in a record.

    Raises:
        InputError: its bytes are not UTF-8, as on discs of other systems.
    """
    try:
        str(file).encode()
    except UnicodeEncodeError as error:
        shown = os.fsencode(file).decode(errors="backslashreplace")
        raise InputError(f"{shown}: the name of this file is not written in UTF-8; rename it.") from error


def endings_in_lower_case(stems: Collection[str], suffixes: Iterable[str], images: Collection[str]) -> dict[str, str]:
    """Return the stems of labels as they are to be looked for: ``p0_mask`` finds ``p0_Mask``, and each finds itself.

    Args:
        stems: names of label files without their ending.
        suffixes: what the name of a label has after that of its image, in lower case.
        images: names of images, which are never taken for one with a suffix.
    """
    marks = [suffix for suffix in suffixes if suffix]
    found = {}
    for stem in stems:
        mark = next((mark for mark in marks if stem.lower().endswith(mark)), "")
        if mark and stem not in images:
            found[stem[: -len(mark)] + mark] = stem
    return found | {stem: stem for stem in stems}


def two_codings(values: Iterable[Collection[float]]) -> bool:
    """Return whether some masks mark the one class by 1 and the others by 255.

    Args:
        values: what each mask holds above 0; a mask that holds nothing has no part in it.
    """
    marked = [set(own) for own in values if own]
    return {1} in marked and {FULL} in marked and all(own in ({1}, {FULL}) for own in marked)


def scan_labels(files: Iterable[Path]) -> tuple[dict[str, int | list[int]], list[str]]:
    """Read label files and name every whole value above 0 that occurs: ``{"label_1": 1, ...}``.

    Returns:
        The names and values, and notes about values that cannot be declared so and files that cannot be read.
    """
    values: list[set[float]] = []
    notes: list[str] = []
    odd: dict[float, Path] = {}
    for file in files:
        try:
            found = [float(v) for v in np.unique(read_label(file).array)]
        except InputError as error:
            notes.append(f"A label could not be read: {error}")
            continue
        for value in found:
            if value != 0 and not (value.is_integer() and 0 < value <= LARGEST_LABEL):
                odd.setdefault(value, file)
        values.append({v for v in found if v not in odd and v != 0})
    if odd:
        shown = ", ".join(f"{value:.9g} ({file.name})" for value, file in list(odd.items())[:_SHOWN])
        notes.append(f"Label values that are no whole numbers above 0 were not declared: {shown}.")
    if two_codings(values):
        notes.append("Some labels hold 1 and others 255; both are declared as one class, and masks are written 1.")
        return {"label_1": [1, FULL]}, notes
    return {f"label_{int(v)}": int(v) for v in sorted(set().union(*values))}, notes


def refuse_unclear(root: Path, values: Collection[float]) -> None:
    """Ask what the values of labels are where there are so many that they may number instances.

    Raises:
        InputError: they may be either.
    """
    if len(values) > FEW:
        shown = ", ".join(f"{value:.9g}" for value in sorted(values)[:_SHOWN])
        raise InputError(
            f"{root}: the labels hold {len(values)} different values ({shown} and {len(values) - _SHOWN} more); say "
            "--masks instances when they number the instances of one class, or --masks classes when each is a class."
        )
