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
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...wording import listed
from ..cases import Case, channels_of
from .channel_numbers import Numbering, Pairing, numbering_of, told_unnumbered
from .dataset_json import Declared, Described, described_beside, not_these_channels
from .files import endings_in_lower_case, images_in
from .imported import ImportedData, ImportOptions, Meaning
from .left_out import convert_to, files_of_other_kinds, told_left_out, unused_folders
from .planar_colours import GREY, with_colours
from .planar_masks import classes_of, unlike_the_masks
from .planar_parts import LOOKS_FOR, SUFFIXES, Part, masks_beside, parts_of
from .subject_names import several_of_one, subject_in

__all__ = ["LOOKS_FOR", "matches", "planar_folders"]

_SMEARED = (".jpg", ".jpeg")
"""Endings of files that hold pictures but no masks."""

_PAIRING = Pairing(SUFFIXES, GREY, any_number=True)


@dataclass(frozen=True)
class _Files:
    """What lies in the folders of a part, by name without ending.

    Attributes:
        part: the folders.
        pictures, masks: files.
        folders: of masks, one file an instance.
    """

    part: Part
    pictures: dict[str, Path]
    masks: dict[str, Path]
    folders: dict[str, Path]


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    parts = [part for part in parts_of(root) if images_in(part.images, planar=True)]
    if not parts or any(images_in(part.images) for part in parts):
        return None
    read = [_files_of(part) for part in parts if not _without_masks(part)]
    numbering = _numbering(root, read, ())
    pictures = sum(len(_pictures(files, numbering, [])) for files in read)
    first = parts[0]
    where, masks = (f"{folder.relative_to(root)}/" if folder else "" for folder in (first.images, first.masks))
    told = f" and {masks}" if masks not in ("", where) else " with masks beside them" if masks else " (no masks)"
    more = " and its like" if first.patient or first.case else ""
    return f"it holds {where if where != './' else 'pictures'}{told}{more}, {pictures} pictures"


def planar_folders(root: Path, options: ImportOptions | None = None) -> ImportedData:
    """Import pictures with masks.

    Raises:
        InputError: no such folder, no picture in it, a file name that occurs twice, files of channels that are not
            counted from 0, or masks whose values may be classes or instances.
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
            f"{listed(sorted(held_out))} {'has' if len(held_out) == 1 else 'have'} no masks and "
            f"{'was' if len(held_out) == 1 else 'were'} left out; predict with `neoseg predict`."
        )
    described = described_beside((root, parts[0].images.parent), notes, may_be_of_others=True)
    read = [_files_of(part) for part in parts if not _without_masks(part)]
    one_mask = all(len(files.masks) <= 1 for files in read)
    numbering = _numbering(root, read, described.channels)
    for files in read:
        cases += (
            _of_one_picture(files, one_mask, merged) if files.part.case else _paired(files, numbering, merged, notes)
        )
    if not any(case.images for case in cases):
        others = files_of_other_kinds(root, planar=True, deep=2)
        told = f" {told_left_out(others, root)}" if others else ""
        raise InputError(f"{root}: no picture was found; this layout needs {LOOKS_FOR}.{told}")
    _refuse_one_name(root, cases)
    cases = with_colours(cases, notes)
    channels = channels_of(cases)
    notes += not_these_channels(described.channels, channels)
    meaning = options.masks or ("instances" if any(part.named_instances for part in parts) else None)
    classes, instances = _classes(root, cases, merged, meaning, described, notes)
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
        labels=classes.labels,
        channels=dict.fromkeys(channels, "mr"),
        notes=notes,
        instances=instances,
        regions=classes.regions,
        merged=merged,
    )


def _classes(
    root: Path,
    cases: Sequence[Case],
    merged: dict[str, list[Path]],
    meaning: Meaning | None,
    described: Described,
    notes: list[str],
) -> tuple[Declared, bool]:
    """Return classes and regions, those of ``dataset.json`` where masks hold them, and whether masks hold instances."""
    if described.labels and meaning != "instances" and not merged:
        notes += unlike_the_masks(described.labels, cases)
        return Declared(described.labels, described.regions), False
    labels, instances = classes_of(root, cases, merged, meaning, notes)
    if len(described.labels) == len(labels) == 1:
        labels = dict(zip(described.labels, labels.values(), strict=True))
    elif described.labels:
        notes.append("The classes of dataset.json were not used, since the masks number instances of one class.")
    return Declared(labels), instances


def _refuse_one_name(root: Path, cases: Sequence[Case]) -> None:
    """Refuse cases that are called alike.

    Raises:
        InputError: naming their files.
    """
    files: dict[str, list[str]] = {}
    for case in cases:
        first = next(iter(case.images.values()), case.label)
        files.setdefault(case.case, []).append(str(first.relative_to(root)) if first is not None else case.case)
    if twice := [" and ".join(named) for named in files.values() if len(named) > 1]:
        raise InputError(f"{root}: {listed(sorted(twice))} have one name each; rename or remove one.")


def _unpaired(cases: Sequence[Case], merged: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return notes about pictures without a mask, and masks without a picture."""
    notes = []
    if alone := [case.case for case in cases if case.label is None and case.case not in merged]:
        looked = (
            " Masks are looked for in masks/, labels/, segmentations/, annotations/ or ground_truth/ beside images/, "
            "and beside the pictures with _mask, _label, _seg or _gt behind the name."
        )
        every = len(alone) == len(cases)
        notes.append(f"Images without a mask ({len(alone)}): {listed(sorted(alone))}.{looked if every else ''}")
    if alone := [case.case for case in cases if not case.images]:
        notes.append(f"Masks without an image ({len(alone)}): {listed(sorted(alone))}.")
    return notes


def _without_masks(part: Part) -> bool:
    """Tell whether the pictures are held out, and none of them can be scored."""
    if part.split != "test" or part.masks in (None, part.images):
        return part.split == "test" and part.masks is None
    files = _files_of(part)
    return not files.masks and not any(_instances(folder) for folder in files.folders.values())


def _left_out(root: Path, parts: Sequence[Part], merged: set[Path]) -> list[str]:
    """Return notes about the files and folders that are not read."""
    used = [folder for part in parts for folder in (part.images, part.masks) if folder is not None]
    others = [file for folder in used for file in files_of_other_kinds(folder, planar=True, deep=1)]
    notes = [told_left_out(others, root)] if others else []
    return notes + unused_folders(root, [*used, *merged], planar=True)


def _files_of(part: Part) -> _Files:
    """Return the files of a part.

    Raises:
        InputError: two files have one name.
    """
    pictures, masks, folders = images_in(part.images, planar=True), dict[str, Path](), dict[str, Path]()
    if part.masks == part.images:
        masks = {name: pictures.pop(name) for name in sorted(masks_beside(pictures))}
    elif part.masks is not None:
        masks = images_in(part.masks, planar=True)
        inside = sorted(folder for folder in part.masks.iterdir() if folder.is_dir())
        folders = {unicodedata.normalize("NFC", folder.name): folder for folder in inside}
    return _Files(part, pictures, masks, folders)


def _numbering(root: Path, read: Sequence[_Files], names: Sequence[str]) -> Numbering:
    """Return what the numbers behind the names of pictures are; a folder of one picture pairs nothing by name."""
    by_name = [files for files in read if files.part.case is None and files.part.masks != files.part.images]
    return numbering_of([(f.pictures, {*f.masks, *f.folders}) for f in by_name], names, root, _PAIRING)


def _pictures(files: _Files, numbering: Numbering, notes: list[str]) -> dict[str, dict[str, Path]]:
    """Return the pictures of a part by name, channel to file."""
    if files.part.case is not None or files.part.masks == files.part.images:
        return {name: {GREY: file} for name, file in files.pictures.items()}
    found, alone = numbering.by_name(files.pictures, {*files.masks, *files.folders})
    notes += told_unnumbered(alone)
    return found


def _refuse_smeared(part: Part, masks: Mapping[str, Path]) -> None:
    """Refuse masks in a format that does not keep numbers.

    Raises:
        InputError: naming some.
    """
    if smeared := [file.name for file in masks.values() if file.suffix.lower() in _SMEARED]:
        raise InputError(
            f"{part.masks}: {len(smeared)} of {len(masks)} masks are JPEG ({listed(sorted(smeared))}), which does not "
            "keep the numbers of its pixels; save them as PNG, with a threshold where classes have become smeared."
        )


def _of_one_picture(files: _Files, one_mask: bool, merged: dict[str, list[Path]]) -> list[Case]:
    """Return the case of a folder of its own; the mask is one file or, where any has several, one file an instance."""
    part = files.part
    assert part.case is not None
    _refuse_smeared(part, files.masks)
    if not one_mask and part.masks is not None and (instances := _instances(part.masks)):
        merged[part.case] = instances
    label = next(iter(files.masks.values()), None) if one_mask else None
    images = {GREY: next(iter(files.pictures.values()))}
    return [Case(case=part.case, subject=subject_in(part.case), images=images, label=label, split=part.split)]


def _paired(content: _Files, numbering: Numbering, merged: dict[str, list[Path]], notes: list[str]) -> list[Case]:
    """Return the cases of a split; one whose mask is a folder of its own is entered in ``merged``."""
    part, files, folders = content.part, dict(content.masks), dict(content.folders)
    images = _pictures(content, numbering, notes)
    _refuse_smeared(part, files)
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
