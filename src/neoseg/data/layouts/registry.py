"""The list of layouts, most particular first, and the function that imports with one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import ConfigError, InputError, nearest
from ...wording import listed
from ..cases import sound_name
from . import bonbid, decathlon, folders, planar_folders
from .imported import ImportedData, ImportOptions
from .subject_names import several_of_one, subjects_named

__all__ = ["LAYOUTS", "Layout", "import_data", "layout_named", "require_folder", "require_pairs"]


@dataclass(frozen=True)
class Layout:
    """One public layout.

    Attributes:
        name: as in ``neoseg import --layout NAME``.
        read: folder to imported data; with ``asks`` the options too.
        matches: folder to the reason why the layout fits, or None; cheap, for guessing.
        looks_for: what a folder of this layout holds, for the error when none fits.
        asks: whether it takes the meaning of the masks as an option.
    """

    name: str
    read: Callable[..., ImportedData]
    matches: Callable[[Path], str | None]
    looks_for: str
    asks: bool = False


LAYOUTS: tuple[Layout, ...] = (
    Layout("bonbid", bonbid.bonbid, bonbid.matches, bonbid.LOOKS_FOR),
    Layout("decathlon", decathlon.decathlon, decathlon.matches, decathlon.LOOKS_FOR),
    Layout(
        "planar_folders", planar_folders.planar_folders, planar_folders.matches, planar_folders.LOOKS_FOR, asks=True
    ),
    Layout("folders", folders.folders, folders.matches, folders.LOOKS_FOR, asks=True),
)


def layout_named(name: str) -> Layout:
    """Return a layout.

    Raises:
        ConfigError: there is none of that name.
    """
    for layout in LAYOUTS:
        if layout.name == name:
            return layout
    raise ConfigError(f"The layout {name!r} is not known{nearest(name, [layout.name for layout in LAYOUTS])}.")


def require_folder(root: Path) -> None:
    """Refuse what is no folder.

    Raises:
        InputError: it is a file, or is not there.
    """
    if root.is_file():
        raise InputError(f"{root}: this is a file, and a folder of data is wanted; give the folder of the data set.")
    if not root.is_dir():
        raise InputError(f"{root}: this folder does not exist; correct the path.")


def import_data(root: Path, layout: str, options: ImportOptions | None = None) -> ImportedData:
    """Import a folder with the layout of that name.

    Raises:
        ConfigError: no layout has that name, or an option does not suit it.
        InputError: the folder does not exist or is not of that layout.
    """
    chosen, options = layout_named(layout), options or ImportOptions()
    require_folder(root)
    if options.masks is not None and not chosen.asks:
        takes = ", ".join(other.name for other in LAYOUTS if other.asks)
        raise ConfigError(f"--masks {options.masks}: the layout {layout!r} does not take this option ({takes} does).")
    data = chosen.read(root, options) if chosen.asks else chosen.read(root)
    if options.subject_pattern is not None:
        subjects = subjects_named([case.case for case in data.cases], options.subject_pattern)
        cases = [replace(case, subject=subject) for case, subject in zip(data.cases, subjects, strict=True)]
        data = replace(data, cases=cases)
    elif all(case.subject == case.case for case in data.cases) and not any(
        "--subject-pattern" in note for note in data.notes
    ):
        told = several_of_one([case.case for case in data.cases])
        data = replace(data, notes=[*data.notes, *([told] if told else [])])
    return _with_sound_names(data)


def require_pairs(root: Path, data: ImportedData) -> None:
    """Refuse data of which every label lacks its image.

    Raises:
        InputError: naming some of both.
    """
    images = [case.case for case in data.cases if case.images]
    labels = [case.case for case in data.cases if case.label is not None]
    alone = [case.case for case in data.cases if case.label is not None and not case.images]
    if data.merged or not images or not labels or len(alone) < len(labels):
        return
    told = (
        f"{root}: no label bears the name of an image: images {listed(sorted(images))}, labels {listed(sorted(alone))}"
    )
    if set(alone) & set(data.channels):
        raise InputError(
            f"{told}. The folders among the images were taken for channels, since a folder holds one channel of all "
            "cases; name the files p1_0000, p1_0001 (case, channel) in one folder, or write a cases.csv."
        )
    raise InputError(f"{told}; rename the labels (p1 or p1_seg for the image p1), or write a cases.csv.")


def _with_sound_names(data: ImportedData) -> ImportedData:
    """Call cases so that the name may be part of a file's, with a note; the files keep theirs."""
    called: dict[str, str] = {}
    taken = {case.case for case in data.cases if sound_name(case.case) == case.case}
    for case in data.cases:
        sound = sound_name(case.case)
        while sound != case.case and sound in taken:
            sound += "_"
        taken.add(sound)
        called[case.case] = sound
    changed = [f"{name!r} is called {sound!r}" for name, sound in called.items() if name != sound]
    if not changed:
        return data
    note = (
        f"Names of cases hold what no name may ({len(changed)}): {listed(sorted(changed))}; the files keep their names."
    )
    cases = [
        replace(c, case=called[c.case], subject=called[c.case] if c.subject == c.case else c.subject)
        for c in data.cases
    ]
    merged = {called[name]: files for name, files in data.merged.items()}
    return replace(data, cases=cases, merged=merged, notes=[*data.notes, note])
