"""Files that are whole or absent: written under a temporary name beside the target, then renamed."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any

__all__ = ["finish_exchange", "read_json", "replacing", "replacing_folder", "write_json"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path with the same suffixes; when the block ends well it becomes ``path``, else it is removed.

    The data reach the disk before the rename, so a power cut leaves the old file or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffixes = "".join(path.suffixes[-2:])
    temporary = path.parent / f".{path.name.removesuffix(suffixes)}.{uuid.uuid4().hex[:8]}.tmp{suffixes}"
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path, *, keep: Path | None = None) -> Iterator[Path]:
    """Give an empty temporary folder; when the block ends well it takes the place of ``path``, else it is removed.

    Args:
        path: the folder to make or replace.
        keep: where the folder that is replaced stays, in the same parent; by default it is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    finish_exchange(path)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
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


def write_json(path: Path, value: Any) -> None:
    """Write JSON for people: indented, sorted as given, NaN refused (a missing number is null)."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON that this package wrote."""
    return json.loads(path.read_text(encoding="utf-8"))
