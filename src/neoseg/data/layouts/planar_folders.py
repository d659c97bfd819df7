"""Pictures with masks, paired by file name: PNG, TIFF, BMP, and JPEG for pictures alone.

Accepted: ``images/`` + ``masks/`` (also labels, segmentations and their like, in any case), or ``train/`` and ``test/``
with such folders inside; test folders may also lie beside the others (``test_images``, ``imagesTs``). Both may have a
folder for each patient; masks may lie beside their pictures (``p1.png``, ``p1_mask.png``), and a picture may have a
folder of its own (``p1/images/``, ``p1/masks/``). A mask is one file, or a folder of the picture's name with one file
an instance. Where any picture is in colour, all are taken as red, green and blue; a grey one then has the same values
in each. Else there is one channel, "grey".
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
        InputError: no such folder, no picture in it, a file name that occurs twice, or masks whose values may be
            classes or instances.
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
    read = [part for part in parts if not _without_masks(part)]
    one_mask = all(len(_pictures_and_masks(part)[1]) <= 1 for part in read)
    for part in read:
        cases += _of_one_picture(part, one_mask, merged) if part.case else _paired(part, merged, notes)
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
    labels, instances = classes_of(root, cases, merged, meaning, notes)
    if instances and options.masks is None and not merged:
        names = sorted({part.masks.name for part in parts if part.masks is not None})
        notes.append(f"By the name {', '.join(names)}/ the values number instances; each above 0 is the one class.")
    notes += _left_out(root, parts, {files[0].parent for files in merged.values()})
    if (root / "dataset.json").is_file():
        notes.append("dataset.json is not read for pictures; name the classes in [labels].")
    if alone := [case.case for case in cases if case.label is None and case.case not in merged]:
        looked = (
            " Masks are looked for in masks/, labels/, segmentations/, annotations/ or ground_truth/ beside images/, "
            "and beside the pictures with _mask, _label, _seg or _gt behind the name."
        )
        every = len(alone) == len(cases)
        notes.append(f"Images without a mask ({len(alone)}): {describe_some(alone)}.{looked if every else ''}")
    if alone := [case.case for case in cases if not case.images]:
        notes.append(f"Masks without an image ({len(alone)}): {describe_some(alone)}.")
    if options.subject_pattern is None and all(case.subject == case.case for case in cases):
        notes.append(
            several_of_one([case.case for case in cases])
            or "Each image counts as a subject of its own; where several are of one patient, say --subject-pattern, or "
            "scores will be too good."
        )
    channels = dict.fromkeys((channel for case in cases for channel in case.images), "mr")
    return ImportedData(
        cases=sorted(cases, key=lambda case: case.case),
        labels=labels,
        channels=channels,
        notes=notes,
        instances=instances,
        merged=merged,
    )


def _without_masks(part: Part) -> bool:
    """Tell whether the pictures are held out, and none of them can be scored."""
    return part.split == "test" and part.masks is None


def _left_out(root: Path, parts: Sequence[Part], merged: set[Path]) -> list[str]:
    """Return notes about the files and folders that are not read."""
    used = [folder for part in parts for folder in (part.images, part.masks) if folder is not None]
    others = [file for folder in used for file in files_of_other_kinds(folder, planar=True, deep=1)]
    notes = [told_left_out(others, root)] if others else []
    return notes + unused_folders(root, [*used, *merged], planar=True)


def _pictures_and_masks(part: Part) -> tuple[dict[str, Path], dict[str, Path]]:
    """Return the files of a part by their names; those of nnU-Net's pictures without the number of their channel.

    Raises:
        InputError: two files have one name, or a picture has several files, one a channel.
    """
    images = images_in(part.images, planar=True)
    if part.masks == part.images:
        beside = masks_beside(images)
        return {k: v for k, v in images.items() if k not in beside}, {k: v for k, v in images.items() if k in beside}
    masks = images_in(part.masks, planar=True) if part.masks is not None else {}
    numbered = [CHANNEL_SUFFIX.match(name) for name in images]
    called = {stem.lower() for stem in masks}
    if not all(numbered) or any((name + suffix).lower() in called for name in images for suffix in SUFFIXES):
        return images, masks
    found = [(match["case"], match["channel"]) for match in numbered if match]
    if not any((case + suffix).lower() in called for case, _ in found for suffix in SUFFIXES):
        return images, masks
    if any(channel != "0000" for _, channel in found):
        raise InputError(
            f"{part.images}: these pictures have one file a channel ({describe_some(images)}), which is read for "
            "volumes only; store the channels as one picture in colour, or as NIfTI."
        )
    return dict(zip((case for case, _ in found), images.values(), strict=True)), masks


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
    return [Case(case=part.case, subject=subject_in(part.case), images={GREY: picture}, label=label, split=part.split)]


def _paired(part: Part, merged: dict[str, list[Path]], notes: list[str]) -> list[Case]:
    """Return the cases of a split; one whose mask is a folder of its own is entered in ``merged``."""
    images, files = _pictures_and_masks(part)
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
            raise InputError(f"{part.masks}: {' and '.join(alike)} are all masks of {images[name].name}; keep one.")
        if found and found[0] in files:
            labels[name] = files.pop(found[0])
        elif found:
            folder = folders.pop(found[0])
            if instances := _instances(folder):
                merged[_called(name, part)] = instances
            else:
                notes.append(
                    f"{folder}: this folder holds no mask, so {images[name].name} counts as not labelled; if there is "
                    "nothing to be found on it, put a mask of its size with 0 throughout there."
                )
    labels |= files
    return [
        Case(
            case=_called(name, part),
            subject=part.patient or subject_in(name),
            images={GREY: images[name]} if name in images else {},
            label=labels.get(name),
            split=part.split,
        )
        for name in sorted({*images, *labels})
    ]


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
    """Give the cases red, green and blue where any picture is in colour."""
    colour: dict[str, bool] = {}
    for case in cases:
        for file in case.images.values():
            try:
                colour[case.case] = _is_coloured(file)
            except InputError as error:
                notes.append(f"An image could not be read: {error}")
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
        replace(case, images=dict.fromkeys(COLOURS, case.images[GREY]), channel_index=index) if case.images else case
        for case in cases
    ]


def _is_coloured(file: Path) -> bool:
    if volumes_in(file) == 1:
        return False
    red, green, blue = (read_volume(file, volume_index=i).array for i in range(len(COLOURS)))
    return not (np.array_equal(red, green) and np.array_equal(red, blue))
