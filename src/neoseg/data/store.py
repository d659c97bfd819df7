"""Prepared cases on disk: one folder a case, raw npy files that are memory-mapped, a JSON record, all or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import read_json, read_record, replacing_folder, write_json
from ..errors import StateError

__all__ = ["CaseStore", "digest", "file_digest", "files_digest"]


def digest(value: Any) -> str:
    """Return a short hash of plain data (JSON-able), the same on every machine."""
    text = json.dumps(value, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return a short hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]


def files_digest(paths: Sequence[Path]) -> str:
    """Return a short hash of the bytes of several files in this order; for one file it is :func:`file_digest`."""
    hashes = [file_digest(path) for path in paths]
    return hashes[0] if len(hashes) == 1 else digest(hashes)


class CaseStore:
    """A folder of prepared cases.

    A case is the arrays that were given for it (``<name>.npy``) and ``record.json`` with plain data and the key under
    which it was made. A case whose key differs from the wanted one is stale and made again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, case: str, key: str) -> bool:
        """Tell whether the case is there and was made under this key; a damaged one is made again."""
        record = self.folder / case / "record.json"
        if not record.is_file():
            return False
        try:
            return bool(read_record(record, "").get("key") == key)
        except StateError:
            return False

    def has_any(self, case: str) -> bool:
        """Tell whether the case is there, under whatever key."""
        return (self.folder / case / "record.json").is_file()

    def write(self, case: str, key: str, arrays: Mapping[str, NDArray[Any]], record: Mapping[str, Any]) -> None:
        """Write a case; a reader sees the old one or the new one, never a mixture."""
        with replacing_folder(self.folder / case) as temporary:
            for name, array in arrays.items():
                np.save(temporary / f"{name}.npy", np.ascontiguousarray(array), allow_pickle=False)
            write_json(temporary / "record.json", {"key": key, **record})

    def array(self, case: str, name: str) -> NDArray[Any]:
        """Return one array of a case, memory-mapped and read-only.

        Raises:
            StateError: the case or the array is not there or is damaged.
        """
        path = self.folder / case / f"{name}.npy"
        try:
            return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise StateError(
                f"{path}: this prepared array cannot be read ({error}); delete the folder {path.parent} and run "
                "`neoseg prepare` again."
            ) from error

    def record(self, case: str) -> dict[str, Any]:
        """Return the record of a case.

        Raises:
            StateError: the case is not there or its record is damaged.
        """
        path = self.folder / case / "record.json"
        try:
            return dict(read_json(path))
        except (OSError, ValueError) as error:
            raise StateError(
                f"{path}: this record cannot be read ({error}); delete the folder {path.parent} and run "
                "`neoseg prepare` again."
            ) from error
