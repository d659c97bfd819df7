"""Where freed memory goes: kept for the next training step or window, or given back to the system."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["give_back", "kept_heap"]

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4
"""Names of mallopt's parameters in glibc's malloc.h."""

USUAL = {MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * 2**20, TRIM_THRESHOLD: 64 * 2**20}
"""What glibc's own settings grow to in a process that frees large blocks (mallopt(3))."""


@contextmanager
def kept_heap() -> Iterator[None]:
    """Let the process keep the memory that it frees, inside the block; at its end the free memory is given back.

    A pass through a network takes and frees blocks of many MiB. glibc maps each of them anew, and the system clears it
    page by page: a share of every training step and window, see ``benchmarks/results/allocator.json`` and
    ``network_avx512.json``. No number that is computed changes. The heap falls into pieces meanwhile, so the peak is
    somewhat higher; what shall outlive the block is better made before it. Where the C library is another one than
    glibc nothing is done.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(MMAP_MAX, 0)
    library.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        for parameter, value in USUAL.items():
            library.mallopt(parameter, value)
        library.malloc_trim(0)


def give_back() -> None:
    """Ask the C library to return to the system what was freed; where it cannot (other than glibc), do nothing.

    By itself it keeps freed blocks of up to 32 MiB for later, which are most of what a pass through a network leaves.
    """
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "gnu_get_libc_version") else None
