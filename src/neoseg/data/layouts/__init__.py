"""Public folder layouts and how each becomes a list of cases; nothing is copied."""

from __future__ import annotations

from .guess import guess_layout
from .imported import ImportedData, ImportOptions
from .registry import LAYOUTS, Layout, import_data

__all__ = ["LAYOUTS", "ImportOptions", "ImportedData", "Layout", "guess_layout", "import_data"]
