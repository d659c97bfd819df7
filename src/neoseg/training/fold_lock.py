"""One process at a time trains a fold: a second one would take away what the first is writing."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import StateError
from ..machine import refused_writing

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
        InputError, MachineError: the folder cannot be written, or the disk is full.
    """
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _taken(path, make=True)
    except OSError as error:
        if (told := refused_writing(path, error)) is None:
            raise
        raise told from error
    if descriptor is None:
        yield
        return
    with suppress(OSError):  # of another user, or a full disk: then nobody is told who has it
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}\n", encoding="utf-8")
    try:
        yield
    finally:
        if _is(path, descriptor):
            with suppress(OSError):
                path.unlink()
        os.close(descriptor)


def require_free(folder: Path) -> None:
    """Refuse a folder in which another process trains.

    Raises:
        StateError: it does.
    """
    with suppress(OSError):  # there is no lock, or none that may be looked at: the training says which
        if (descriptor := _taken(folder / LOCK, make=False)) is not None:
            os.close(descriptor)


def _taken(path: Path, *, make: bool) -> int | None:
    """Return the descriptor of a file that is locked now; None where there are no locks.

    Raises:
        StateError: another process has it.
        OSError: it is not there and not to be made, or cannot be opened.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return None
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0), 0o666)
        except PermissionError:  # the file of another user can be locked all the same
            descriptor = os.open(path, os.O_RDONLY)
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
            return descriptor
        os.close(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    """Whether a file has not been removed, or made anew, since it was opened."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
