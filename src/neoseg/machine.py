"""What the machine refuses, in words: a disk that is full, a folder that may not be written, memory that is used up."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from .errors import InputError, MachineError, NeosegError

__all__ = ["forget_peak", "free_memory_gib", "is_out_of_memory", "peak_bytes", "refused", "refused_writing"]

_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_LARGE = (errno.EFBIG,)
_BROKEN = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
_STATUS, _FORGETS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_NOTHING = 2**26  # bytes; both are counted to within some pages for each core
_MEMORY_WORDS = ("not enough memory", "out of memory", "cannot allocate memory", "can't allocate", "failed to allocate")


def refused_writing(path: Path, error: OSError) -> NeosegError | None:
    """Return the sentence about a file or folder that could not be written; ``None`` when the error is about another.

    Args:
        path: what was to be written, through a temporary file or folder beside it.
        error: what the operating system said.

    Returns:
        A :class:`MachineError` for a full or broken disk, an :class:`InputError` for a place that may not be written.
    """
    if not _concerns(path, error):
        return None
    reason = error.strerror or str(error)
    again = "nothing half-written was left; run the same command again afterwards"
    if error.errno in _FULL or (error.errno is None and "requested and" in reason):  # NumPy's words of a short write
        return MachineError(f"{path}: the disk is full, so this could not be written; free some space: {again}.")
    if error.errno in _TOO_LARGE:
        return MachineError(f"{path}: files may not become that large here ({reason}); raise the limit: {again}.")
    if error.errno in _BROKEN:
        return MachineError(f"{path}: the disk does not take this ({reason}); look after the disk: {again}.")
    if error.errno is None or is_out_of_memory(error):
        return None
    if error.errno == errno.EISDIR:
        return InputError(
            f"{path}: this is a folder, and a file is to be written; give the name of a file, or move the folder away."
        )
    return InputError(f"{path}: this cannot be written ({reason}); give a folder that exists and may be written.")


def refused(error: BaseException) -> NeosegError | None:
    """Return the sentence about an error of the operating system that nobody else put into words.

    Only what names a file, a full disk or the want of memory is taken for one; everything else is a defect.
    """
    if is_out_of_memory(error):
        return MachineError(
            "There is not enough memory for this; end other programs, set `jobs` to a smaller number, or use a machine "
            "with more of it: the same command goes on from here."
        )
    if not isinstance(error, OSError):
        return None
    if error.errno in (*_FULL, *_TOO_LARGE, *_BROKEN):
        told = f"{error.filename}: " if error.filename else ""
        return MachineError(f"{told}The disk refuses to go on ({error.strerror}); the same command goes on from here.")
    if isinstance(error.filename, str | os.PathLike) and error.strerror:
        return InputError(f"{os.fspath(error.filename)}: {error.strerror}; correct the path or its permissions.")
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory was not to be had, whatever library it comes from."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MEMORY_WORDS)


def free_memory_gib() -> float | None:
    """Return the main memory in GiB that this process may still take; ``None`` where the system does not tell it."""
    found = [_system_bytes(), _group_bytes(), _limit_bytes()]
    known = [value for value in found if value is not None]
    return max(0, min(known)) / 2**30 if known else None


def peak_bytes() -> int | None:
    """Return the most memory that this process has had resident; ``None`` where the system does not tell (Windows)."""
    # What getrusage says begins with the peak of the process that started this one.
    if (own := _line_of(_STATUS, "VmHWM:", 1024)) is not None:
        return own
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def forget_peak() -> int:
    """Let :func:`peak_bytes` count from now on, where the system can (Linux, outside of containers that forbid it).

    Returns:
        The bytes beyond which :func:`peak_bytes` tells of what came after; 0 where it has forgotten what was before.
    """
    with contextlib.suppress(OSError):
        _FORGETS.write_text("5", encoding="ascii")
    peak, now = peak_bytes() or 0, _line_of(_STATUS, "VmRSS:", 1024)
    # the system counts late, so that a peak of before may still grow by some pages
    return 0 if now is not None and peak - now < _NOTHING else peak + _NOTHING


def _concerns(path: Path, error: OSError) -> bool:
    """Tell whether an error names no file, or the one, or a folder above it, or something temporary beside it."""
    if not isinstance(error.filename, str | os.PathLike):
        return True
    named = Path(os.fspath(error.filename))
    return named.is_relative_to(path.parent) or path.is_relative_to(named)


def _system_bytes() -> int | None:
    return _line_of(Path("/proc/meminfo"), "MemAvailable:", 1024)


def _group_bytes(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return what the container's limit leaves (control groups, version 2).

    What the system keeps of files that were read or written counts as used there, but makes room when it is needed.
    """
    try:
        most = (group / "memory.max").read_text(encoding="ascii").strip()
        now = (group / "memory.current").read_text(encoding="ascii").strip()
        left = int(most) - int(now)
    except (OSError, ValueError):
        return None
    return left + sum(_line_of(group / "memory.stat", f"{name} ", 1) or 0 for name in ("active_file", "inactive_file"))


def _limit_bytes() -> int | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = _line_of(_STATUS, "VmSize:", 1024)
    return None if most == resource.RLIM_INFINITY or taken is None else most - taken


def _line_of(path: Path, begins: str, unit: int) -> int | None:
    try:
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith(begins):
                return int(line.split()[1]) * unit
    except (OSError, ValueError):
        pass
    return None
