"""The Medical Segmentation Decathlon: a dataset.json that lists images, labels, modalities and classes.

Source of the format: Antonelli et al. 2022, doi 10.1038/s41467-022-30695-9, and the dataset.json of its ten tasks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...io import is_planar, strip_ending, volumes_in
from ...wording import counted, listed
from ..cases import Case
from ..units import channel_kind
from .dataset_json import channel_names, declared, read_dataset_json
from .files import image_files
from .imported import ImportedData

__all__ = ["LOOKS_FOR", "decathlon", "matches"]

LOOKS_FOR = "a file dataset.json with the keys training, modality and labels"


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    try:
        content = read_dataset_json(root)
    except InputError:
        return None
    if content is None or not isinstance(content.get("training"), list) or "modality" not in content:
        return None
    if _has_suffixes(root, content["training"]) or _lists_pictures(content["training"]):
        return None
    return "its dataset.json lists training images and modalities"


def decathlon(root: Path) -> ImportedData:
    """Import a task of the decathlon; a 4-D image becomes channels when as many modalities are declared.

    Raises:
        InputError: dataset.json is missing or not as above, or an image holds another number of volumes than there
            are modalities.
    """
    path = root / "dataset.json"
    content = read_dataset_json(root)
    if content is None:
        raise InputError(f"{root}: this layout needs {LOOKS_FOR}, but there is no such file.")
    modalities = _modalities(path, content.get("modality"))
    notes: list[str] = []
    labels = _labels(path, content, notes)
    training = content.get("training")
    if not isinstance(training, list) or not training:
        raise InputError(f'{path}: the key "training" must list at least one image, but it holds {training!r}.')
    cases = [_case(root, entry, modalities, "train", notes) for entry in training]
    test = content.get("test") or []
    if not isinstance(test, list):
        raise InputError(f'{path}: the key "test" must list images, or be left out, but it holds {test!r}.')
    labelled = [entry for entry in test if isinstance(entry, dict) and entry.get("label")]
    cases += [_case(root, entry, modalities, "test", notes) for entry in labelled]
    if len(test) > len(labelled):
        notes.append(
            f"Test images without a label ({len(test) - len(labelled)}) were left out; "
            "predict them with `neoseg predict`."
        )
    notes += _not_listed(root, [*training, *test])
    return ImportedData(
        cases=sorted(cases, key=lambda case: case.case),
        labels=labels,
        channels={name: channel_kind(name) for name in modalities},
        notes=notes,
    )


def _not_listed(root: Path, entries: Iterable[Any]) -> list[str]:
    """Return the note about images and labels that lie beside those of dataset.json and are not in it."""
    names = [entry.values() if isinstance(entry, dict) else [entry] for entry in entries]
    in_json = {Path(os.path.abspath(root / name)) for group in names for name in group if isinstance(name, str)}
    folders = [folder for folder in sorted({file.parent for file in in_json}) if folder.is_dir()]
    beside = [file for folder in folders for _, file in image_files(folder)]
    shown = [str(file.relative_to(os.path.abspath(root))) for file in beside if file not in in_json]
    return (
        [f"{counted(len(shown), 'file')} that dataset.json does not list left out: {listed(sorted(shown))}."]
        if shown
        else []
    )


def _lists_pictures(training: list[Any]) -> bool:
    image = training[0].get("image") if training and isinstance(training[0], dict) else None
    return isinstance(image, str) and is_planar(Path(image))


def _has_suffixes(root: Path, training: list[Any]) -> bool:
    """Tell whether the images carry nnU-Net's ``_0000``, which its older dataset.json does not list."""
    image = training[0].get("image") if training and isinstance(training[0], dict) else None
    if not isinstance(image, str) or (root / image).exists():
        return False
    path = root / image
    stem = strip_ending(path.name) or path.name
    return (path.parent / f"{stem}_0000{path.name.removeprefix(stem)}").exists()


def _modalities(path: Path, given: Any) -> list[str]:
    names = channel_names(given)
    if not names:
        raise InputError(f'{path}: the key "modality" must name at least one channel, such as {{"0": "MRI"}}.')
    return names


def _labels(path: Path, content: dict[str, Any], notes: list[str]) -> dict[str, int | list[int]]:
    wanted = f'{path}: the key "labels" must give each class one whole number, such as {{"0": "background", "1": "x"}}'
    found = declared(content)
    if not found.labels or found.regions:
        empty = isinstance(content.get("labels"), dict) and not found.notes
        but = (
            "only the background is declared" if empty and not found.regions else f"it holds {content.get('labels')!r}"
        )
        raise InputError(f"{wanted}, but {but}.")
    notes += found.notes
    return found.labels


def _case(root: Path, entry: Any, modalities: list[str], split: str, notes: list[str]) -> Case:
    label = entry.get("label") if isinstance(entry, dict) else None
    sound = isinstance(entry, dict) and isinstance(entry.get("image"), str) and isinstance(label, str | None)
    if not sound:
        raise InputError(
            f'{root / "dataset.json"}: an entry must be {{"image": file, "label": file}}, but {entry!r} was given.'
        )
    image = Path(os.path.abspath(root / entry["image"]))
    name = strip_ending(image.name) or image.name
    index: dict[str, int] = {}
    if _volumes(image, len(modalities), notes) > 1:
        index = {channel: number for number, channel in enumerate(modalities)}
    return Case(
        case=name,
        subject=name,
        split=split,
        images=dict.fromkeys(modalities, image),
        channel_index=index,
        label=Path(os.path.abspath(root / label)) if label else None,
    )


def _volumes(image: Path, modalities: int, notes: list[str]) -> int:
    """Return how many volumes the image holds; an unreadable one is left to the checks and taken as declared."""
    try:
        count = volumes_in(image)
    except InputError as error:
        notes.append(f"An image could not be read: {error}")
        return modalities
    if count != modalities:
        raise InputError(
            f"{image}: the file holds {count} volumes, but dataset.json declares {modalities} modalities; correct "
            '"modality", or split the file.'
        )
    return count
