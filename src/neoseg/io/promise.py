"""What a header promises, held against what the file and the machine can hold, before anything is allocated."""

from __future__ import annotations

import zlib
from pathlib import Path

from ..errors import InputError, MachineError
from ..machine import free_memory_gib

__all__ = ["MOST_VOXELS", "require_bytes", "require_room", "require_unpackable"]

MOST_VOXELS = 2**40
"""Voxels above which a header is damaged for certain: 10000 along every axis."""

DEFLATED = 1032
"""The deflate format of gzip and zlib shortens at most so many times."""

_PIECE = 2**20
_ZLIB_OR_GZIP = 47
_ALWAYS_FITS = 2**27
"""Bytes below which the free memory is not asked for."""


def require_bytes(path: Path, *, promised: int, there: int, deflated: bool = False) -> None:
    """Refuse a file that is too short for its header.

    Args:
        path: the file, for the error.
        promised: bytes of header and voxels, unpacked.
        there: bytes of the file as it lies on the disk.
        deflated: whether those are packed by gzip or zlib.

    Raises:
        InputError: it is.
    """
    most = there * DEFLATED if deflated else there
    if promised > most:
        unpacked = f" (at most {most} when unpacked)" if deflated else ""
        raise InputError(
            f"{path}: the file is truncated or its header is damaged: {promised} bytes are promised, but there are "
            f"{there}{unpacked}; copy it again."
        )


def require_room(path: Path, promised: int) -> None:
    """Refuse an image that is larger than the memory that is left.

    Raises:
        MachineError: it is.
    """
    if promised <= _ALWAYS_FITS:
        return
    free = free_memory_gib()
    if free is not None and promised > free * 2**30:
        raise MachineError(
            f"{path}: this image takes {promised / 2**30:.1f} GiB, but {free:.1f} GiB of memory are free; use a "
            "machine with more of it, or resample the image to larger voxels."
        )


def require_unpackable(path: Path, *, start: int, length: int, promised: int) -> None:
    """Unpack voxels once without keeping them, since ITK's readers do not look at every checksum.

    Args:
        path: the file with the packed voxels.
        start: byte at which they begin.
        length: their packed bytes; 0: all that follow.
        promised: their bytes when unpacked.

    Raises:
        InputError: they are damaged or fewer.
    """
    stream, found = zlib.decompressobj(wbits=_ZLIB_OR_GZIP), 0
    left = length or path.stat().st_size - start
    with path.open("rb") as file:
        file.seek(start)
        try:
            while left > 0 and not stream.eof and (piece := file.read(min(left, _PIECE))):
                left -= len(piece)
                while piece:
                    found += len(stream.decompress(piece, _PIECE))
                    piece = stream.unconsumed_tail
                    if stream.eof and found < promised and (piece := stream.unused_data):
                        stream = zlib.decompressobj(wbits=_ZLIB_OR_GZIP)  # gzip may come in several members
        except zlib.error as error:
            raise InputError(f"{path}: the compressed voxels are damaged ({error}); copy the file again.") from error
    if not stream.eof or found < promised:
        raise InputError(
            f"{path}: the compressed voxels are truncated or damaged ({found} of {promised} bytes); copy it again."
        )
