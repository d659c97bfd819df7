"""Telling the layout of a folder from what it holds."""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from .left_out import files_of_other_kinds, told_left_out
from .registry import LAYOUTS, require_folder

__all__ = ["guess_layout"]


def guess_layout(root: Path) -> tuple[str, str]:
    """Return the name of the first layout that fits, and why it fits.

    Raises:
        InputError: the folder does not exist, or no layout fits; the message says what each one looks for.
    """
    require_folder(root)
    for layout in LAYOUTS:
        if reason := layout.matches(root):
            return layout.name, reason
    wanted = "; ".join(f"{layout.name}: {layout.looks_for}" for layout in LAYOUTS)
    others = files_of_other_kinds(root, planar=True, deep=2)
    told = f" {told_left_out(others, root)}" if others else ""
    raise InputError(
        f"{root}: no known layout was recognised ({wanted}); name it with --layout or write a cases.csv.{told}"
    )
