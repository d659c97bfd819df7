"""Two runs side by side: their surroundings, weights, masks and scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import read_json
from ..data.store import file_digest
from ..io import read_label, strip_ending
from ..volume import same_grid
from ..wording import counted
from ..workspace import Run
from .evaluate import read_rows
from .session import CV, HELD_OUT

__all__ = ["Compared", "compare_runs", "surroundings"]

KEPT = {"best": "best epoch", "last": "last step"}
PARTS = {CV: "cross-validation", HELD_OUT: "held-out cases"}


@dataclass(frozen=True)
class Compared:
    """One row of the table.

    Attributes:
        what: was compared.
        same: whether it is the same.
        told: hashes or counts when it is, by how much it differs when it is not.
    """

    what: str
    same: bool
    told: str


def surroundings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[Compared]:
    """Compare two ``environment.json``: one row for each version and piece of hardware."""
    before, after = ({**e, **e.get("packages", {})} for e in (then, now))
    names = [name for name in dict.fromkeys((*before, *after)) if name != "packages"]
    rows = []
    for name in names:
        old, new = before.get(name), after.get(name)
        told = f"{old}" if old == new else f"{'not known' if old is None else old} then, {new} now"
        rows.append(Compared(name, old == new, told))
    return rows


def compare_runs(first: Run, second: Run) -> list[Compared]:
    """Compare what two runs have made: weights, post-processing, masks, scores; only what the first one has.

    Raises:
        InputError, StateError: a file of either cannot be read.
    """
    folds = sorted(int(p.parent.name.removeprefix("fold")) for p in first.folder.glob("fold*/finished.json"))
    rows = [
        _weights(f"weights of fold {i}, {told}", first.fold(i) / name, second.fold(i) / name)
        for i in folds
        for name, told in KEPT.items()
    ]
    if first.postprocess.is_file():
        told = [read_json(r.postprocess) if r.postprocess.is_file() else "none" for r in (first, second)]
        rows.append(Compared("post-processing", told[0] == told[1], _both(*map(_short, told))))
    for split, title in PARTS.items():
        masks = sorted(
            p
            for p in first.predictions(split).glob("*")
            if p.is_file() and strip_ending(p.name) and not p.name.startswith(".")
        )
        if masks:
            rows.append(_masks(f"masks, {title}", masks, second.predictions(split)))
    if first.scores.is_file():
        rows.append(_scores(first.scores, second.scores))
    return rows


def _weights(what: str, first: Path, second: Path) -> Compared:
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    files = [folder / "model.safetensors" for folder in (first, second)]
    if not all(file.is_file() for file in files):
        return Compared(what, False, f"missing: {next(file for file in files if not file.is_file())}")
    old, new = map(file_digest, files)
    if old == new:
        return Compared(what, True, old)
    try:
        before, after = map(load_file, files)
    except SafetensorError as error:
        return Compared(what, False, f"{old} then, {new} now; one cannot be read ({error})")
    if {n: t.shape for n, t in before.items()} != {n: t.shape for n, t in after.items()}:
        return Compared(what, False, f"{old} then, {new} now; other tensors")
    largest = np.max([np.abs(after[n].astype(np.float64) - t.astype(np.float64)).max() for n, t in before.items()])
    return Compared(what, False, f"{old} then, {new} now; values differ by up to {largest:.3g}")


def _masks(what: str, masks: Sequence[Path], others: Path) -> Compared:
    different: list[str] = []
    voxels = total = 0
    for path in masks:
        other = others / path.name
        if not other.is_file():
            different.append(f"{path.name} is missing")
            continue
        first, second = read_label(path), read_label(other)
        if not same_grid(first.grid, second.grid) or first.array.shape != second.array.shape:
            different.append(f"{path.name} has another grid")
            continue
        count = int(np.count_nonzero(first.array != second.array))
        voxels, total = voxels + count, total + int(np.count_nonzero((first.array > 0) | (second.array > 0)))
        if count:
            different.append(path.name)
    if not different:
        return Compared(what, True, counted(len(masks), "mask"))
    more = f" and {len(different) - 3} more" if len(different) > 3 else ""
    return Compared(
        what,
        False,
        f"{len(different)} of {counted(len(masks), 'mask')} differ, in {voxels} of {counted(total, 'voxel')} that "
        f"one of both marks: {', '.join(different[:3])}{more}",
    )


def _scores(first: Path, second: Path) -> Compared:
    if not second.is_file():
        return Compared("scores", False, f"missing: {second}")
    old, new = (
        {(r.split, r.method, r.case, r.label, r.metric): (r.value, r.worst) for r in read_rows(p)}
        for p in (first, second)
    )
    different = [key for key, row in old.items() if key not in new or not np.array_equal(row, new[key], equal_nan=True)]
    different += [key for key in new if key not in old]
    if not different:
        return Compared("scores", True, f"{len(old)} values")
    gaps = {k: abs(new[k][0] - old[k][0]) for k in different if k in old and k in new}
    worst = max((k for k in gaps if math.isfinite(gaps[k])), key=lambda k: gaps[k], default=None)
    told = f"; at most by {gaps[worst]:.3g} ({worst[4]} of {worst[2]}, {worst[1]})" if worst else ""
    return Compared("scores", False, f"{len(different)} of {len(old)} values differ{told}")


def _short(value: Any) -> str:
    if not isinstance(value, dict):
        return "none" if value is None else str(value)
    return ", ".join(f"{key} {number}" for key, number in value.items())


def _both(first: str, second: str) -> str:
    return first if first == second else f"{first} then, {second} now"
