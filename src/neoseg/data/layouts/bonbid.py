"""BONBID-HIE: skull-stripped ADC, Z maps and lesions of newborns with hypoxic ischaemic encephalopathy.

    BONBID2023_{Train,Val,Test}/1ADC_ss/  MGHNICU_010-VISIT_01-ADC_ss.mha
                                2Z_ADC/   Zmap_MGHNICU_010-VISIT_01-ADC_smooth2mm_clipped10.mha
                                3LABEL/   MGHNICU_010-VISIT_01_lesion.mha
    healthy/1ADC_ss/                      ADC maps without injury, for building an atlas (not part of the release)

Source: Bao et al. 2025, Sci Data 12:53, doi 10.1038/s41597-024-03986-7 (Zenodo 10602767). Folder names vary in case and
in part (``2ZMAP``), and the second release has one sub-folder a site, so folders are found by how they begin.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from ...errors import InputError
from ...io import read_volume
from ...wording import counted, listed
from ..cases import Case
from ..units import adc_unit
from .files import images_in
from .imported import ImportedData

__all__ = ["LOOKS_FOR", "bonbid", "matches"]

_Entry = TypeVar("_Entry")

LOOKS_FOR = "a folder 1ADC_ss/, in it or in BONBID2023_Train/, _Val/ or _Test/"
_SPLITS = {"train": "train", "val": "train", "test": "test"}
_HEALTHY = ("healthy", "controls", "control", "normal")
_CASE_ID = re.compile(r"(?P<subject>(?P<site>MGHNICU|BCHNICU)_\d+)-VISIT_\d+")
_TRIMMED = re.compile(r"^Zmap_|[-_](ADC(_.*)?|lesion)$", re.IGNORECASE)
_VISIT = re.compile(r"[-_]VISIT_\d+$", re.IGNORECASE)


def matches(root: Path) -> str | None:
    """Return why this layout fits, or None."""
    found = [folder.name for folder, _, _ in _parts(root)]
    return f"it holds 1ADC_ss/ in {', '.join(found)}" if found else None


def bonbid(root: Path) -> ImportedData:
    """Import BONBID-HIE; the unit of each ADC map is told from its median.

    Raises:
        InputError: no folder of ADC maps, or two files of one case.
    """
    parts = _parts(root)
    if not parts:
        raise InputError(f"{root}: this layout needs {LOOKS_FOR}, but there is no such folder.")
    cases: list[Case] = []
    notes: list[str] = []
    for folder, split, group in parts:
        adc = _by_id(_sub_folder(folder, "1adc"))
        z, label = _by_id(_sub_folder(folder, "2z")), _by_id(_sub_folder(folder, "3label"))
        if split == "test" and not label:
            notes.append(f"{folder.name}/ has no labels and was left out; predict it with `neoseg predict`.")
            continue
        if split == "test" and folder == root:
            notes.append(
                f"By its name {root.resolve().name}/ holds test cases; they are held out, none is for training."
            )
        if re.search("(?<![a-z])val", folder.name.lower()):
            notes.append(f"The {len(adc)} cases of {folder.name}/ join the training cases (cross-validation).")
        for name in sorted(adc | z | label):
            images = {key: files[name] for key, files in (("adc", adc), ("zadc", z)) if name in files}
            cases.append(_case(name, images, label.get(name) if group == "patient" else None, split, group))
    cases, more = _with_z_everywhere_or_nowhere(cases)
    channels = {"adc": "adc"} | ({"zadc": "z"} if any("zadc" in case.images for case in cases) else {})
    return ImportedData(cases=cases, labels={"lesion": 1}, channels=channels, notes=notes + more)


def _parts(root: Path) -> list[tuple[Path, str, str]]:
    """Return (folder that holds 1ADC_ss, split, group)."""
    found: list[tuple[Path, str, str]] = []
    if _sub_folder(root, "1adc"):
        found.append((root, _split(root.resolve().name) or "train", "patient"))
    for folder in sorted(f for f in root.iterdir() if f.is_dir()) if root.is_dir() else []:
        if not _sub_folder(folder, "1adc"):
            continue
        if folder.name.lower() in _HEALTHY:
            found.append((folder, "train", "healthy"))
        elif split := _split(folder.name):
            found.append((folder, split, "patient"))
    return found


def _split(name: str) -> str:
    """Return the split that a word of a folder's name says, or "" ("latest" does not say test)."""
    return next((s for word, s in _SPLITS.items() if re.search(f"(?<![a-z]){word}", name.lower())), "")


def _sub_folder(folder: Path, beginning: str) -> Path | None:
    if not folder.is_dir():
        return None
    return next((f for f in sorted(folder.iterdir()) if f.is_dir() and f.name.lower().startswith(beginning)), None)


def _by_id(folder: Path | None) -> dict[str, Path]:
    """Return case id to file."""
    found: dict[str, Path] = {}
    for stem, file in images_in(folder, deep=True).items() if folder is not None else ():
        match = _CASE_ID.search(stem)
        name = match.group() if match else _TRIMMED.sub("", _TRIMMED.sub("", stem))
        if name in found:
            raise InputError(f"{file}: {found[name].name} belongs to the same case {name}; keep one of the two.")
        found[name] = file
    return found


def _case(name: str, images: dict[str, Path], label: Path | None, split: str, group: str) -> Case:
    match = _CASE_ID.match(name)
    units = {"zadc": "z"} if "zadc" in images else {}
    if "adc" in images and (unit := _unit_of(images["adc"])):
        units["adc"] = unit
    return Case(
        case=name,
        subject=match["subject"] if match else _VISIT.sub("", name),
        site=match["site"] if match else "",
        group=group,
        split=split,
        images=images,
        units=units,
        label=label,
    )


def _unit_of(path: Path) -> str:
    try:
        values = read_volume(path).array
    except InputError:
        return ""  # the checks name the file
    inside = values[np.isfinite(values) & (values != 0)]
    return adc_unit(float(np.median(inside))) if inside.size else ""


def _with_z_everywhere_or_nowhere(cases: list[Case]) -> tuple[list[Case], list[str]]:
    """Leave the given Z maps out unless every patient has one: a network cannot train with a channel now and then."""
    without = [case.case for case in cases if case.group == "patient" and case.images and "zadc" not in case.images]
    if not without or not any("zadc" in case.images for case in cases):
        return cases, []
    kept = [replace(case, images=_without_z(case.images), units=_without_z(case.units)) for case in cases]
    return kept, [
        f"No Z map of {counted(len(without), 'patient')} ({listed(sorted(without))}), so no given Z map is used."
    ]


def _without_z(entries: Mapping[str, _Entry]) -> dict[str, _Entry]:
    return {channel: entry for channel, entry in entries.items() if channel != "zadc"}
