"""Where a training may start from: a finished run, or a folder of converted weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import read_json, read_record
from ..config import RunConfig
from ..data.folds import Fold
from ..data.store import file_digest
from ..errors import ConfigError, InputError, StateError
from ..plan.plan import Plan
from ..workspace import Run
from .made_with import config_of, plan_of
from .published_start import MODEL, Converted, read_converted

__all__ = ["WEIGHTS", "RunSource", "read_fold_rows", "read_source"]

WEIGHTS = Path("best") / MODEL
"""Of a fold, in its folder."""


@dataclass(frozen=True)
class RunSource:
    """A finished run to start from.

    Attributes:
        run: its folder.
        config, plan: what it was trained with.
        weights: hash by fold.
        folds: who was in which fold.
        cases: facts of its cases by name, as its manifest has them; empty when it has none.
    """

    run: Run
    config: RunConfig
    plan: Plan
    weights: dict[int, str]
    folds: list[Fold]
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
    folds = [Fold(*(tuple(row[side]) for side in ("train", "inner", "validation"))) for row in read_fold_rows(run)]
    cases = read_record(run.manifest, "train that run again").get("cases", {}) if run.manifest.is_file() else {}
    return RunSource(run, config_of(run), plan_of(run), weights, folds, cases)


def read_fold_rows(run: Run) -> list[dict[str, list[str]]]:
    """Return the folds that a run was trained with, as its ``folds.json`` has them.

    Raises:
        StateError: the file is not there or is damaged.
    """
    path = run.folder / "folds.json"
    try:
        rows = read_json(path)
        if not all(isinstance(row[side], list) for row in rows for side in ("train", "inner", "validation")):
            raise ValueError("a list of folds is wanted")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: the folds of this run cannot be read ({error}); restore the file.") from error
    return list(rows)
