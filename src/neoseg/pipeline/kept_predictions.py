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
    """What the file holds: scans that are done, and by scan the names of what is being written."""

    scans: dict[str, KeptScan] = {}
    begun: dict[str, tuple[str, ...]] = {}


class KeptPredictions:
    """The scans that were predicted into a folder; each is recorded when its files are written.

    Attributes:
        folder: of the masks.
        known: whether there was a record, also one that cannot be used.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder = folder
        self.known = (folder / RECORD).exists()
        try:
            self._record = self._read()
        except (OSError, ValueError) as error:
            reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error).splitlines()[0]
            progress.say(
                f"{folder / RECORD}: this record of earlier predictions cannot be used ({reason}); every scan is "
                "predicted anew."
            )
            self._record = _Record()

    @property
    def written(self) -> set[str]:
        """Names of the files that earlier predictions wrote, or were about to write when they were stopped."""
        names = {name for scan in self._record.scans.values() for name in scan.files}
        return names.union(*self._record.begun.values())

    def find(self, case: str, key: str | None, mask: Path) -> KeptScan | None:
        """Return a scan that was predicted under this key, if its files are there as they were written."""
        found = self._record.scans.get(case)
        if found is None or key is None or found.key != key or found.mask != mask.name:
            return None
        there = all(_content(self.folder / name) == content for name, content in found.files.items())
        return found if there else None

    def holds_other(self, case: str) -> bool:
        """Tell whether results of a scan of this name are there, whatever they were made from."""
        found = self._record.scans.get(case)
        return found is not None and any((self.folder / name).exists() for name in found.files)

    def begin(self, case: str, files: Sequence[Path]) -> None:
        """Record which files are about to be written for a scan."""
        self._update()
        names = tuple(path.name for path in files)
        self._write(_Record(scans=self._record.scans, begun={**self._record.begun, case: names}))

    def keep(self, case: str, scan: Mapping[str, Any], files: Sequence[Path]) -> None:
        """Record a scan whose files are written, and remove maps of an earlier scan of the same name.

        Args:
            case: name of the scan.
            scan: the fields of :class:`KeptScan`.
            files: that were written.
        """
        kept = KeptScan(**scan, files={path.name: _content(path) or "" for path in files})
        self._update()
        before = self._record.scans.get(case)
        for name, content in before.files.items() if before is not None else ():
            if name not in kept.files and content and _content(self.folder / name) == content:
                (self.folder / name).unlink()
        begun = {name: files for name, files in self._record.begun.items() if name != case}
        self._write(_Record(scans={**self._record.scans, case: kept}, begun=begun))

    def _update(self) -> None:
        # another process may have written into the folder meanwhile; of damage was told at the start
        with suppress(OSError, ValueError):
            self._record = self._read()

    def _write(self, record: _Record) -> None:
        self._record = record
        write_json(self.folder / RECORD, record.model_dump(mode="json"))

    def _read(self) -> _Record:
        path = self.folder / RECORD
        return _Record.model_validate(read_json(path)) if path.is_file() else _Record()


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
