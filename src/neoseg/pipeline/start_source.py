"""Where a training may start from: a finished run, or a folder of converted weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..atomic import read_json, read_record
from ..config import RunConfig
from ..data.store import file_digest
from ..errors import ConfigError, InputError, StateError
from ..plan.plan import Plan
from ..workspace import Run
from .made_with import config_of, plan_of
from .published_start import MODEL, Converted, read_converted

__all__ = ["WEIGHTS", "RunSource", "Trained", "read_fold_rows", "read_source", "trained_with"]

WEIGHTS = Path("best") / MODEL
"""Of a fold, in its folder."""

FOLDS = "folds.json"
"""In the folder of a run."""


@dataclass(frozen=True)
class RunSource:
    """A finished run to start from.

    Attributes:
        run: its folder.
        config, plan: what it was trained with.
        weights: hash by fold.
        cases: facts of its cases by name, as its manifest has them; empty when it has none.
    """

    run: Run
    config: RunConfig
    plan: Plan
    weights: dict[int, str]
    cases: dict[str, dict[str, Any]]


def read_source(folder: Path, own: Run) -> RunSource | Converted:
    """Read what a training starts from.

    Args:
        folder: of a run, or of converted weights.
        own: the run that is to start; it cannot start from itself.

    Raises:
        ConfigError: it is the run itself.
        StateError: the folder is neither, or is damaged.
        InputError: it is a file, or holds converted weights that cannot be read.
    """
    run = Run(folder)
    if folder.is_file():
        raise InputError(
            f"{folder}: this is a file, and a folder is wanted to start from; `neoseg weights convert {folder} FOLDER` "
            "makes one of a checkpoint of the authors' code, or give the folder of a run."
        )
    if (folder / "network.json").is_file():
        return read_converted(folder)
    if folder.resolve() == own.folder.resolve():
        raise ConfigError(f"{folder}: a run cannot start from its own weights; name another run.")
    finished = sorted(int(p.parent.name.removeprefix("fold")) for p in folder.glob("fold*/finished.json"))
    weights = {i: file_digest(run.fold(i) / WEIGHTS) for i in finished if (run.fold(i) / WEIGHTS).is_file()}
    if not weights or not run.config.is_file() or not run.plan.is_file():
        raise StateError(
            f"{folder}: this is neither the folder of a run with a finished fold nor one that `neoseg weights convert` "
            f"wrote, so there are no weights to start from; {run.instead}."
        )
    return RunSource(run, config_of(run), plan_of(run), weights, _cases_of(run))


@dataclass(frozen=True)
class Trained:
    """What weights have seen, those of the weights included that they started from, and so on.

    Attributes:
        names: cases.
        facts: of those whose run has a manifest.
        unknown: folders of weights among those whose cases nobody can tell.
    """

    names: frozenset[str]
    facts: tuple[dict[str, Any], ...]
    unknown: tuple[str, ...] = ()


def trained_with(run: Run, index: int, later: frozenset[Path] = frozenset()) -> Trained:
    """Return what the weights of a fold of a run were trained with.

    Args:
        run: the run.
        index: of its fold.
        later: folders of runs that started from these weights.

    Raises:
        StateError: a record of a run is damaged.
    """
    rows, names, facts = read_fold_rows(run), set[str](), list[dict[str, Any]]()
    if index < len(rows):
        names = {*rows[index]["train"], *rows[index]["inner"]}
        cases = _cases_of(run)
        facts = [cases[name] for name in sorted(names) if name in cases]
    own = Trained(frozenset(names), tuple(facts))
    begun = read_record(run.start, "restore it").get("folds", {}) if run.start.is_file() else {}
    if (before := begun.get(str(index))) is None:
        return own
    earlier, fold = Run(Path(before["source"])), before["fold"]
    later |= {run.folder}
    if fold is None or earlier.folder in later or not (earlier.folder / FOLDS).is_file():
        return replace(own, unknown=(str(earlier.folder),))
    first = trained_with(earlier, fold, later)
    return Trained(own.names | first.names, own.facts + first.facts, first.unknown)


def _cases_of(run: Run) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    if run.manifest.is_file():
        found = read_record(run.manifest, "train that run again").get("cases", {})
    return found


def read_fold_rows(run: Run) -> list[dict[str, list[str]]]:
    """Return the folds that a run was trained with, as its ``folds.json`` has them.

    Raises:
        StateError: the file is not there or is damaged.
    """
    path = run.folder / FOLDS
    try:
        rows = read_json(path)
        if not all(isinstance(row[side], list) for row in rows for side in ("train", "inner", "validation")):
            raise ValueError("a list of folds is wanted")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: the folds of this run cannot be read ({error}); restore the file.") from error
    return list(rows)
