"""A look at the header of a NRRD file before ITK reads it, so that nothing is allocated for a damaged one.

Source of the format: https://teem.sourceforge.net/nrrd/format.html.
"""

from __future__ import annotations

import math
import re
from itertools import islice, zip_longest
from pathlib import Path

from ..errors import InputError
from .detached import detached_files
from .promise import MOST_VOXELS, require_bytes, require_room, require_unpackable

__all__ = ["check_units", "check_voxels"]

_BYTES = {
    "signed char": 1, "int8": 1, "int8_t": 1, "uchar": 1, "unsigned char": 1, "uint8": 1, "uint8_t": 1,
    "short": 2, "short int": 2, "signed short": 2, "signed short int": 2, "int16": 2, "int16_t": 2,
    "ushort": 2, "unsigned short": 2, "unsigned short int": 2, "uint16": 2, "uint16_t": 2,
    "int": 4, "signed int": 4, "int32": 4, "int32_t": 4, "uint": 4, "unsigned int": 4, "uint32": 4, "uint32_t": 4,
    "longlong": 8, "long long": 8, "long long int": 8, "signed long long": 8, "signed long long int": 8,
    "int64": 8, "int64_t": 8, "ulonglong": 8, "unsigned long long": 8, "unsigned long long int": 8, "uint64": 8,
    "uint64_t": 8, "float": 4, "double": 8,
}  # fmt: skip
_OTHER_LENGTHS = re.compile(
    r'"\s*(um|\u00b5m|\u03bcm|nm|cm|dm|m|km|in|ft|microns?|inch(es)?|(micro|nano|centi)?met(er|re)s?)\s*"',
    re.IGNORECASE,
)
_DEFLATED = ("gz", "gzip")
_TEXT = ("txt", "text", "ascii")
_MOST_LINES = 10_000


def check_units(path: Path) -> None:
    """Look whether the axes have a unit of length, or a length, that ITK leaves out.

    Raises:
        InputError: one has another unit than mm, or an axis of the image has no spacing.
    """
    fields, _ = _fields(path)
    given, kinds = (fields.get(key, "").lower().split() for key in ("spacings", "kinds"))
    # an axis of channels has none; without kinds every axis is one of the image
    if any(side == "nan" and kind in ("domain", "space", "") for side, kind in zip_longest(given, kinds, fillvalue="")):
        raise InputError(
            f"{path}: the header has spacings: {fields['spacings'][:60]}, but a length in mm is wanted for each axis "
            "of the image; export it again."
        )
    for key in ("space units", "units"):
        if found := _OTHER_LENGTHS.search(fields.get(key, "")):
            raise InputError(f"{path}: the header has {key}: {found.group()}, but mm are read; export the image again.")


def check_voxels(path: Path) -> None:
    """Look whether as many bytes of voxels are there as the header promises.

    Raises:
        InputError: the file is no NRRD file, lacks a field, has axes without length or more voxels than any image, or
            fewer bytes than promised; or a detached voxel file is not there.
        MachineError: the image is larger than the memory that is left.
    """
    check_units(path)
    fields, end = _fields(path)
    lacking = [key for key in ("dimension", "type", "encoding", "sizes") if key not in fields]
    if lacking:
        raise InputError(f"{path}: the header is damaged, it lacks {', '.join(lacking)}; export the image again.")
    try:
        sizes = [int(n) for n in fields["sizes"].split()]
        fits = len(sizes) == int(fields["dimension"]) and 1 <= len(sizes) <= 6 and min(sizes) >= 1
    except ValueError:
        fits, sizes = False, []
    if not fits or math.prod(sizes) > MOST_VOXELS:
        raise InputError(
            f"{path}: the header gives the sizes {fields['sizes'][:80]!r} (dimension {fields['dimension'][:20]!r}), "
            "which are not those of an image; export it again."
        )
    kind, encoding = fields["type"].lower(), fields["encoding"].lower()
    if kind not in _BYTES:
        raise InputError(
            f"{path}: its voxels are of type {fields['type'][:40]!r}, but one real number a voxel is wanted; store "
            "magnitude or grey values instead."
        )
    promised = math.prod(sizes) * _BYTES[kind]
    detached = list(islice(detached_files(path), _MOST_LINES))
    missing = next((file for file in detached if not file.is_file()), None)
    if missing is not None:
        raise InputError(f"{path}: the header names the voxel file {missing.name}, but that is not there; copy it too.")
    there = sum(file.stat().st_size for file in detached) if detached else path.stat().st_size - end
    least = 2 * math.prod(sizes) - 1 if encoding in _TEXT else 2 * promised if encoding == "hex" else promised
    require_bytes(path, promised=least, there=there, deflated=encoding in _DEFLATED)
    require_room(path, promised)
    if encoding in _DEFLATED and len(detached) <= 1 and not any(key.endswith("skip") for key in fields):
        source, start = (detached[0], 0) if detached else (path, end)
        require_unpackable(source, start=start, length=0, promised=promised)


def _fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of the header by their lower-case names, and where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        begins = stream.readline(4096)
        if not begins.startswith(b"NRRD"):
            raise InputError(f"{path}: this is not a NRRD file (it begins with {begins[:12]!r}); export it again.")
        for line in islice(iter(lambda: stream.readline(4096), b""), _MOST_LINES):
            text = line.decode("utf-8", errors="replace").strip()
            if not text:
                break
            key, colon, value = text.partition(":")
            if colon and not text.startswith("#") and not value.startswith("="):
                fields[key.strip().lower()] = value.strip()
            if key.strip().lower() in ("data file", "datafile") and value.strip().upper().startswith("LIST"):
                break
        return fields, stream.tell()
