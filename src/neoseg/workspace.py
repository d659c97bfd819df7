"""Every path of a workspace in one place, and what is up to date there."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .atomic import read_json, read_record, write_json
from .errors import NeosegError, StateError

__all__ = ["Run", "Workspace", "write_if_changed"]

NOTED_EVERY_S = 2.0
"""A stage at work notes its seconds this often, so that an attempt which is killed outright is known up to then."""


class Run:
    """The folder of one run; when it is finished it holds all that prediction needs and may be copied anywhere.

    Attributes:
        folder: ``runs/<name>``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.environment = folder / "environment.json"
        self.manifest = folder / "manifest.json"
        self.notice = folder / "notice.json"
        self.start = folder / "init_from.json"
        self.plan = folder / "plan.json"
        self.atlas = folder / "atlas"
        self.template = folder / "template"
        self.registrations = folder / "registrations.json"
        self.stacked = folder / "stacked.json"
        self.postprocess = folder / "postprocess.json"
        self.scores = folder / "scores.csv"
        self.summary = folder / "summary.json"
        self.report = folder / "report.html"
        self.stages = folder / "stages"

    @property
    def instead(self) -> str:
        """What to give where this is not the folder of a run: where it is a workspace, one of its runs."""
        inside = sorted(path.name for path in self.folder.glob("runs/*") if path.is_dir())
        if inside:
            return f"give one of its runs ({', '.join(inside)})"
        return "give the folder of a finished run, runs/<name> of a workspace"

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
        """Return a stage's record, or None when it has not ended well yet.

        Each fold of "train" has a record of its own, so that folds may be trained by several processes; together they
        are the stage's: ``folds`` holds their summaries, and ``seconds`` counts the time once in which folds were
        trained side by side, as far as that is known of their last attempts.
        """
        if name == "train":
            folds = self.fold_records()
            summaries = [{"fold": index, **record["summary"]} for index, record in folds.items()]
            seconds = _together(folds.values())
            texts = dict.fromkeys(text for record in folds.values() for text in record.get("warnings", ()))
            told = {"warnings": [{"text": text, "case": ""} for text in texts]} if texts else {}
            return {"stage": name, "seconds": seconds, "folds": summaries, **told} if folds else None
        path = self.stage(name)
        return _stage_of(path) if path.is_file() else None

    def fold_records(self) -> dict[int, dict[str, Any]]:
        """Return the records of the trained folds by their index, in order."""
        names = [path.stem.removeprefix("train.fold") for path in self.stages.glob("train.fold*.json")]
        indices = sorted(int(name) for name in names if name.isdecimal())
        return {index: _stage_of(self.stage(f"train.fold{index}")) for index in indices}

    def record_fold(self, index: int, key: str, summary: dict[str, Any], **facts: Any) -> None:
        """Record a fold as trained; its seconds are those of its summary, which a checkpoint carries over any end.

        Args:
            index: of the fold.
            key: of the stage.
            summary: as in ``finished.json``.
            facts: what else is known of it; ``warnings`` are sentences that the report shows, ``span`` are start and
                end of the last attempt in seconds since 1970, ``processes`` share each batch.
        """
        record = {"stage": "train", "key": key, "seconds": summary["seconds"], "summary": summary, **facts}
        write_if_changed(self.stage(f"train.fold{index}"), record)

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

        ``seconds`` is the wall time of the attempt that ended well and of the interrupted attempts with the same key
        before it. An attempt at work notes its time every two seconds in ``<stage>.started.json``; of one that was
        killed, what came after the last note is not known and not counted. A stage that is up to date is not attempted,
        so it keeps its record. Work that was taken over ready-made (the cases of an earlier key) is not counted.
        """
        started = self.stages / f"{name}.started.json"
        before = _stage_of(started) if started.is_file() else {}
        spent = float(before.get("seconds", 0.0)) if before.get("key") == key else 0.0
        self.stage(name).unlink(missing_ok=True)
        record: dict[str, Any] = {}
        start = time.monotonic()

        def note() -> None:
            write_json(started, {"key": key, "seconds": spent + time.monotonic() - start})

        try:
            with _repeating(note):
                yield record
        except BaseException:
            with suppress(NeosegError):  # a full disk must not hide what ended the block
                note()
            raise
        write_json(self.stage(name), {"stage": name, "key": key, "seconds": spent + time.monotonic() - start, **record})
        started.unlink(missing_ok=True)

    def is_current(self, name: str, key: str) -> bool:
        """Tell whether a stage ended well with exactly these inputs."""
        record = self.stage_record(name)
        return record is not None and record.get("key") == key

    def fold_is_current(self, index: int, key: str) -> bool:
        """Tell whether a fold was trained to its end with exactly these inputs, and its weights are there."""
        record = self.fold_records().get(index)
        return record is not None and record["key"] == key and (self.fold(index) / "finished.json").is_file()


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
        self.notice = root / "notice.json"
        self.atlas = root / "atlas"

    def prepared(self, key: str) -> Path:
        """Folder of the cases that were prepared under a key."""
        return self.root / "prepared" / key

    def run(self, name: str) -> Run:
        """The folder of a named run."""
        return Run(self.root / "runs" / name)


def _stage_of(path: Path) -> dict[str, Any]:
    return read_record(path, "delete it, and the stage is done again where it has to be")


def _together(folds: Iterable[dict[str, Any]]) -> float:
    """Return the seconds of folds of which some may have been trained at the same time."""
    seconds, reached = 0.0, 0.0
    for record in sorted(folds, key=lambda record: record.get("span", [0.0])[0]):
        start, end = record.get("span", (0.0, 0.0))
        shared = max(0.0, min(end, reached) - start)
        seconds += max(0.0, record["seconds"] - shared)
        reached = max(reached, end)
    return seconds


def write_if_changed(path: Path, value: Any) -> None:
    """Write JSON unless the file holds just that, so that processes which share a file do not disturb each other."""
    with suppress(OSError, ValueError):
        # as text, since equal tables may have another order, which means something where classes are listed
        if json.dumps(read_json(path)) == json.dumps(value):
            return
    write_json(path, value)


@contextmanager
def _repeating(action: Callable[[], None]) -> Iterator[None]:
    """Do something every two seconds beside the block, from another thread."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(NOTED_EVERY_S):
            # A full or vanished disk ends the block itself, in its own words.
            with suppress(NeosegError):
                action()

    thread = threading.Thread(target=repeat, name="stage clock", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
