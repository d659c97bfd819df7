"""Pictures with masks, paired by file name: PNG, TIFF, BMP, and JPEG for pictures alone.

Accepted: ``images/`` + ``masks/`` (also labels, segmentations and their like, in any case), or ``train/`` and ``test/``
with such folders inside; test folders may also lie beside the others (``test_images``, ``imagesTs``). Both may have a
folder for each patient; masks may lie beside their pictures (``p1.png``, ``p1_mask.png``), and a picture may have a
folder of its own (``p1/images/``, ``p1/masks/``). A mask is one file, or a folder of the picture's name with one file
an instance. Where any picture is in colour, all are taken as red, green and blue; a grey one then has the same values
in each. Else there is one channel, "grey", or one for each number behind the names (``p1_0000.png``, ``p1_0001.png``).
A ``dataset.json`` names these and the classes or regions, as nnU-Net has it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io import COLOURS, read_volume, volumes_in
from ..cases import Case
from .dataset_json import Declared, channel_names, declared, read_dataset_json
from .files import CHANNEL_SUFFIX, describe_some, endings_in_lower_case, images_in
from .imported import ImportedData, ImportOptions
from .left_out import convert_to, files_of_other_kinds, told_left_out, unused_folders
from .planar_masks import classes_of
from .planar_parts import LOOKS_FOR, SUFFIXES, Part, masks_beside, parts_of
from .subject_names import several_of_one, subject_in

__all__ = ["LOOKS_FOR", "matches", "planar_folders"]

GREY = "grey"

_SMEARED = (".jpg", ".jpeg")
"""Endings of files that hold pictures but no masks."""


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    parts = [part for part in parts_of(root) if images_in(part.images, planar=True)]
    if not parts or any(images_in(part.images) for part in parts):
        return None
    pictures = sum(len(_pictures_and_masks(part)[0]) for part in parts if not _without_masks(part))
    first = parts[0]
    where, masks = (f"{folder.relative_to(root)}/" if folder else "" for folder in (first.images, first.masks))
    told = f" and {masks}" if masks not in ("", where) else " with masks beside them" if masks else " (no masks)"
    more = " and its like" if first.patient or first.case else ""
    return f"it holds {where if where != './' else 'pictures'}{told}{more}, {pictures} pictures"


def planar_folders(root: Path, options: ImportOptions | None = None) -> ImportedData:
    """Import pictures with masks.

    Raises:
        InputError: no such folder, no picture in it, a file name that occurs twice, a dataset.json that cannot be read,
            or masks whose values may be classes or instances.
    """
    options = options or ImportOptions()
    parts = parts_of(root)
    if not parts:
        raise InputError(f"{root}: this layout needs {LOOKS_FOR}, but there is no such folder.")
    cases: list[Case] = []
    merged: dict[str, list[Path]] = {}
    notes: list[str] = []
    if held_out := [f"{part.images.relative_to(root)}/" for part in parts if _without_masks(part)]:
        notes.append(
            f"{describe_some(held_out)} {'has' if len(held_out) == 1 else 'have'} no masks and "
            f"{'was' if len(held_out) == 1 else 'were'} left out; predict with `neoseg predict`."
        )
    described = read_dataset_json(root) or {}
    channels = channel_names(described.get("channel_names", described.get("modality")))
    read = [part for part in parts if not _without_masks(part)]
    one_mask = all(len(_pictures_and_masks(part)[1]) <= 1 for part in read)
    for part in read:
        cases += _of_one_picture(part, one_mask, merged) if part.case else _paired(part, channels, merged, notes)
    if not any(case.images for case in cases):
        others = files_of_other_kinds(root, planar=True, deep=2)
        told = f" {told_left_out(others, root)}" if others else ""
        raise InputError(f"{root}: no picture was found; this layout needs {LOOKS_FOR}.{told}")
    files: dict[str, list[str]] = {}
    for case in cases:
        first = next(iter(case.images.values()), case.label)
        files.setdefault(case.case, []).append(str(first.relative_to(root)) if first is not None else case.case)
    if twice := [" and ".join(named) for named in files.values() if len(named) > 1]:
        raise InputError(f"{root}: {describe_some(twice)} have one name each; rename or remove one.")
    cases = _with_channels(cases, notes)
    meaning = options.masks or ("instances" if any(part.named_instances for part in parts) else None)
    named = declared(described) if meaning != "instances" and not merged else Declared()
    notes += named.notes
    labels, instances = (named.labels, False) if named.labels else classes_of(root, cases, merged, meaning, notes)
    if instances and options.masks is None and not merged:
        names = sorted({part.masks.name for part in parts if part.masks is not None})
        notes.append(f"By the name {', '.join(names)}/ the values number instances; each above 0 is the one class.")
    notes += _left_out(root, parts, {files[0].parent for files in merged.values()})
    notes += _unpaired(cases, merged)
    if options.subject_pattern is None and all(case.subject == case.case for case in cases):
        notes.append(
            several_of_one([case.case for case in cases])
            or "Each image counts as a subject of its own; where several are of one patient, say --subject-pattern, or "
            "scores will be too good."
        )
    return ImportedData(
        cases=sorted(cases, key=lambda case: case.case),
        labels=labels,
        channels=dict.fromkeys((channel for case in cases for channel in case.images), "mr"),
        notes=notes,
        instances=instances,
        regions=named.regions,
        merged=merged,
    )


def _unpaired(cases: Sequence[Case], merged: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return notes about pictures without a mask, and masks without a picture."""
    notes = []
    if alone := [case.case for case in cases if case.label is None and case.case not in merged]:
        looked = (
            " Masks are looked for in masks/, labels/, segmentations/, annotations/ or ground_truth/ beside images/, "
            "and beside the pictures with _mask, _label, _seg or _gt behind the name."
        )
        every = len(alone) == len(cases)
        notes.append(f"Images without a mask ({len(alone)}): {describe_some(alone)}.{looked if every else ''}")
    if alone := [case.case for case in cases if not case.images]:
        notes.append(f"Masks without an image ({len(alone)}): {describe_some(alone)}.")
    return notes


def _without_masks(part: Part) -> bool:
    """Tell whether the pictures are held out, and none of them can be scored."""
    return part.split == "test" and part.masks is None


def _left_out(root: Path, parts: Sequence[Part], merged: set[Path]) -> list[str]:
    """Return notes about the files and folders that are not read."""
    used = [folder for part in parts for folder in (part.images, part.masks) if folder is not None]
    others = [file for folder in used for file in files_of_other_kinds(folder, planar=True, deep=1)]
    notes = [told_left_out(others, root)] if others else []
    return notes + unused_folders(root, [*used, *merged], planar=True)


def _pictures_and_masks(part: Part, names: Sequence[str] = ()) -> tuple[dict[str, dict[str, Path]], dict[str, Path]]:
    """Return the pictures of a part, channel to file, and the masks, both by name.

    Where all names end in the number of a channel, as nnU-Net's do, and the masks' do not, it is no part of the name.

    Args:
        part: the folders.
        names: of the channels, where each picture has as many files.

    Raises:
        InputError: two files have one name, or the channels are not numbered from 0.
    """
    files = images_in(part.images, planar=True)
    if part.masks == part.images:
        beside = masks_beside(files)
        return {k: {GREY: v} for k, v in files.items() if k not in beside}, {k: files[k] for k in files if k in beside}
    masks = images_in(part.masks, planar=True) if part.masks is not None else {}
    whole = {name: {GREY: file} for name, file in files.items()}
    numbered = {name: match for name in files if (match := CHANNEL_SUFFIX.match(name))}
    called = {stem.lower() for stem in masks}
    if len(numbered) < len(files) or any((name + suffix).lower() in called for name in files for suffix in SUFFIXES):
        return whole, masks
    if not any((match["case"] + suffix).lower() in called for match in numbered.values() for suffix in SUFFIXES):
        return whole, masks
    numbers = sorted({int(match["channel"]) for match in numbered.values()})
    if numbers != list(range(len(numbers))):
        raise InputError(
            f"{part.images}: the names of these pictures end in the numbers {describe_some(map(str, numbers))}, but "
            "channels are counted from 0 (_0000, _0001); rename the files, or number the masks' names alike."
        )
    own = names if len(names) == len(numbers) else [f"channel_{number}" for number in numbers]
    found: dict[str, dict[str, Path]] = {}
    for name, match in numbered.items():
        channel = GREY if len(numbers) == 1 else own[int(match["channel"])]
        found.setdefault(match["case"], {})[channel] = files[name]
    return found, masks


def _refuse_smeared(part: Part, masks: Mapping[str, Path]) -> None:
    """Refuse masks in a format that does not keep numbers.

    Raises:
        InputError: naming some.
    """
    if smeared := [file.name for file in masks.values() if file.suffix.lower() in _SMEARED]:
        raise InputError(
            f"{part.masks}: {len(smeared)} of {len(masks)} masks are JPEG ({describe_some(smeared)}), which does not "
            "keep the numbers of its pixels; save them as PNG, with a threshold where classes have become smeared."
        )


def _of_one_picture(part: Part, one_mask: bool, merged: dict[str, list[Path]]) -> list[Case]:
    """Return the case of a folder of its own; the mask is one file or, where any has several, one file an instance."""
    assert part.case is not None
    images, masks = _pictures_and_masks(part)
    _refuse_smeared(part, masks)
    if not one_mask and part.masks is not None and (instances := _instances(part.masks)):
        merged[part.case] = instances
    label = next(iter(masks.values()), None) if one_mask else None
    picture = next(iter(images.values()))
    return [Case(case=part.case, subject=subject_in(part.case), images=picture, label=label, split=part.split)]


def _paired(part: Part, channels: Sequence[str], merged: dict[str, list[Path]], notes: list[str]) -> list[Case]:
    """Return the cases of a split; one whose mask is a folder of its own is entered in ``merged``."""
    images, files = _pictures_and_masks(part, channels)
    _refuse_smeared(part, files)
    folders: dict[str, Path] = {}
    for folder in sorted(part.masks.iterdir()) if part.masks not in (None, part.images) else []:
        if folder.is_dir():
            folders[unicodedata.normalize("NFC", folder.name)] = folder
    labels: dict[str, Path] = {}
    called = endings_in_lower_case([*files, *folders], SUFFIXES, images)
    for name in images:
        # a mask that bears the name of a picture is of that picture
        own = [name + suffix for suffix in SUFFIXES if not suffix or name + suffix not in images]
        found = [called[one] for one in own if called.get(one) in {*files, *folders}]
        alike = [files[one].name for one in found if one in files] + [f"{one}/" for one in found if one in folders]
        if len(alike) > 1:
            raise InputError(f"{part.masks}: {' and '.join(alike)} are all masks of {_file(images[name])}; keep one.")
        if found and found[0] in files:
            labels[name] = files.pop(found[0])
        elif found:
            folder = folders.pop(found[0])
            if instances := _instances(folder):
                merged[_called(name, part)] = instances
            else:
                notes.append(
                    f"{folder}: this folder holds no mask, so {_file(images[name])} counts as not labelled; if there "
                    "is nothing to be found on it, put a mask of its size with 0 throughout there."
                )
    labels |= files
    return [
        Case(
            case=_called(name, part),
            subject=part.patient or subject_in(name),
            images=images.get(name, {}),
            label=labels.get(name),
            split=part.split,
        )
        for name in sorted({*images, *labels})
    ]


def _file(picture: Mapping[str, Path]) -> str:
    """Return the name of the first file of a picture."""
    return next(iter(picture.values())).name


def _called(name: str, part: Part) -> str:
    """Return the name of a case, which in a patient's folder begins with that of the patient."""
    if part.patient is None or re.match(re.escape(part.patient) + r"($|[._-])", name):
        return name
    return f"{part.patient}_{name}"


def _instances(folder: Path) -> list[Path]:
    """Return the masks of one instance each.

    Raises:
        InputError: an instance lies there in a format that is not read.
    """
    if others := files_of_other_kinds(folder, planar=True):
        raise InputError(
            f"{others[0]}: this file lies among masks of one instance each, but files of its kind are not read, and "
            f"the mask of the picture would lack it; convert it to {convert_to(others[:1])}."
        )
    return list(images_in(folder, planar=True).values())


def _with_channels(cases: Sequence[Case], notes: list[str]) -> list[Case]:
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
            if colour[case.case] and len(case.images) > 1:
                raise InputError(
                    f"{file}: this is one of {len(case.images)} channels of a picture, and in colour; store red, green "
                    "and blue as channels of their own, in grey."
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
