"""A run made once more from its own records, and compared with what it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..atomic import read_json, read_record, write_json
from ..data.store import digest
from ..errors import InputError, StateError
from ..plan.plan import write_plan
from ..progress import Progress, Silent
from ..workspace import Run
from .comparison import Compared, compare_runs, surroundings
from .devices import resolved_device
from .environment import environment
from .fine_tune import fold_starts
from .made_with import plan_of
from .manifest import given_config, manifest_of, read_manifest
from .report import notice_in
from .run import run_stage, scores_are_of_predictions, weights_of
from .session import Session, open_session
from .start_source import read_fold_rows

__all__ = ["Reproduction", "reproduce"]

RECORD = "reproduction.json"


@dataclass(frozen=True)
class Reproduction:
    """What came of it.

    Attributes:
        folder: of the new run.
        results: what was made, compared; the run is reproduced when all of it is the same.
        surroundings: versions and hardware, compared; they explain, and are not counted.
        notes: sentences on how the new run was made.
    """

    folder: Path
    results: tuple[Compared, ...]
    surroundings: tuple[Compared, ...]
    notes: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether all results are the same."""
        return all(row.same for row in self.results)


def reproduce(
    folder: Path, output: Path | None = None, *, device: str | None = None, progress: Progress | None = None
) -> Reproduction:
    """Run the configuration of a finished run again, on the same files, into a new workspace, and compare.

    The settings, the plan, the folds, the lengths of all segments of the training and the number of threads are those
    of the run, not those of its configuration file or workspace of now. Called again after an interruption it goes on.

    Args:
        folder: a finished run.
        output: new workspace; by default ``reproduced-<name>`` in the workspace of the run.
        device: see the configuration; by default a CPU for what was trained on one, else the configured device.
        progress: the listener.

    Raises:
        StateError: the run is not finished, has no manifest, or its folds have different histories.
        InputError: the cases are not those of then (those that changed are named), or the output is not empty.
        ConfigError, NeosegError: see the stages.
    """
    import torch

    run, heard = Run(folder), progress or Silent()
    lengths = _lengths(run)
    manifest, then = read_manifest(run), read_record(run.environment, "only whole runs can be reproduced")
    place = (output or _default_output(run)).absolute()
    records = run.fold_records()
    threads = sorted({int(r["threads"]) for r in records.values() if "threads" in r}) or [int(then["threads"])]
    devices = {record["summary"]["device"] for record in records.values()}
    config = given_config(run)
    if device is None:
        device = "cpu" if devices == {"cpu"} else config.device
    resolved_device(device)  # before anything is written
    config = config.model_copy(update={"workspace": place, "threads": threads[-1], "device": device})
    session = open_session(config, heard)
    _require_same_data(run, manifest, manifest_of(session))
    _claim(place, run, manifest)
    notes = [f"Folds were trained on {' and '.join(map(str, threads))} threads."] if len(threads) > 1 else []
    before = torch.get_num_threads()
    torch.set_num_threads(int(then["threads"]))
    try:
        run_stage(session, "check")
        notes += _plan_as_then(session, run)
        _require_same_start(session, run)
        run_stage(session, "prepare")
        for count, length in enumerate(lengths, start=1):
            session = _with_length(session, length)
            if folds := [i for i in run.fold_records() if not _has_segments(session.run, i, count)]:
                _train_segment(session, run, folds, count)
        for stage in ("predict", "evaluate", "report"):
            if run.stage_record(stage) is not None:
                run_stage(session, stage, notice=notice_in(run.notice))
        now = environment()
    finally:
        torch.set_num_threads(before)
    if any(d != "cpu" for d in devices | {r["summary"]["device"] for r in session.run.fold_records().values()}):
        notes.append(
            "One of both was trained on a GPU, where some kernels add in changing order: the same bits are promised "
            "for CPUs only."
        )
    result = Reproduction(
        session.run.folder, tuple(compare_runs(run, session.run)), tuple(surroundings(then, now)), tuple(notes)
    )
    write_json(place / RECORD, _stamp(run, manifest) | _as_json(result))
    return result


def _lengths(run: Run) -> list[dict[str, Any]]:
    """Return the lengths of the segments that all folds of a finished run were trained in.

    Raises:
        StateError: a fold is not finished, a later stage is out of date, or the folds were trained in different
            segments.
    """
    if not run.config.is_file() or not run.plan.is_file() or not (run.folder / "folds.json").is_file():
        raise StateError(f"{run.folder}: this is not the folder of a run; {run.instead}.")
    folds = len(read_fold_rows(run))
    for index in range(folds):
        if not (run.fold(index) / "finished.json").is_file() or index not in run.fold_records():
            raise StateError(f"{run.fold(index)}: this fold is not trained to its end; finish the run first.")
    for stage in ("predict", "evaluate"):
        record = run.stage_record(stage)
        if record is not None and record.get("weights") != weights_of(run):
            raise StateError(
                f"{run.folder}: it was trained on after its stage {stage!r} was done; bring it up to date with "
                "`neoseg run` first."
            )
    if run.stage_record("evaluate") is not None and not scores_are_of_predictions(run):
        raise StateError(
            f"{run.folder}: its scores are older than its predictions; bring it up to date with `neoseg run` first."
        )
    found = [[segment["length"] for segment in _segments(run, index)] for index in range(folds)]
    if any(lengths != found[0] for lengths in found):
        raise StateError(
            f"{run.folder}: its folds were trained in different lengths, which one command cannot repeat; make them "
            "alike with `neoseg train` first."
        )
    return found[0]


def _segments(run: Run, index: int) -> list[dict[str, Any]]:
    path = run.fold(index) / "training.json"
    return list(read_record(path, "train this fold again")["segments"]) if path.is_file() else []


def _has_segments(run: Run, index: int, count: int) -> bool:
    """Tell whether a fold has been trained through so many segments."""
    done = len(_segments(run, index))
    return done > count or (done == count and (run.fold(index) / "finished.json").is_file())


def _with_length(session: Session, length: dict[str, Any]) -> Session:
    training = session.config.training.model_copy(update=length)
    return open_session(session.config.model_copy(update={"training": training}), session.progress)


def _train_segment(session: Session, then: Run, folds: Sequence[int], count: int) -> None:
    """Train some folds through one segment; the steps that a time budget gave are those of then."""
    from ..training.segments import stored_segments, write_segments

    if session.config.training.time_budget_s is not None:
        if then.start.is_file() and not session.run.start.is_file():
            # a fold that has begun has to say what from
            write_json(session.run.start, read_json(then.start))
        for index in folds:
            fold = session.run.fold(index)
            if len(_segments(session.run, index)) < count:
                write_segments(fold, stored_segments(then.fold(index))[0][:count], None)
                (fold / "finished.json").unlink(missing_ok=True)
    run_stage(session, "train", folds=folds)


def _require_same_data(run: Run, then: dict[str, Any], now: dict[str, Any]) -> None:
    """Name what differs in the table of cases and in the files.

    Raises:
        InputError: something does.
    """
    found = list(_changed(then["cases"], now["cases"]))
    if then.get("template") != now["template"]:
        found.append("the template or atlas that the configuration names has changed")
    if found:
        more = f" and {len(found) - 8} more" if len(found) > 8 else ""
        raise InputError(
            f"{run.folder}: the cases are not those that this run was made from: {'; '.join(found[:8])}{more}; restore "
            "the files of then."
        )


def _changed(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    for name in [*then, *(name for name in now if name not in then)]:
        if name not in now:
            yield f"{name} is no longer in the table"
        elif name not in then:
            yield f"{name} is new in the table"
        else:
            old, new = then[name], now[name]
            files = [f for f in {**old["files"], **new["files"]} if old["files"].get(f) != new["files"].get(f)]
            yield from (f"the {file} file of {name} has changed" for file in files)
            moved = [key for key in old if key != "files" and old[key] != new.get(key)]
            if moved:
                yield f"{name} has another {' and '.join(moved)} in the table"


def _default_output(run: Run) -> Path:
    name = f"reproduced-{run.folder.resolve().name}"
    parent = run.folder.resolve().parent
    return parent.parent / name if parent.name == "runs" else parent / name


def _stamp(run: Run, manifest: dict[str, Any]) -> dict[str, Any]:
    return {"of": str(run.folder.resolve()), "manifest": digest(manifest)}


def _claim(place: Path, run: Run, manifest: dict[str, Any]) -> None:
    """Mark the output as the reproduction of a run.

    Raises:
        InputError: it holds something else.
    """
    stamp = _stamp(run, manifest)
    if (place / RECORD).is_file():
        there = read_record(place / RECORD, "give another --output")
        if any(there.get(key) != value for key, value in stamp.items()):
            raise InputError(f"{place}: this folder holds the reproduction of another run; give another --output.")
        return
    if place.is_file() or (place.is_dir() and any(place.iterdir())):
        raise InputError(f"{place}: this is not an empty folder; give a new one with --output.")
    write_json(place / RECORD, stamp)


def _plan_as_then(session: Session, run: Run) -> list[str]:
    """Plan, then put the plan and the folds of the run in the place of those made now; say where they differ."""
    run_stage(session, "plan")
    workspace, notes = session.workspace, []
    then, now = plan_of(run), session.plan
    if then.decisions() != now.decisions():
        notes.append("The plan is that of the run; planned anew it would be another: it was edited, or code differs.")
        write_plan(then.model_copy(update={"inputs": now.inputs}), workspace.plan)
    rows, made = read_fold_rows(run), read_json(workspace.folds)
    if rows != made["folds"]:
        notes.append("The folds are those of the run; made anew they would be others.")
        write_json(workspace.folds, {**made, "folds": rows})
    return notes


def _require_same_start(session: Session, run: Run) -> None:
    """Refuse other weights to start from.

    Raises:
        InputError: the other run's weights have changed.
    """
    if session.config.init_from is None:
        return
    then = read_record(run.start, "only whole runs can be reproduced")["folds"]
    for index, start in fold_starts(session).items():
        if then[str(index)]["weights"] != start.weights:
            raise InputError(
                f"{session.config.init_from}: fold {index} of {run.folder} was started from the weights "
                f"{then[str(index)]['weights']}, but here they are {start.weights}; restore those of then."
            )


def _as_json(result: Reproduction) -> dict[str, Any]:
    return {
        "folder": str(result.folder),
        "same": result.same,
        "results": [asdict(row) for row in result.results],
        "surroundings": [asdict(row) for row in result.surroundings],
        "notes": list(result.notes),
    }
