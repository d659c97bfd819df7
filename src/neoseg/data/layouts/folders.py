"""Images in one folder, labels in another, paired by file name.

Accepted: ``images/`` + ``labels/`` (also imagesTr, imagesTs, masks, segmentations, in any case); several channels as a
suffix ``_0000, _0001, ...`` of the images or as one sub-folder a channel; a ``dataset.json`` that names channels
(``channel_names``) and classes or regions (``labels``), as nnU-Net has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError
from ...wording import listed
from ..cases import NO_CHANNELS, Case, channels_of
from ..units import channel_kind
from .channel_numbers import Numbering, Pairing, numbering_of, told_unnumbered
from .dataset_json import described_beside, not_these_channels
from .files import (
    endings_in_lower_case,
    find_folder,
    images_in,
    refuse_unclear,
    scan_labels,
)
from .imported import ImportedData, ImportOptions
from .left_out import files_of_other_kinds, told_left_out, unused_folders
from .subject_names import subject_in

__all__ = ["LOOKS_FOR", "folders", "matches"]

LOOKS_FOR = "a folder images/ (or imagesTr/) with .nii.gz, .nii, .mha, .mhd, .nrrd or .nhdr files"
_IMAGES = {"train": ("images", "imagesTr", "image"), "test": ("imagesTs",)}
_LABELS = {
    "train": ("labels", "labelsTr", "label", "masks", "segmentations", "mask", "segmentation", "seg"),
    "test": ("labelsTs",),
}
_LABEL_SUFFIXES = ("", *(mark + word for mark in "_-." for word in ("label", "seg", "mask")),
                   "_labels", "_lesion", "_gt", "_segmentation")  # fmt: skip


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    images, labels = find_folder(root, _IMAGES["train"]), find_folder(root, _LABELS["train"])
    if images is None or not (images_in(images) or _channel_folders(images)):
        return None
    return f"it holds {images.name}/" + (f" and {labels.name}/" if labels else " (no labels)")


def folders(root: Path, options: ImportOptions | None = None) -> ImportedData:
    """Import a folder of images and a folder of labels.

    Raises:
        InputError: no such folder, no image in it, a file name that occurs twice, or labels whose values may be classes
            or instances.
    """
    masks = None if options is None else options.masks
    if find_folder(root, _IMAGES["train"]) is None:
        raise InputError(f"{root}: this layout needs {LOOKS_FOR}, but there is no such folder.")
    cases: list[Case] = []
    notes: list[str] = []
    described = described_beside((root,), notes, may_be_of_others=False)
    read: list[tuple[str, Path, Path | None]] = []
    used: list[Path] = []
    others: list[Path] = []
    for split in ("train", "test"):
        images = find_folder(root, _IMAGES[split])
        labels = find_folder(root, _labels_beside(images, split))
        used += [folder for folder in (images, labels) if folder is not None]
        others += _of_other_kinds(images, labels)
        if images is not None and split == "test" and labels is None:
            notes.append(f"{images.name}/ has no labels and was left out; predict it with `neoseg predict`.")
        elif images is not None:
            read.append((split, images, labels))
            used += _channel_folders(images).values()
    numbering = _numbering(root, [(images, labels) for _, images, labels in read], described.channels)
    for split, images, labels in read:
        cases += _paired(images, labels, split, numbering, notes)
    notes += [told_left_out(others, root, "NIfTI")] if others else []
    if not any(case.images for case in cases):
        raise InputError(f"{root}: no image was found; this layout needs {LOOKS_FOR}. {' '.join(notes)}".rstrip())
    classes, regions = described.labels, described.regions
    if masks == "instances":
        classes, regions = {"foreground": 1}, {}
    if not classes:
        classes, more = scan_labels(case.label for case in cases if case.label is not None)
        notes += more
        if masks is None:
            refuse_unclear(root, [value for value in classes.values() if isinstance(value, int)])
    notes += unused_folders(root, used, planar=False)
    notes += _unpaired_notes(cases)
    channels = {channel: channel_kind(channel) for channel in channels_of(cases)}
    notes += not_these_channels(described.channels, [*channels])
    return ImportedData(
        cases=cases,
        labels=classes,
        channels=channels,
        notes=notes,
        instances=masks == "instances",
        regions=regions,
    )


def _labels_beside(images: Path | None, split: str) -> list[str]:
    """Return the names that a folder of labels may have, those of the images' convention first."""
    ending = "tr" if images is not None and images.name.lower().endswith("tr") else ""
    return sorted(_LABELS[split], key=lambda name: name.lower().endswith("tr") != bool(ending))


def _of_other_kinds(images: Path | None, labels: Path | None) -> list[Path]:
    """Return the images that are not read; pictures too where they stand for all labels, else they are previews."""
    found = files_of_other_kinds(images, planar=False, deep=1) if images is not None else []
    if labels is None:
        return found
    pictures = {} if images_in(labels) else images_in(labels, planar=True)
    return [*found, *pictures.values(), *files_of_other_kinds(labels, planar=not images_in(labels), deep=1)]


def _numbering(root: Path, folders: Sequence[tuple[Path, Path | None]], names: Sequence[str]) -> Numbering:
    """Return what the numbers behind the names of images are; folders of one channel each have none."""
    pairing = Pairing(_LABEL_SUFFIXES, names[0] if len(names) == 1 else "image")
    read = [(images_in(images), images_in(labels) if labels is not None else ()) for images, labels in folders]
    return numbering_of(read, names, root, pairing)


def _paired(images: Path, labels: Path | None, split: str, numbering: Numbering, notes: list[str]) -> list[Case]:
    label_files = images_in(labels) if labels is not None else {}
    called = endings_in_lower_case(label_files, _LABEL_SUFFIXES, images_in(images))
    if channel_folders := _channel_folders(images):
        by_case: dict[str, dict[str, Path]] = {}
        for channel, folder in channel_folders.items():
            for name, file in images_in(folder).items():
                by_case.setdefault(name, {})[channel] = file
    else:
        by_case, alone = numbering.by_name(images_in(images), called)
        notes += told_unnumbered(alone)
    used: dict[str, Path] = {}
    for name in by_case:
        # a label that bears the name of an image is of that image
        own = (name + suffix for suffix in _LABEL_SUFFIXES if not suffix or name + suffix not in by_case)
        stem = next((called[one] for one in own if called.get(one) in label_files), None)
        if stem is not None:
            used[name] = label_files.pop(stem)
    used |= label_files
    return [
        Case(
            case=name,
            subject=subject_in(name),
            images=by_case.get(name, {}),
            label=used.get(name),
            split=split,
        )
        for name in sorted(by_case | used)
    ]


def _channel_folders(images: Path) -> dict[str, Path]:
    """Return the folders of one channel each.

    Raises:
        InputError: there are images beside them, so that either would be lost, or a name that no channel may have.
    """
    found = {f.name: f for f in sorted(images.iterdir()) if f.is_dir() and images_in(f)}
    if unfit := [name for name in found if name in NO_CHANNELS]:
        raise InputError(f"{images / unfit[0]}: no channel can be called {unfit[0]!r}; rename the folder, or move it.")
    if found and (beside := images_in(images)):
        raise InputError(
            f"{images}: images ({listed(sorted(file.name for file in beside.values()))}) lie beside folders of images "
            f"({listed(sorted(found))}); keep either the images, or one folder a channel."
        )
    return found


def _unpaired_notes(cases: list[Case]) -> list[str]:
    notes = []
    if alone := [case.case for case in cases if case.label is None]:
        notes.append(f"Images without a label ({len(alone)}): {listed(sorted(alone))}.")
    if alone := [case.case for case in cases if not case.images]:
        notes.append(f"Labels without an image ({len(alone)}): {listed(sorted(alone))}.")
    return notes
