"""A look at the header of a MetaImage file before ITK reads it: MetaIO writes about damage to the terminal only.

Source of the format: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
from pathlib import Path

from ..errors import InputError

__all__ = ["check_header", "check_voxels"]

_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_DOUBLE": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8,
}  # fmt: skip
_PACKED = "CompressedDataSize"
_NEEDED = ("NDims", "DimSize", "ElementType")


def check_header(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields of the header and where it ends.

    Raises:
        InputError: the file does not begin with a MetaImage header of 2 to 4 axes.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        begins = stream.read(12)
        stream.seek(0)
        while "ElementDataFile" not in fields:
            key, equals, value = stream.readline(4096).partition(b"=")
            if not equals:
                break
            fields[key.decode("latin-1").strip()] = value.decode("latin-1").strip()
        end = stream.tell()
    lacking = [key for key in (*_NEEDED, "ElementDataFile") if key not in fields]
    if len(lacking) > len(_NEEDED):
        raise InputError(f"{path}: this is not a MetaImage file (it begins with {begins!r}); export the image again.")
    if lacking:
        raise InputError(f"{path}: the header is damaged, it lacks {', '.join(lacking)}; export the image again.")
    try:
        shape = [int(n) for n in fields["DimSize"].split()]
        fits = len(shape) == int(fields["NDims"]) and 2 <= len(shape) <= 4 and min(shape) >= 1
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{path}: the header gives the axes {fields['DimSize']!r} (NDims {fields['NDims']!r}), but 2 to 4 axes of "
            "at least one voxel are wanted."
        )
    return fields, end


def check_voxels(path: Path) -> None:
    """Look whether as many bytes of voxels are there as the header promises.

    Raises:
        InputError: as :func:`check_header`, fewer bytes, or a detached voxel file that is not there.
    """
    fields, end = check_header(path)
    source = fields["ElementDataFile"]
    there = path.stat().st_size - end
    if source.upper() != "LOCAL":
        if source.upper().startswith("LIST") or "%" in source:
            return  # one file a slice: ITK finds them
        if not (path.parent / source).is_file():
            raise InputError(f"{path}: the header names the voxel file {source}, but that is not there; copy it too.")
        there = (path.parent / source).stat().st_size
    counts = {key: fields.get(key, default) for key, default in (("ElementNumberOfChannels", "1"), (_PACKED, "0"))}
    for key, value in counts.items():
        if not value.isdigit():
            raise InputError(f"{path}: the header gives {key} = {value!r}, but a whole number is wanted; correct it.")
    wanted = math.prod(int(n) for n in fields["DimSize"].split()) * int(counts["ElementNumberOfChannels"])
    wanted *= _BYTES.get(fields["ElementType"].removesuffix("_ARRAY"), 1)
    if fields.get("CompressedData", "False").lower() == "true":
        wanted = int(counts[_PACKED])
    if there < wanted:
        raise InputError(
            f"{path}: the file is truncated: its header promises {wanted} bytes of voxels, but there are {there}; "
            "copy it again."
        )
