"""One process at a time trains a fold: a second one would take away what the first is writing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StateError

__all__ = ["require_free", "training_alone"]

LOCK = ".training.lock"


@contextmanager
def training_alone(folder: Path) -> Iterator[None]:
    """Keep other processes from training in a folder; the system gives it free when this process ends, however it does.

    On systems and shared disks without such locks nothing is kept.

    Args:
        folder: of the fold; made where there is none.

    Raises:
        StateError: another process trains there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = _taken(folder / LOCK)
    try:
        yield
    finally:
        if descriptor is not None:
            (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)


def require_free(folder: Path) -> None:
    """Refuse a folder in which another process trains.

    Raises:
        StateError: it does.
    """
    if (folder / LOCK).exists() and (descriptor := _taken(folder / LOCK)) is not None:
        os.close(descriptor)


def _taken(path: Path) -> int | None:
    """Return the descriptor of a locked file that says who has it; None where there are no locks.

    Raises:
        StateError: another process has it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            who = os.read(descriptor, 200).decode(errors="replace").strip()
            os.close(descriptor)
            raise StateError(
                f"{path.parent}: another process is training this fold ({who or 'it has just begun'}); wait for it, or "
                "name folds that it does not train with --fold."
            ) from None
        except OSError:
            os.close(descriptor)
            return None
        if _is(path, descriptor):
            os.truncate(descriptor, 0)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
            return descriptor
        os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Whether a file has not been removed, or made anew, between its opening and its lock."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
