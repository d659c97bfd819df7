"""The files beside a header file that hold its voxels: MetaImage's ElementDataFile and NRRD's data file.

Sources of the formats: https://itk.org/Wiki/ITK/MetaIO/Documentation, https://teem.sourceforge.net/nrrd/format.html#detached.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

__all__ = ["detached_files"]

_LONGEST_HEADER = 10_000
_NUMBERED = re.compile(r"(?P<pattern>.*%.*?)\s+(?P<first>-?\d+)\s+(?P<last>-?\d+)\s+(?P<step>-?\d+)(\s+\d+)?")


def detached_files(path: Path) -> Iterator[Path]:
    """Give the files that hold the voxels of an image besides the named one, in the order that the header has them.

    Nothing comes for a file that holds its own voxels, for a format without headers of this kind, and for a file whose
    header cannot be understood; whether the files exist is not looked at.
    """
    ending = path.suffix.lower()
    if ending in (".mhd", ".mha"):
        named = _of_metaimage(path)
    elif ending in (".nhdr", ".nrrd"):
        named = _of_nrrd(path)
    else:
        return
    for name in named:
        yield path.parent / name


def _of_metaimage(path: Path) -> Iterator[str]:
    lines = _lines(path)
    for line in lines:
        key, equals, value = line.partition("=")
        if not equals:
            return
        if key.strip() == "ElementDataFile":
            value = value.strip()
            if value.upper().startswith("LIST"):
                yield from (name for name in lines if name)
            elif value.upper() != "LOCAL":
                yield from _numbered(value)
            return


def _of_nrrd(path: Path) -> Iterator[str]:
    lines = _lines(path)
    if not next(lines, "").startswith("NRRD"):
        return
    for line in lines:
        if not line:
            return
        key, _, value = line.partition(":")
        if key.lower() in ("data file", "datafile"):
            value = value.strip()
            if value.upper().startswith("LIST"):
                yield from (name for name in lines if name)
            else:
                yield from _numbered(value)
            return


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as stream:
        for line in islice(iter(lambda: stream.readline(4096), b""), _LONGEST_HEADER):
            yield line.decode("utf-8", "replace").strip()


def _numbered(value: str) -> Iterator[str]:
    """Give the names that ``slice%03d.raw 1 20 1`` stands for, or the one name."""
    found = _NUMBERED.fullmatch(value)
    if found is None:
        yield value
        return
    first, last, step = (int(found[name]) for name in ("first", "last", "step"))
    try:
        for number in range(first, last + (1 if step > 0 else -1), step):
            yield found["pattern"] % number
    except (TypeError, ValueError):
        return
