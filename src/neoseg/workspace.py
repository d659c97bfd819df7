"""Every path of a workspace in one place, and what is up to date there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .atomic import read_json, write_json
from .errors import StateError

__all__ = ["Run", "Workspace"]


class Run:
    """The folder of one run; when it is finished it holds all that prediction needs and may be copied anywhere.

    Attributes:
        folder: ``runs/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.environment = folder / "environment.json"
        self.plan = folder / "plan.json"
        self.atlas = folder / "atlas"
        self.postprocess = folder / "postprocess.json"
        self.scores = folder / "scores.csv"
        self.summary = folder / "summary.json"
        self.report = folder / "report.html"
        self.stages = folder / "stages"

    def fold(self, index: int) -> Path:
        """Folder of one fold's training."""
        return self.folder / f"fold{index}"

    def predictions(self, split: str) -> Path:
        """Folder of the masks of "cv" or "held_out"."""
        return self.folder / "predictions" / split

    def probabilities(self, split: str) -> Path:
        """Folder of the foreground probabilities of "cv" or "held_out"."""
        return self.folder / "probabilities" / split

    def stage(self, name: str) -> Path:
        """The record that a stage leaves when it ended well."""
        return self.stages / f"{name}.json"

    def stage_record(self, name: str) -> dict[str, Any] | None:
        """Return a stage's record, or None when it has not ended well yet."""
        path = self.stage(name)
        return dict(read_json(path)) if path.is_file() else None

    def need(self, name: str) -> dict[str, Any]:
        """Return the record of a stage that has to be finished.

        Raises:
            StateError: it is not.
        """
        record = self.stage_record(name)
        if record is None:
            raise StateError(
                f"{self.folder}: the stage {name!r} has not finished here; run `neoseg {name}` or `neoseg run` first."
            )
        return record

    @contextmanager
    def recording(self, name: str, key: str) -> Iterator[dict[str, Any]]:
        """Time a stage; when the block ends well, write its record with what the block put into the mapping.

        The seconds of an earlier, interrupted attempt with the same key are counted in by what that attempt left in
        ``<stage>.started.json``.
        """
        started = self.stages / f"{name}.started.json"
        before = read_json(started) if started.is_file() else {}
        spent = float(before.get("seconds", 0.0)) if before.get("key") == key else 0.0
        self.stage(name).unlink(missing_ok=True)
        record: dict[str, Any] = {}
        start = time.monotonic()
        try:
            yield record
        except BaseException:
            write_json(started, {"key": key, "seconds": spent + time.monotonic() - start})
            raise
        started.unlink(missing_ok=True)
        write_json(self.stage(name), {"stage": name, "key": key, "seconds": spent + time.monotonic() - start, **record})

    def is_current(self, name: str, key: str) -> bool:
        """Tell whether a stage ended well with exactly these inputs."""
        record = self.stage_record(name)
        return record is not None and record.get("key") == key


class Workspace:
    """The folder that a run works in; the only authority on paths.

    Attributes:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fingerprint = root / "fingerprint.json"
        self.plan = root / "plan.json"
        self.folds = root / "folds.json"
        self.atlas = root / "atlas"

    def prepared(self, key: str) -> Path:
        """Folder of the cases that were prepared under a key."""
        return self.root / "prepared" / key

    def run(self, name: str) -> Run:
        """The folder of a named run."""
        return Run(self.root / "runs" / name)
