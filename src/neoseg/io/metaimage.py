"""A look at the header of a MetaImage file before ITK reads it: MetaIO writes about damage to the terminal only.

Source of the format: https://itk.org/Wiki/ITK/MetaIO/Documentation.
"""

from __future__ import annotations

import math
from itertools import islice, takewhile
from pathlib import Path

from ..errors import InputError
from .detached import detached_files
from .promise import MOST_VOXELS, require_bytes, require_room, require_unpackable

__all__ = ["check_header", "check_voxels"]

_BYTES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4, "MET_FLOAT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_DOUBLE": 8, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8,
}  # fmt: skip
_PACKED = "CompressedDataSize"
_MOST_FILES = 10_000
_OF_AXES = ("DimSize", "TransformMatrix", "Offset", "CenterOfRotation", "ElementSpacing", "ElementSize", "Position")
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
            name = key.decode("latin-1").strip()
            if name in fields and name in (*_NEEDED, *_OF_AXES):
                # MetaIO sets up its arrays by one of the two and fills them by the other
                raise InputError(f"{path}: the header is damaged, it has {name} twice; export the image again.")
            fields[name] = value.decode("latin-1").strip()
        end = stream.tell()
    early = [key for key in takewhile(lambda key: key != "NDims", fields) if key in _OF_AXES]
    if early and "NDims" in fields:
        raise InputError(f"{path}: the header is damaged, {early[0]} comes before NDims; export the image again.")
    lacking = [key for key in (*_NEEDED, "ElementDataFile") if key not in fields]
    if len(lacking) > len(_NEEDED):
        raise InputError(f"{path}: this is not a MetaImage file (it begins with {begins!r}); export the image again.")
    if lacking:
        raise InputError(f"{path}: the header is damaged, it lacks {', '.join(lacking)}; export the image again.")
    try:
        shape = [int(n) for n in fields["DimSize"].split()]
        fits = len(shape) == int(fields["NDims"]) and 2 <= len(shape) <= 4 and min(shape) >= 1
        fits = fits and math.prod(shape) <= MOST_VOXELS
    except ValueError:
        fits = False
    if not fits:
        raise InputError(
            f"{path}: the header gives the axes {fields['DimSize'][:80]!r} (NDims {fields['NDims'][:20]!r}), but 2 to "
            "4 axes of at least one voxel, and no more of them than an image has, are wanted; export the image again."
        )
    _require_plain(path, fields)
    return fields, end


def _require_plain(path: Path, fields: dict[str, str]) -> None:
    """Refuse a scale of the values and units of length that ITK leaves out.

    Raises:
        InputError: the header has one.
    """
    for key, plain in (("ElementToIntensityFunctionSlope", 1.0), ("ElementToIntensityFunctionOffset", 0.0)):
        try:
            fits = float(fields.get(key, plain)) == plain
        except ValueError:
            fits = False
        if not fits:
            raise InputError(
                f"{path}: the header has {key} = {fields[key][:20]}, a scale that is not read; export the image with "
                "its values as they are meant."
            )
    if (unit := fields.get("DistanceUnits", "mm")).lower() not in ("mm", "?", ""):
        raise InputError(
            f"{path}: the header has DistanceUnits = {unit[:20]}, but mm are read; export the image again."
        )


def check_voxels(path: Path) -> None:
    """Look whether as many bytes of voxels, or numbers where they are text, are there as the header promises.

    Raises:
        InputError: as :func:`check_header`, fewer bytes, or a detached voxel file that is not there.
        MachineError: the image is larger than the memory that is left.
    """
    fields, end = check_header(path)
    counts = {key: fields.get(key, default) for key, default in (("ElementNumberOfChannels", "1"), (_PACKED, "0"))}
    for key, value in counts.items():
        if not (value.isascii() and value.isdigit()) or len(value) > 18:
            raise InputError(f"{path}: the header gives {key} = {value!r}, but a whole number is wanted; correct it.")
    detached = list(islice(detached_files(path), _MOST_FILES))
    missing = next((file for file in detached if not file.is_file()), None)
    if missing is not None:
        raise InputError(f"{path}: the header names the voxel file {missing.name}, but that is not there; copy it too.")
    there = sum(file.stat().st_size for file in detached) if detached else path.stat().st_size - end
    voxels = math.prod(int(n) for n in fields["DimSize"].split()) * int(counts["ElementNumberOfChannels"])
    promised = voxels * _BYTES.get(fields["ElementType"].removesuffix("_ARRAY"), 1)
    if fields.get("BinaryData", "True")[:1] not in ("T", "t", "1"):
        _require_numbers(path, detached or [path], start=0 if detached else end, wanted=voxels)
        require_room(path, promised)
        return
    packed = fields.get("CompressedData", "False")[:1] in ("T", "t", "1")
    if packed:
        require_bytes(path, promised=int(counts[_PACKED]), there=there)
    require_bytes(path, promised=promised, there=there, deflated=packed)
    require_room(path, promised)
    if packed:
        # where they are damaged, MetaIO gives zeros and no error
        source, start = (detached[0], 0) if detached else (path, end)
        require_unpackable(source, start=start, length=int(counts[_PACKED]), promised=promised)


def _require_numbers(path: Path, files: list[Path], *, start: int, wanted: int) -> None:
    """Count the numbers of voxels that are written as text, since MetaIO takes what is missing for the last one.

    Raises:
        InputError: they are fewer than the header promises.
    """
    found = 0
    for file in files:
        with file.open("rb") as stream:
            stream.seek(start)
            found += sum(len(line.split()) for line in stream)
    if found < wanted:
        raise InputError(
            f"{path}: the file is truncated or its header is damaged: {wanted} numbers are promised, but there are "
            f"{found}; copy it again."
        )
