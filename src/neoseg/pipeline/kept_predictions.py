"""What a folder of masks knows of the scans that were predicted into it, so that a killed prediction goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..atomic import read_json, write_json
from ..data.cases import Case
from ..data.store import digest, file_digest
from ..inference.predictor import Wanted
from ..io import detached_files
from ..progress import Progress

__all__ = ["RECORD", "KeptPredictions", "KeptScan", "scan_key"]

RECORD = "predictions.json"
"""Lies beside the masks."""


class KeptScan(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """A scan that was predicted.

    Attributes:
        key: hash of all that the result depends on, see :func:`scan_key`.
        mask: name of the mask's file.
        volumes_ml, ranges_ml, warnings, unit: as in :class:`neoseg.pipeline.new_scans.PredictedScan`.
        files: hashes of what was written, by the files' names.
    """

    key: str
    mask: str
    volumes_ml: dict[str, float]
    ranges_ml: dict[str, tuple[float, float]]
    warnings: tuple[str, ...]
    unit: str
    files: dict[str, str]


class _Record(BaseModel, frozen=True, extra="forbid"):
    scans: dict[str, KeptScan] = {}


class KeptPredictions:
    """The scans that were predicted into a folder; each is recorded when its files are written.

    Attributes:
        folder: of the masks.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        try:
            self._scans = self._read()
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
            progress.say(
                f"{folder / RECORD}: this record of earlier predictions cannot be used ({reason}); every scan is "
                "predicted anew."
            )
            self._scans = {}

    @property
    def written(self) -> set[str]:
        """Names of the files that earlier predictions wrote."""
        return {name for scan in self._scans.values() for name in scan.files}

    def find(self, case: str, key: str | None, mask: Path) -> KeptScan | None:
        """Return a scan that was predicted under this key, if its files are there as they were written."""
        found = self._scans.get(case)
        if found is None or key is None or found.key != key or found.mask != mask.name:
            return None
        there = all(_content(self.folder / name) == content for name, content in found.files.items())
        return found if there else None

    def keep(self, case: str, scan: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Record a scan whose files are written; the arguments are the name and the fields of :class:`KeptScan`."""
        kept = KeptScan(**scan, files={path.name: _content(path) or "" for path in files})
        # another process may have written into the folder meanwhile; of damage was told at the start
        with suppress(OSError, ValueError):
            self._scans = self._read()
        self._scans = {**self._scans, case: kept}
        write_json(self.folder / RECORD, _Record(scans=self._scans).model_dump(mode="json"))

    def _read(self) -> dict[str, KeptScan]:
        path = self.folder / RECORD
        return dict(_Record.model_validate(read_json(path)).scans) if path.is_file() else {}


def scan_key(made_with: str, wanted: Wanted, scan: Case) -> str | None:
    """Return a hash of all that the result of a scan depends on; ``None`` where a file of it cannot be read.

    Args:
        made_with: hash of what the run brings.
        wanted: maps that are made too.
        scan: its files count by name, size and content, wherever they lie.
    """
    # of a 4-D file each channel is the same file
    contents = {path: _content(path) for path in {*scan.images.values(), *([scan.mask] if scan.mask else [])}}
    if None in contents.values():
        return None
    images = [[channel, path.name, contents[path]] for channel, path in scan.images.items()]
    mask = [scan.mask.name, contents[scan.mask]] if scan.mask is not None else []
    return digest([made_with, asdict(wanted), scan.case, images, scan.channel_index, mask])


def _content(path: Path) -> str | None:
    """Return the size and the hash of a file, with those of the files that hold its voxels; ``None``: not readable."""
    try:
        return " ".join(f"{file.stat().st_size} {file_digest(file)}" for file in (path, *detached_files(path)))
    except OSError:
        return None
