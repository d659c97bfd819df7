"""Volumes from files and back, one format a file: NIfTI, MetaImage (MHA, MHD) and NRRD."""

from __future__ import annotations

from .detached import detached_files
from .formats import FORMATS, FileFormat, endings, read_grid, read_volume, strip_ending, volumes_in, write_volume

__all__ = [
    "FORMATS",
    "FileFormat",
    "detached_files",
    "endings",
    "read_grid",
    "read_volume",
    "strip_ending",
    "volumes_in",
    "write_volume",
]
