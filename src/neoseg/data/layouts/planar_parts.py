"""Where pictures and their masks lie: in two folders, by patient, in a folder a picture, or beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from .files import find_folder, image_files, images_in
from .left_out import MERGED_MASKS

__all__ = ["LOOKS_FOR", "SUFFIXES", "Part", "masks_beside", "parts_of"]

LOOKS_FOR = "a folder images/ (also inside train/) with .png, .tif, .tiff, .bmp, .jpg or .jpeg files"

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


def parts_of(root: Path) -> Iterator[Part]:
    """Give the folders of each split."""
    for split, names in _SPLITS.items():
        inside = find_folder(root, names)
        for base, kind in ((root, split), (inside, "train")):
            found = list(_in_folder(base, split, kind)) if base is not None else []
            yield from found
            if found:
                break


def masks_beside(files: Mapping[str, Path]) -> set[str]:
    """Return the names that are those of another file with one of :data:`SUFFIXES` behind it."""
    return {
        stem
        for stem in files
        for suffix in SUFFIXES
        if suffix and stem.lower().endswith(suffix) and stem[: -len(suffix)] in files
    }


def _in_folder(base: Path, split: str, kind: str) -> Iterator[Part]:
    """Give the parts of a folder; of several arrangements the first that it has."""
    images = find_folder(base, _IMAGES[kind])
    if images is not None:
        masks = find_folder(base, _MASKS[kind])
        instances = find_folder(base, _INSTANCES) if kind == "train" and masks is None else None
        beside = images if kind == "train" and masks_beside(images_in(images, planar=True)) else None
        found = masks or instances or beside
        patients = [] if _holds_picture(images) else [folder for folder in _folders(images) if _holds_picture(folder)]
        for folder in patients:
            own = masks or instances or images
            yield Part(split, folder, _own(own, folder), instances is not None, patient=folder.name)
        if not patients:
            yield Part(split, images, found, instances is not None)
    elif kind == "train":
        yield from list(_folders_of_one(base, split)) or _beside(base, split)


def _own(masks: Path, images: Path) -> Path | None:
    """Return the folder of the masks of one patient."""
    if masks == images.parent:
        return images if masks_beside(images_in(images, planar=True)) else None
    return masks / images.name if (masks / images.name).is_dir() else None


def _folders_of_one(base: Path, split: str) -> Iterator[Part]:
    """Give the folders of one picture each: ``<name>/images/`` and ``<name>/masks/``."""
    for folder in _folders(base):
        images = find_folder(folder, _IMAGES["train"])
        if images is not None and len(list(image_files(images, planar=True))) == 1:
            yield Part(split, images, find_folder(folder, _MASKS["train"]), case=folder.name)


def _beside(base: Path, split: str) -> Iterator[Part]:
    """Give the folders, this one or one for each patient, in which masks lie beside their pictures."""
    for folder in (base, *_folders(base)):
        if _holds_picture(folder) and masks_beside(images_in(folder, planar=True)):
            yield Part(split, folder, folder, patient=None if folder == base else folder.name)


def _folders(base: Path) -> list[Path]:
    """Return the folders in a folder, but for those of splits, hidden ones and what an import writes."""
    others = {MERGED_MASKS, *_SPLITS["train"], *_SPLITS["test"]}
    return sorted(
        f for f in base.iterdir() if f.is_dir() and f.name.lower() not in others and not f.name.startswith(".")
    )


def _holds_picture(folder: Path) -> bool:
    return any(True for _ in image_files(folder, planar=True))
