"""Volumes from files and back, one format a file: NIfTI, MetaImage (MHA, MHD), NRRD, and pictures."""

from __future__ import annotations

from .detached import detached_files
from .formats import (
    FORMATS,
    FileFormat,
    endings,
    is_planar,
    mask_ending,
    read_grid,
    read_label,
    read_volume,
    stem_of,
    strip_ending,
    volumes_in,
    write_volume,
)
from .planar import COLOURS

__all__ = [
    "COLOURS",
    "FORMATS",
    "FileFormat",
    "detached_files",
    "endings",
    "is_planar",
    "mask_ending",
    "read_grid",
    "read_label",
    "read_volume",
    "stem_of",
    "strip_ending",
    "volumes_in",
    "write_volume",
]
