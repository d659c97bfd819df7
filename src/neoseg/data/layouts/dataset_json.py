"""What a ``dataset.json`` declares, in the forms of the Decathlon and of nnU-Net: channels, classes, regions.

Sources: Antonelli et al. 2022, doi 10.1038/s41467-022-30695-9, and the dataset.json of its ten tasks; nnU-Net's
``channel_names``, ``labels`` with regions and ``regions_class_order``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...io import stem_of
from ...wording import counted
from ..cases import NO_CHANNELS

__all__ = ["Declared", "Described", "channel_names", "declared", "described_beside", "not_these_channels",
           "read_dataset_json"]  # fmt: skip

BACKGROUND, IGNORE = "background", "ignore"

_UNFIT = re.compile(r"[^\w.+-]+")
"""What stands in no name of a channel, since files and columns are called by it."""


def read_dataset_json(root: Path) -> dict[str, Any] | None:
    """Return the content of ``root/dataset.json``, or None when there is no such file.

    Raises:
        InputError: it is not a JSON object.
    """
    path = root / "dataset.json"
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: this is not readable JSON ({error}); correct it.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: a JSON object with keys is wanted, but it holds a {type(content).__name__}.")
    return content


def channel_names(given: Any) -> list[str]:
    """Return the channels in their order, in lower case; names that repeat get their number (``ct_0``, ``ct_1``).

    In nnU-Net the name chooses the normalisation, so two channels may have one name. So do names of other columns of
    ``cases.csv`` (``mask_1``); what cannot be part of a file's name becomes ``_``.

    Args:
        given: ``{"0": "CT", ...}``, ``{"CT": 0, ...}``, or a list.

    Returns:
        One name a channel; none where ``given`` names no channel.
    """
    if isinstance(given, dict) and [*given.values()] == list(range(len(given))):
        names = list(given)
    elif isinstance(given, dict) and all(str(key).isdecimal() for key in given):
        names = [given[key] for key in sorted(given, key=int)]
    else:
        names = given if isinstance(given, list) else []
    if not all(isinstance(name, str) for name in names):
        return []
    plain = [_UNFIT.sub("_", name.strip().lower()).strip("_") for name in names]
    if len(set(plain)) < len(plain):
        plain = [f"{name or 'channel'}_{index}" for index, name in enumerate(plain)]
    return [f"{name or 'channel'}_{i}" if name in ("", *NO_CHANNELS) else name for i, name in enumerate(plain)]


@dataclass(frozen=True)
class Declared:
    """What the labels mean.

    Attributes:
        labels: class name to stored value or values; empty where nothing could be read from the file.
        regions: region name to the classes in it, in the order of painting; empty where the labels are classes.
        notes: what a person should know, one sentence each.
    """

    labels: dict[str, int | list[int]] = field(default_factory=dict)
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def not_these_channels(named: Sequence[str], found: Sequence[str]) -> list[str]:
    """Return a note where a ``dataset.json`` names another number of channels than the images have."""
    if not named or len(named) == len(found):
        return []
    return [
        f"dataset.json names {counted(len(named), 'channel')} ({', '.join(named)}), but the images have {len(found)} "
        f"({', '.join(found)}); its names were not used."
    ]


@dataclass(frozen=True)
class Described:
    """What a ``dataset.json`` says.

    Attributes:
        channels: in their order; empty where it names none.
        labels, regions: as in :class:`Declared`.
    """

    channels: tuple[str, ...] = ()
    labels: dict[str, int | list[int]] = field(default_factory=dict)
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)


def described_beside(folders: Sequence[Path], notes: list[str], *, may_be_of_others: bool) -> Described:
    """Return what the first ``dataset.json`` in some folders says.

    Args:
        folders: where it may lie.
        notes: what a person should know is added here.
        may_be_of_others: another program may have written one that is no JSON object; it is named in a note then.

    Raises:
        InputError: it is not a JSON object, and may not be of others.
    """
    folder = next((folder for folder in folders if (folder / "dataset.json").is_file()), None)
    if folder is None:
        return Described()
    try:
        content = read_dataset_json(folder) or {}
    except InputError as error:
        if not may_be_of_others:
            raise
        notes.append(f"{error} It was not used.")
        return Described()
    given = content.get("channel_names", content.get("modality"))
    channels = channel_names(given)
    if given and not channels:
        notes.append('The channels of dataset.json are not named by their numbers, as {"0": "x"}, and were not used.')
    found = declared(content)
    notes += found.notes
    return Described(tuple(channels), found.labels, found.regions)


def declared(content: Mapping[str, Any]) -> Declared:
    """Return the classes and regions of ``labels``: ``{"1": "x"}``, ``{"x": 1}``, or nnU-Net's ``{"whole": [1, 2]}``.

    Also a list of names, which counts from 0. Stored values that lie in the same regions are one class: no region tells
    them apart.
    """
    given = content.get("labels")
    if isinstance(given, list):
        given = {str(value): name for value, name in enumerate(given)}
    if not isinstance(given, dict):
        return Declared()
    numbered = all(str(key).isdecimal() for key in given)
    pairs = [(name, value) for value, name in given.items()] if numbered else list(given.items())
    if not all(isinstance(name, str) and stem_of(name) is None for name, _ in pairs):
        return Declared(
            notes=[
                "The labels of dataset.json are no names of classes with their numbers, so the masks were looked at."
            ]
        )
    notes: list[str] = []
    names: dict[str, str] = {}
    values: dict[str, list[int]] = {}
    for name, value in pairs:
        try:
            found = [_whole(one) for one in (value if isinstance(value, list) else [value])]
        except (TypeError, ValueError):
            return Declared(notes=["The labels of dataset.json are no whole numbers, so the label files were scanned."])
        if name.lower() == IGNORE:
            notes.append(
                f"dataset.json declares {name!r} = {value}, voxels that no training looks at; neoseg has no such "
                "label, so the value was not declared, and `neoseg check` names the files that hold it."
            )
        elif name.strip().lower() == BACKGROUND:
            if found != [0]:
                notes.append(f"dataset.json declares {name!r} = {value}, but background is 0 here; correct [labels].")
        elif found == [0]:
            notes.append(f"dataset.json declares {name!r} = 0; 0 is background here, so there is no such class.")
        else:
            values.setdefault(_safe(name, names, notes), []).extend(found)
    if numbered or all(len(found) == 1 for found in values.values()):
        return Declared({name: own[0] if len(own) == 1 else own for name, own in values.items()}, {}, notes)
    labels, regions = _classes_and_regions(values, content.get("regions_class_order"))
    return Declared(labels, regions, notes)


def _whole(value: Any) -> int:
    """Return a stored value, which may be written as a whole number, as 1.0, or as text.

    Raises:
        TypeError, ValueError: it is none of them; true and 1.5 are none.
    """
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError(value)
    return int(value)


def _classes_and_regions(
    regions: dict[str, list[int]], order: Any
) -> tuple[dict[str, int | list[int]], dict[str, tuple[str, ...]]]:
    """Return classes made of the stored values, and which of them each region holds."""
    painted: Sequence[Any] = order if isinstance(order, list) else ()
    groups: dict[tuple[str, ...], list[int]] = {}
    for value in sorted({value for own in regions.values() for value in own} - {0}):
        groups.setdefault(tuple(name for name, own in regions.items() if value in own), []).append(value)
    labels: dict[str, int | list[int]] = {}
    class_of: dict[int, str] = {}
    for group in groups.values():
        # masks are written with the first value, as nnU-Net writes them
        written = sorted(group, key=lambda value: (value not in painted, value))
        alone = next((name for name, own in regions.items() if set(own) == set(group)), f"label_{written[0]}")
        labels[alone] = written if len(written) > 1 else written[0]
        class_of |= dict.fromkeys(group, alone)
    return labels, {
        name: tuple(dict.fromkeys(class_of[value] for value in sorted(own) if value)) for name, own in regions.items()
    }


def _safe(name: str, names: dict[str, str], notes: list[str]) -> str:
    """Return a class name that may be part of a file's name, and that no other class has.

    Args:
        name: as the file has it.
        names: of the classes so far, with those of the file; this one is added.
        notes: of what is called otherwise.
    """
    safe = name.strip().replace("/", "_").replace("\\", "_")
    while names.setdefault(safe, name) != name:
        safe += "_"
    if safe != name:
        notes.append(f"The class {name!r} of dataset.json is called {safe!r}, since names become part of files' names.")
    return safe
