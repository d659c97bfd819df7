"""Files that are whole or absent: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path
from typing import Any

from .errors import StateError
from .machine import refused_writing

__all__ = [
    "DAMAGED_NPZ",
    "discard_unfinished",
    "finish_exchange",
    "read_json",
    "read_record",
    "replacing",
    "replacing_folder",
    "write_json",
]

DAMAGED_NPZ = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading an npz file raises that was cut short or has changed bytes; a RuntimeError where it seems encrypted."""

_UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.tmp(\..+)?")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path with the same suffixes; when the block ends well it becomes ``path``, else it is removed.

    The data reach the disk before the rename, so a power cut leaves the old file or the new one.

    Raises:
        MachineError: the disk is full or broken.
        InputError: the place cannot be written.
    """
    suffixes = "".join(path.suffixes[-2:])
    temporary = path.parent / f".{path.name.removesuffix(suffixes)}.{uuid.uuid4().hex[:8]}.tmp{suffixes}"
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("r+b") as stream:  # Windows flushes only what may be written
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            # Where the folder itself may not be used, there is nothing to remove either.
            with suppress(PermissionError, NotADirectoryError):
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Give an empty temporary folder; when the block ends well it takes the place of ``path``, else it is removed.

    Args:
        path: the folder to make or replace.
        keep: where the folder that is replaced stays, in the same parent; by default it is removed.

    Raises:
        MachineError: the disk is full or broken.
        InputError: the place cannot be written.
    """
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    with _in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        finish_exchange(path)
        temporary.mkdir()
        try:
            yield temporary
            if path.exists():
                old = keep or path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
                if old.exists():
                    shutil.rmtree(old)
                path.replace(old)
                temporary.replace(path)
                if keep is None:
                    shutil.rmtree(old)
            else:
                temporary.replace(path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def finish_exchange(path: Path) -> None:
    """Put right what a process left that was killed while one folder took the place of another.

    Between its two renames neither folder is there; the old one then comes back. Call it before reading a folder that
    :func:`replacing_folder` writes and that a killed process may have left so.
    """
    name = escape(path.name)
    for left in sorted(path.parent.glob(f".{name}.????????.old")):
        if path.exists():
            shutil.rmtree(left)
        else:
            left.replace(path)
    for left in path.parent.glob(f".{name}.????????.tmp"):
        shutil.rmtree(left)


def discard_unfinished(folder: Path) -> None:
    """Remove the files that a process killed inside :func:`replacing` left in a folder.

    Call it only where no other process writes into the folder.
    """
    for left in folder.glob(".*.tmp*"):
        if _UNFINISHED.fullmatch(left.name) and left.is_file():
            left.unlink()


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: indented, sorted as given, NaN refused (a missing number is null)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON that this package wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object that this package wrote and nobody should have changed.

    Args:
        path: the file.
        remedy: what to do when it is damaged, the end of a sentence.

    Raises:
        StateError: it is not there, or is not a JSON object.
    """
    try:
        found = read_json(path)
    except (OSError, ValueError) as error:
        raise StateError(f"{path}: this file is damaged ({error}); {remedy}.") from error
    if not isinstance(found, dict):
        raise StateError(f"{path}: this file is damaged (a {type(found).__name__} instead of an object); {remedy}.")
    return found


@contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        told = refused_writing(path, error)
        if told is None:
            raise
        raise told from error
