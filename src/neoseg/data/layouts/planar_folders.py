"""Pictures in one folder, masks in another, paired by file name: PNG, TIFF, BMP, and JPEG for pictures alone.

Accepted: ``images/`` + ``masks/`` (also labels, segmentations and their like, in any case), or ``train/`` and ``test/``
with such folders inside; test folders may also lie beside the others (``test_images``, ``imagesTs``). A mask is one
file, or a folder of the picture's name with one file an instance. Where any picture is in colour, all are taken as red,
green and blue; a grey one then has the same values in each. Else there is one channel, "grey".
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io import COLOURS, read_label, read_volume, volumes_in
from ..cases import Case
from .files import (
    FULL,
    LARGEST_LABEL,
    describe_some,
    endings_in_lower_case,
    find_folder,
    images_in,
    refuse_unclear,
    two_codings,
)
from .imported import ImportedData, ImportOptions, Meaning
from .left_out import convert_to, files_of_other_kinds, told_left_out, unused_folders

__all__ = ["LOOKS_FOR", "MERGED", "matches", "planar_folders"]

LOOKS_FOR = "a folder images/ (also inside train/) with .png, .tif, .tiff, .bmp, .jpg or .jpeg files"
GREY = "grey"

MERGED = FULL
"""What a mask that is merged from one file an instance holds where there is one; white in every viewer."""

_IMAGES = {"train": ("images", "imagesTr", "image", "train_images"), "test": ("imagesTs", "test_images", "images_test")}
_INSTANCES = ("instance_labels", "instance_masks", "instances")
_MASKS = {
    "train": ("masks", "labels", "labelsTr", "mask", "label", "segmentations", "train_masks", "train_labels"),
    "test": ("labelsTs", "test_masks", "test_labels", "masks_test", "labels_test"),
}
_SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "-mask", "-label", "-seg")


_SMEARED = (".jpg", ".jpeg")
"""Endings of files that hold pictures but no masks."""


@dataclass(frozen=True)
class _Part:
    """Folders of pictures and masks of one split; ``named_instances``: the folder's name says what the values are."""

    split: str
    images: Path
    masks: Path | None
    named_instances: bool


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    parts = [part for part in _parts(root) if images_in(part.images, planar=True)]
    if not parts or any(images_in(part.images) for part in parts):
        return None
    read = [part for part in parts if not _without_masks(part)]
    images = sum(len(images_in(part.images, planar=True)) for part in read)
    masks = parts[0].masks
    where = f"{parts[0].images.relative_to(root)}/"
    return (
        f"it holds {where}" + (f" and {masks.relative_to(root)}/" if masks else " (no masks)") + f", {images} pictures"
    )


def planar_folders(root: Path, options: ImportOptions | None = None) -> ImportedData:
    """Import pictures with masks.

    Raises:
        InputError: no such folder, no picture in it, a file name that occurs twice, or masks whose values may be
            classes or instances.
    """
    options = options or ImportOptions()
    parts = list(_parts(root))
    if not parts:
        raise InputError(f"{root}: this layout needs {LOOKS_FOR}, but there is no such folder.")
    cases: list[Case] = []
    merged: dict[str, list[Path]] = {}
    notes: list[str] = []
    for part in parts:
        if _without_masks(part):
            where = part.images.relative_to(root)
            notes.append(f"{where}/ has no masks and was left out; predict it with `neoseg predict`.")
            continue
        cases += _paired(part, merged, notes)
    if not any(case.images for case in cases):
        others = files_of_other_kinds(root, planar=True, deep=2)
        told = f" {told_left_out(others, root)}" if others else ""
        raise InputError(f"{root}: no picture was found; this layout needs {LOOKS_FOR}.{told}")
    twice = [name for name, count in Counter(case.case for case in cases).items() if count > 1]
    if twice:
        raise InputError(f"{root}: {describe_some(twice)} stands in training and test; rename or remove one.")
    cases = _with_channels(cases, notes)
    meaning = options.masks or ("instances" if any(part.named_instances for part in parts) else None)
    labels, instances = _labels(root, cases, merged, meaning, notes)
    if instances and options.masks is None and not merged:
        names = sorted({part.masks.name for part in parts if part.masks is not None})
        notes.append(f"By the name {', '.join(names)}/ the values number instances; each above 0 is the one class.")
    notes += _left_out(root, parts, {files[0].parent for files in merged.values()})
    if (root / "dataset.json").is_file():
        notes.append("dataset.json is not read for pictures; name the classes in [labels].")
    if alone := [case.case for case in cases if case.label is None and case.case not in merged]:
        notes.append(f"Images without a mask ({len(alone)}): {describe_some(alone)}.")
    if alone := [case.case for case in cases if not case.images]:
        notes.append(f"Masks without an image ({len(alone)}): {describe_some(alone)}.")
    if options.subject_pattern is None:
        notes.append(
            "Each image counts as a subject of its own; where several are of one patient, say --subject-pattern, or "
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


def _without_masks(part: _Part) -> bool:
    """Tell whether the pictures are held out, and none of them can be scored."""
    return part.split == "test" and part.masks is None


def _parts(root: Path) -> Iterator[_Part]:
    """Give the folders of each split."""
    for split in ("train", "test"):
        inside = find_folder(root, (split, "training", "stage1_train") if split == "train" else (split, "testing"))
        for base, names in ((root, split), (inside, "train")):
            images = find_folder(base, _IMAGES[names]) if base is not None else None
            if base is None or images is None:
                continue
            masks = find_folder(base, _MASKS[names])
            instances = find_folder(base, _INSTANCES) if names == "train" and masks is None else None
            yield _Part(split, images, masks or instances, instances is not None)
            break


def _left_out(root: Path, parts: Sequence[_Part], merged: set[Path]) -> list[str]:
    """Return notes about the files and folders that are not read."""
    used = [folder for part in parts for folder in (part.images, part.masks) if folder is not None]
    others = [file for folder in used for file in files_of_other_kinds(folder, planar=True, deep=1)]
    notes = [told_left_out(others, root)] if others else []
    return notes + unused_folders(root, [*used, *merged], planar=True)


def _paired(part: _Part, merged: dict[str, list[Path]], notes: list[str]) -> list[Case]:
    """Return the cases of a split; one whose mask is a folder of its own is entered in ``merged``."""
    images = images_in(part.images, planar=True)
    files = images_in(part.masks, planar=True) if part.masks is not None else {}
    if smeared := [file.name for file in files.values() if file.suffix.lower() in _SMEARED]:
        raise InputError(
            f"{part.masks}: {len(smeared)} of {len(files)} masks are JPEG ({describe_some(smeared)}), which does not "
            "keep the numbers of its pixels; save them as PNG, with a threshold where classes have become smeared."
        )
    folders: dict[str, Path] = {}
    for folder in sorted(part.masks.iterdir()) if part.masks is not None else []:
        if folder.is_dir():
            folders[unicodedata.normalize("NFC", folder.name)] = folder
    labels: dict[str, Path] = {}
    called = endings_in_lower_case([*files, *folders], _SUFFIXES, images)
    for name in images:
        # a mask that bears the name of a picture is of that picture
        own = [name + suffix for suffix in _SUFFIXES if not suffix or name + suffix not in images]
        found = [called[one] for one in own if called.get(one) in {*files, *folders}]
        alike = [files[one].name for one in found if one in files] + [f"{one}/" for one in found if one in folders]
        if len(alike) > 1:
            raise InputError(f"{part.masks}: {' and '.join(alike)} are all masks of {images[name].name}; keep one.")
        if found and found[0] in files:
            labels[name] = files.pop(found[0])
        elif found:
            folder = folders.pop(found[0])
            if instances := _instances(folder):
                merged[name] = instances
            else:
                notes.append(
                    f"{folder}: this folder holds no mask, so {images[name].name} counts as not labelled; if there is "
                    "nothing to be found on it, put a mask of its size with 0 throughout there."
                )
    labels |= files
    return [
        Case(
            case=name,
            subject=name,
            images={GREY: images[name]} if name in images else {},
            label=labels.get(name),
            split=part.split,
        )
        for name in sorted({*images, *labels})
    ]


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


def _labels(
    root: Path, cases: Sequence[Case], merged: dict[str, list[Path]], meaning: Meaning | None, notes: list[str]
) -> tuple[dict[str, int | list[int]], bool]:
    """Return the classes with their stored values, and whether the values number instances."""
    plain = [case.label for case in cases if case.label is not None]
    if merged:
        if meaning == "classes":
            raise InputError(
                f"{root}: a picture with a folder of masks has one file an instance, so the masks cannot hold classes; "
                "leave out --masks classes."
            )
        several = sum(len(files) for files in merged.values())
        notes.append(f"{several} files with one instance each are merged to {len(merged)} masks of one class.")
    if meaning == "instances":
        return {"foreground": MERGED}, True
    values = _values(plain, notes)
    every = {value for found in values.values() for value in found}
    if merged:
        every.add(MERGED)
    if every in (set(), {1}, {MERGED}):
        return {"foreground": max(every, default=1)}, False
    if two_codings([*values.values(), *([{MERGED}] if merged else [])]):
        notes.append("Some masks hold 1 and others 255; both are declared as one class, and masks are written 255.")
        return {"foreground": [MERGED, 1]}, False
    if meaning is None:
        refuse_unclear(root, every)
        bordered = sorted(file.name for file, found in values.items() if MERGED in found and len(found) > 1)
        if bordered:
            notes.append(
                f"Masks that hold 255 beside other values ({describe_some(bordered)}) have it as a class of its own; "
                "if 255 marks borders that count for nothing, set them to 0 or a class in copies of the masks."
            )
        notes.append("Each value is taken as a class; say --masks instances if they number the instances of one class.")
    return {f"label_{value}": value for value in sorted(every)}, False


def _values(files: Sequence[Path], notes: list[str]) -> dict[Path, set[int]]:
    """Return the values above 0 of each mask that can be read."""
    result: dict[Path, set[int]] = {}
    for file in files:
        try:
            found = np.unique(read_label(file).array)
        except InputError as error:
            notes.append(f"A mask could not be read: {error}")
            continue
        odd = [float(v) for v in found if not (float(v).is_integer() and 0 <= v <= LARGEST_LABEL)]
        if odd:
            told = f"the values {odd[:3]} are no whole numbers from 1 to {LARGEST_LABEL} and were not declared."
            notes.append(f"{file.name}: {told}")
        result[file] = {int(v) for v in found if v > 0 and float(v) not in odd}
    return result
