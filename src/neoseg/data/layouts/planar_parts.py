"""Where pictures and their masks lie: in two folders, by patient, in a folder a picture, or beside each other."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from .files import find_folder, image_files
from .left_out import MERGED_MASKS

__all__ = ["LOOKS_FOR", "SUFFIXES", "Part", "masks_beside", "parts_of"]

LOOKS_FOR = (
    "a folder images/ (also inside train/, or with a folder for each patient) with .png, .tif, .tiff, .bmp, .jpg or "
    ".jpeg files, masks beside such files, or a folder with images/ and masks/ for each picture"
)

SUFFIXES = ("", "_mask", "_masks", "_label", "_labels", "_seg", "_segmentation", "_gt", "-mask", "-label", "-seg")
"""What the name of a mask has after that of its picture."""

_IMAGES = {"train": ("images", "imagesTr", "image", "train_images"), "test": ("imagesTs", "test_images", "images_test")}
_INSTANCES = ("instance_labels", "instance_masks", "instances")
_MASKS = {
    "train": (
        *("masks", "labels", "labelsTr", "mask", "label", "segmentations", "train_masks", "train_labels"),
        *("segmentation", "seg", "annotations", "annotation", "ground_truth", "groundtruth", "gt"),
    ),
    "test": ("labelsTs", "test_masks", "test_labels", "masks_test", "labels_test"),
}
_NOT_READ = ("val", "valid", "validation")
"""Folders of pictures that other programs choose their epoch with; here a part of the training cases does that."""

_SPLITS = {"train": ("train", "training", "stage1_train"), "test": ("test", "testing", "stage1_test")}


@dataclass(frozen=True)
class Part:
    """A folder of pictures with a folder of their masks.

    Attributes:
        split: "train" or "test".
        images, masks: the folders; one and the same where masks lie beside their pictures.
        named_instances: the name of the masks' folder says that values number instances.
        patient: whose pictures these are, where each patient has a folder.
        case: name of the one picture, where each picture has a folder with its masks.
    """

    split: str
    images: Path
    masks: Path | None
    named_instances: bool = False
    patient: str | None = None
    case: str | None = None


def parts_of(root: Path) -> list[Part]:
    """Return the folders of each split; where there is no folder of images, those of the other arrangements."""
    bases = {split: [(root, split)] for split in _SPLITS}
    for split, names in _SPLITS.items():
        inside = find_folder(root, names)
        bases[split] += [(inside, "train")] if inside is not None else []
    found = [part for split in _SPLITS for part in _first(_of_images(base, split, kind) for base, kind in bases[split])]
    if any(part.split == "train" for part in found) or _holds_volume(root, deep=2):
        return found
    others = {
        split: _first(_folders_of_one(base, split) or _beside(base, split) for base, kind in given if kind == "train")
        for split, given in bases.items()
    }
    return [*others["train"], *found, *(others["test"] if not found else [])]


def masks_beside(stems: Collection[str]) -> set[str]:
    """Return the names that are those of another file with one of :data:`SUFFIXES` behind it."""
    return {
        stem
        for stem in stems
        for suffix in SUFFIXES
        if suffix and stem.lower().endswith(suffix) and stem[: -len(suffix)] in stems
    }


def _first(choices: Iterator[list[Part]]) -> list[Part]:
    """Return the first that is not empty."""
    return next((parts for parts in choices if parts), [])


def _of_images(base: Path, split: str, kind: str) -> list[Part]:
    """Return the part of a folder of images, or one for each split or patient that has a folder in it."""
    images = find_folder(base, _IMAGES[kind])
    if images is None:
        return []
    masks = find_folder(base, _MASKS[kind])
    instances = find_folder(base, _INSTANCES) if kind == "train" and masks is None else None
    named, beside = instances is not None, kind == "train" and _has_masks_beside(images)
    own = masks or instances or (images if beside else None)
    folders = [] if _holds_picture(images) or _holds_volume(base, deep=2) else _folders(images, splits=True)
    if not any(_holds_picture(folder) for folder in folders):
        return [Part(split, images, own, named)]
    by_split = {name: inside for inside, names in _SPLITS.items() for name in names}
    if any(folder.name.lower() in (*by_split, *_NOT_READ) for folder in folders):
        given = [(by_split[folder.name.lower()], folder) for folder in folders if folder.name.lower() in by_split]
        return [Part(own_split, folder, _of_patient(own, folder), named) for own_split, folder in given]
    patients = [folder for folder in folders if _holds_picture(folder)]
    several = len(patients) > 1
    return [
        Part(split, folder, _of_patient(own, folder), named, patient=folder.name if several else None)
        for folder in patients
    ]


def _of_patient(masks: Path | None, images: Path) -> Path | None:
    """Return the folder of the masks that belongs to one of several folders of images."""
    if masks is None:
        return images if _has_masks_beside(images) else None
    return find_folder(masks, [images.name])


def _folders_of_one(base: Path, split: str) -> list[Part]:
    """Return the folders of one picture, or one patient, each: ``<name>/images/`` and ``<name>/masks/``.

    One such folder alone is the data set itself, and the folder around it was given.
    """
    found = []
    for folder in _folders(base):
        images = find_folder(folder, _IMAGES["train"])
        if images is not None and _holds_picture(images):
            found.append((folder.name, images, find_folder(folder, _MASKS["train"])))
    one_picture = all(len(list(image_files(images, planar=True))) == 1 for _, images, _ in found)
    if len(found) < 2:
        return []
    return [
        Part(split, images, masks, case=name if one_picture else None, patient=None if one_picture else name)
        for name, images, masks in found
    ]


def _beside(base: Path, split: str) -> list[Part]:
    """Return the folder, or the folders of several patients, in which masks lie beside their pictures."""
    if _has_masks_beside(base):
        return [Part(split, base, base)]
    patients = [folder for folder in _folders(base) if _has_masks_beside(folder)]
    return [Part(split, folder, folder, patient=folder.name) for folder in patients] if len(patients) > 1 else []


def _folders(base: Path, *, splits: bool = False) -> list[Path]:
    """Return the folders that may be read in a folder, but for hidden ones, what an import writes, and the splits'."""
    others = {MERGED_MASKS} if splits else {MERGED_MASKS, *_SPLITS["train"], *_SPLITS["test"], *_NOT_READ}
    return sorted(
        folder
        for folder in base.iterdir()
        if folder.is_dir()
        and folder.name.lower() not in others
        and not folder.name.startswith(".")
        and os.access(folder, os.R_OK | os.X_OK)
    )


def _holds_picture(folder: Path) -> bool:
    return any(True for _ in image_files(folder, planar=True))


def _holds_volume(folder: Path, *, deep: int) -> bool:
    if any(True for _ in image_files(folder)):
        return True
    return deep > 0 and any(_holds_volume(one, deep=deep - 1) for one in _folders(folder, splits=True))


def _has_masks_beside(folder: Path) -> bool:
    return bool(masks_beside({stem for stem, _ in image_files(folder, planar=True)}))
