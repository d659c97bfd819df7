"""Case and cases.csv, the one input format: it points at files and copies nothing.

Columns: ``case, subject, site, group, split, image_<channel>..., unit_<channel>..., label, mask``. Paths are absolute
or relative to the folder of the csv. Empty cells mean: no such file, unit unknown.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..atomic import replacing
from ..errors import InputError, nearest

__all__ = ["NO_CHANNELS", "Case", "channels_of", "read_cases", "sound_name", "write_cases"]

GROUPS = ("patient", "healthy")
SPLITS = ("train", "test")
_NAME = re.compile(r"\w[\w .+-]*")
_UNSOUND = re.compile(r"^\W|[^\w .+-]")
_SHOWN = 10
LONGEST_NAME, LONGEST_PATH = 255, 4095
"""Bytes that Linux allows; a longer name is an error of the system in whatever asks for the file."""

_INDEX = re.compile(r"[0-9]{1,9}")
NO_CHANNELS = ("label", "mask")
"""Names of columns that a channel may not have, since files are told apart by them."""

_FIXED = ("case", "subject", "site", "group", "split", *NO_CHANNELS)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One scan session: its images by channel, and its label when there is one.

    Attributes:
        case: unique name, used for every output file.
        subject: the person; cases of one subject never stand on two sides of a split.
        site: hospital or scanner, free text.
        group: "patient", or "healthy" (material for an atlas, never trained on nor scored).
        split: "train" (cross-validated) or "test" (held out, predicted by the ensemble only).
        images: channel name to file.
        channel_index: for a channel that is one volume of a 4-D file, its index there.
        units: channel name to unit ("1e-6 mm2/s", "1e-3 mm2/s", "mm2/s", "z", "HU", "a.u."); missing: unknown.
        label: the reference segmentation.
        mask: the brain, an image that is not 0 there; without it the brain is what is not background, or estimated.
    """

    case: str
    subject: str
    images: dict[str, Path]
    label: Path | None = None
    site: str = ""
    group: str = "patient"
    split: str = "train"
    units: dict[str, str] = field(default_factory=dict)
    channel_index: dict[str, int] = field(default_factory=dict)
    mask: Path | None = None


def channels_of(cases: Sequence[Case]) -> tuple[str, ...]:
    """Return every channel that occurs, in an order that none of the cases contradicts.

    The first case may lack the first channel, and the numbers of nnU-Net's files count the channels in this order.
    """
    before: dict[str, set[str]] = {}
    for case in cases:
        names = list(case.images)
        for place, name in enumerate(names):
            before.setdefault(name, set()).update(names[:place])
    order: list[str] = []
    while len(order) < len(before):
        rest = [name for name in before if name not in order]
        order.append(next((name for name in rest if before[name] <= set(order)), rest[0]))
    return tuple(order)


def sound_name(name: str) -> str:
    """Return a name that a case may have: letters in one way of writing accents, ``_`` for what is not allowed."""
    return _UNSOUND.sub("_", unicodedata.normalize("NFC", name))


def write_cases(cases: Sequence[Case], path: Path | str) -> None:
    """Write cases.csv; files below its folder are written relative to it, so the folder can be moved as a whole."""
    path, channels = Path(path), channels_of(cases)
    base = path.resolve().parent
    columns = ["case", "subject", "site", "group", "split"]
    columns += [f"image_{c}" for c in channels] + [f"unit_{c}" for c in channels] + ["label"]
    columns += ["mask"] if any(case.mask for case in cases) else []
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        for case in cases:
            row = {name: getattr(case, name) for name in columns[:5]}
            row |= {f"image_{c}": _shown(f, base, case.channel_index.get(c)) for c, f in case.images.items()}
            row |= {f"unit_{c}": unit for c, unit in case.units.items()}
            row |= {"label": _shown(case.label, base, None) if case.label else ""}
            writer.writerow(row | ({"mask": _shown(case.mask, base, None)} if case.mask else {}))


def read_cases(path: Path | str) -> list[Case]:
    """Read cases.csv; whether the files exist and fit is the business of the checks.

    Raises:
        InputError: the file is missing, is not a table with the columns above, or a cell holds an unknown group or
            split; the message names the row.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, but the table of cases is wanted; correct `cases`.")
    if not path.is_file():
        raise InputError(f"{path}: this file does not exist; make it with `neoseg import DIR`.")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream, strict=True)
            reader.fieldnames = [name.strip() for name in reader.fieldnames or []]
            rows, lines = [], []
            for row in reader:
                rows.append(row)
                lines.append(reader.line_num)
            columns = list(reader.fieldnames)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: this is not a UTF-8 table with commas ({error}); save it as CSV UTF-8.") from error
    _check_columns(path, columns)
    _check_names(path, {line: (row["case"] or "").strip() for line, row in zip(lines, rows, strict=True)})
    return [_case_of(path, line, row, columns) for line, row in zip(lines, rows, strict=True)]


def _check_columns(path: Path, columns: list[str]) -> None:
    for mark, called in ((";", "semicolons"), ("\t", "tabs")):
        if len(columns) == 1 and mark in columns[0]:
            raise InputError(
                f"{path}: the cells are separated by {called}, but commas are wanted; save the table as CSV with "
                "commas (a spreadsheet set to German or French writes semicolons)."
            )
    missing = [name for name in ("case",) if name not in columns]
    if missing or not any(c.startswith("image_") for c in columns):
        raise InputError(
            f"{path}: the columns {columns} were given, but at least `case` and one `image_<channel>` are wanted."
        )
    for column in columns:
        if column not in _FIXED and not column.startswith(("image_", "unit_")):
            hint = nearest(column, [*_FIXED, "image_<channel>", "unit_<channel>"])
            raise InputError(f"{path}: the column {column!r} is not known{hint}; rename or remove it.")
        kind, _, channel = column.partition("_")
        if kind == "image" and channel in NO_CHANNELS:
            raise InputError(f"{path}: no channel can be called {channel!r}, as another column is; rename {column!r}.")
        if kind == "unit" and channel and f"image_{channel}" not in columns:
            hint = nearest(channel, [name.removeprefix("image_") for name in columns if name.startswith("image_")])
            raise InputError(
                f"{path}: the column {column!r} has no image_{channel} beside it{hint}; rename or remove it."
            )
        if column in ("image_", "unit_"):
            told = f"call it {column}<channel>, such as {column}adc"
            raise InputError(f"{path}: the column {column!r} names no channel; {told}.")
        if columns.count(column) > 1:
            count = columns.count(column)
            raise InputError(f"{path}: the column {column!r} stands {count} times; rename or remove all but one.")


def _check_names(path: Path, names: Mapping[int, str]) -> None:
    unfit = [f"{name!r} (line {n})" for n, name in names.items() if name and not _NAME.fullmatch(name)]
    if unfit:
        more = f" and {len(unfit) - _SHOWN} more" if len(unfit) > _SHOWN else ""
        what = "names" if len(unfit) > 1 else "name"
        raise InputError(
            f"{path}: the case {what} {', '.join(unfit[:_SHOWN])}{more} cannot be part of file names; a name may hold "
            "letters, digits, spaces and '._-+' and has to begin with a letter, a digit or '_'; change these cells."
        )


def _case_of(path: Path, number: int, row: dict[str, str | None], columns: list[str]) -> Case:
    where = f"{path}, line {number}"
    cells = {key: (value or "").strip() for key, value in row.items() if key is not None}
    if None in row or not cells["case"]:
        raise InputError(f"{where}: a row needs a case name and at most {len(columns)} cells; correct this row.")
    group, split = cells.get("group") or "patient", cells.get("split") or "train"
    for column, value, valid in (("group", group, GROUPS), ("split", split, SPLITS)):
        if value not in valid:
            raise InputError(f"{where}: the {column} {value!r} is not known{nearest(value, valid)}; correct this cell.")
    images, index = {}, {}
    for column in columns:
        if column.startswith("image_") and cells[column]:
            channel = column.removeprefix("image_")
            text, mark, volume = cells[column].rpartition("#")
            if mark and _INDEX.fullmatch(volume):
                index[channel] = int(volume)
            else:
                text = cells[column]
            images[channel] = _resolved(text, path.parent, where)
    units = {c.removeprefix("unit_"): cells[c] for c in columns if c.startswith("unit_") and cells[c]}
    label, mask = cells.get("label", ""), cells.get("mask", "")
    return Case(
        case=cells["case"],
        subject=cells.get("subject") or cells["case"],
        site=cells.get("site", ""),
        group=group,
        split=split,
        images=images,
        channel_index=index,
        units=units,
        label=_resolved(label, path.parent, where) if label else None,
        mask=_resolved(mask, path.parent, where) if mask else None,
    )


def _shown(file: Path, base: Path, index: int | None) -> str:
    absolute = Path(os.path.abspath(file))
    text = (absolute.relative_to(base) if absolute.is_relative_to(base) else absolute).as_posix()
    text = f"./{text}" if text != text.lstrip() else text  # reading takes blanks around a cell away
    return text if index is None else f"{text}#{index}"


def _resolved(text: str, base: Path, where: str) -> Path:
    file = Path(os.path.abspath(base / text))
    longest = max(len(os.fsencode(part)) for part in file.parts)
    if longest > LONGEST_NAME or len(os.fsencode(file)) > LONGEST_PATH:
        raise InputError(
            f"{where}: {text[:60]!r}... is no file name: a name may have {LONGEST_NAME} bytes and a path "
            f"{LONGEST_PATH}; correct this cell."
        )
    return file
