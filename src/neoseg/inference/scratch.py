"""Arrays that are too large for the memory allowed, kept in files without a name."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..errors import MachineError

__all__ = ["Scratch"]


class Scratch:
    """A place for the large arrays of one prediction: the memory, or files in a folder.

    A file has no name (POSIX) or is deleted with its last handle (Windows), so nothing is left behind however the
    process ends. Its whole length is claimed when it is made: a full disk is told then, and not by a fault in the
    midst of the work.

    Attributes:
        folder: where the files go, made when it is missing; ``None``: arrays stay in memory.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder

    def array(self, shape: Sequence[int], dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Return a new array of zeros.

        Raises:
            MachineError: the disk has no room for it, or the folder cannot be written.
        """
        if self.folder is None or 0 in shape:
            return np.zeros(tuple(shape), dtype=dtype)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder) as stream:
                _claim(stream.fileno(), size)
                return np.memmap(stream, dtype=dtype, mode="r+", shape=tuple(shape))
        except OSError as error:
            raise MachineError(
                f"{self.folder}: {size / 2**30:.1f} GiB of room for intermediate results are wanted there, which "
                f"failed ({error.strerror or error}); free space, or allow more memory."
            ) from error

    @staticmethod
    def release(array: NDArray[Any]) -> None:
        """Take an array's pages out of the memory, where it lies in a file; what was written stays."""
        pages = getattr(array, "_mmap", None)
        if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
            pages.madvise(mmap.MADV_DONTNEED)


def _claim(descriptor: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, size)
        return
    zeros = bytes(2**20)
    for start in range(0, size, len(zeros)):
        os.write(descriptor, zeros[: size - start])
