"""The list of layouts, most particular first, and the function that imports with one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, InputError, nearest
from . import bonbid, decathlon, folders
from .imported import ImportedData

__all__ = ["LAYOUTS", "Layout", "import_data", "layout_named"]


@dataclass(frozen=True)
class Layout:
    """One public layout.

    Attributes:
        name: as in ``neoseg import --layout NAME``.
        read: folder to imported data.
        matches: folder to the reason why the layout fits, or None; cheap, for guessing.
        looks_for: what a folder of this layout holds, for the error when none fits.
    """

    name: str
    read: Callable[[Path], ImportedData]
    matches: Callable[[Path], str | None]
    looks_for: str


LAYOUTS: tuple[Layout, ...] = (
    Layout("bonbid", bonbid.bonbid, bonbid.matches, bonbid.LOOKS_FOR),
    Layout("decathlon", decathlon.decathlon, decathlon.matches, decathlon.LOOKS_FOR),
    Layout("folders", folders.folders, folders.matches, folders.LOOKS_FOR),
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


def import_data(root: Path, layout: str) -> ImportedData:
    """Import a folder with the layout of that name.

    Raises:
        ConfigError: no layout has that name.
        InputError: the folder does not exist or is not of that layout.
    """
    chosen = layout_named(layout)
    if not root.is_dir():
        raise InputError(f"{root}: this folder does not exist; correct the path.")
    return chosen.read(root)
