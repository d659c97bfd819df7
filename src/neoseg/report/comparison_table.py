"""A comparison of runs as tables for a terminal, Markdown, CSV, JSON, and a figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..atomic import read_record, replacing, write_json
from ..errors import InputError, StateError
from .charts import forest
from .compare import Standing
from .summary import Interval

__all__ = ["ENDINGS", "Comparison", "RunCost", "Table", "tables", "write_comparison"]

ENDINGS = (".csv", ".json", ".md", ".png")
"""Of the files that a comparison is written to."""


@dataclass(frozen=True)
class RunCost:
    """What a run took; None where it was never recorded.

    Attributes:
        kind: of the network, as in configuration files.
        title: of the network.
        parameters: trainable ones.
        multiply_adds: of one forward pass of one patch.
        patch: voxels on each axis.
        peak_gib: the most memory during the training of any fold: on a GPU what was allocated there, else what the
            process had resident.
        training_seconds: mean over the folds.
        prediction_seconds: median over the compared cases.
    """

    kind: str
    title: str
    parameters: int
    multiply_adds: int
    patch: tuple[int, ...]
    peak_gib: float | None
    training_seconds: float | None
    prediction_seconds: float | None


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other, the best one first.

    Attributes:
        metric: its key.
        title: its name on pages.
        unit: "" for ratios.
        better: "higher" or "lower".
        label: the class, or None for the mean over all.
        split: "cv" or "held_out".
        cases: that were compared.
        standings: best first.
        costs: in the same order.
        false_alarms: in the same order, empty cases with something predicted.
        empty_cases: shared cases without any voxel of the classes; only amounts have them among ``cases`` as well.
        folders: of the runs, in the same order.
        notes: sentences that belong to the numbers.
    """

    metric: str
    title: str
    unit: str
    better: str
    label: str | None
    split: str
    cases: tuple[str, ...]
    standings: tuple[Standing, ...]
    costs: tuple[RunCost, ...]
    false_alarms: tuple[int, ...]
    empty_cases: tuple[str, ...]
    folders: tuple[Path, ...]
    notes: tuple[str, ...]

    @property
    def heading(self) -> str:
        """What is compared, in words."""
        what = self.title if self.label is None else f"{self.title} of {self.label}"
        unit = f" ({self.unit})" if self.unit else ""
        part = "held-out" if self.split == "held_out" else "cross-validated"
        cases = "case" if len(self.cases) == 1 else "cases"
        return f"{what}{unit}, {self.better} is better, on {len(self.cases)} {part} {cases}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what is not known is null."""
        return {
            "metric": self.metric,
            "title": self.title,
            "unit": self.unit,
            "better": self.better,
            "label": self.label,
            "split": self.split,
            "cases": list(self.cases),
            "empty_cases": list(self.empty_cases),
            "runs": [
                {
                    **standing.to_json(),
                    "folder": str(folder),
                    "false_alarms": alarms,
                    **{key: list(v) if isinstance(v, tuple) else v for key, v in asdict(cost).items()},
                }
                for standing, cost, alarms, folder in zip(
                    self.standings, self.costs, self.false_alarms, self.folders, strict=True
                )
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Table:
    """Cells as text; the first column names the run.

    Attributes:
        columns: headings.
        rows: cells, as many as columns each.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(comparison: Comparison) -> tuple[Table, Table]:
    """Return the scores and the costs."""
    n = len(comparison.cases)
    digits = 3 if comparison.unit == "" else 2
    scores: list[tuple[str, ...]] = []
    for standing, alarms in zip(comparison.standings, comparison.false_alarms, strict=True):
        summary, gap = standing.summary, standing.difference
        cells = [
            standing.name,
            str(n) if not summary.n_undefined else f"{n} ({summary.n_undefined} undefined)",
            _with_interval(summary.mean, summary.interval, digits),
            _with_interval(summary.mean_worst, None, digits),
            "best" if gap is None else _with_interval(gap.mean, gap.interval, digits, signed=True),
            "-" if standing.p is None else _chance(standing.p),
            "-" if standing.p_holm is None else _chance(standing.p_holm),
        ]
        if comparison.empty_cases:
            cells.append(f"{alarms} of {len(comparison.empty_cases)}")
        scores.append(tuple(cells))
    columns = ["run", "cases", "mean (95 % interval)", "with worst value", "minus best", "p", "p (Holm)"]
    columns += ["false alarms"] if comparison.empty_cases else []
    costs = tuple(
        (
            standing.name,
            cost.title,
            _large(cost.parameters),
            _large(cost.multiply_adds),
            "×".join(map(str, cost.patch)),
            _number(cost.peak_gib, " GiB", 2),
            _number(cost.training_seconds, " s", 0 if (cost.training_seconds or 0) >= 100 else 1),
            _number(cost.prediction_seconds, " s", 2),
        )
        for standing, cost in zip(comparison.standings, comparison.costs, strict=True)
    )
    return (
        Table(tuple(columns), tuple(scores)),
        Table(
            (
                "run", "network", "parameters", "multiply-adds a patch", "patch", "peak memory", "training a fold",
                "prediction a case",
            ),
            costs,
        ),
    )  # fmt: skip


def write_comparison(comparison: Comparison, base: Path) -> list[Path]:
    """Write ``base`` with the endings .csv, .json, .md and .png, each file whole or not at all, and return them.

    Raises:
        InputError: files of these names are there that no comparison wrote.
        InputError, MachineError: a file cannot be written.
    """
    files = {ending: base.with_name(base.name + ending) for ending in ENDINGS}
    there = [path for path in files.values() if path.exists()]
    if there and not _holds_comparison(files[".json"]):
        raise InputError(
            f"{there[0]}: this file is there already, and {files['.json'].name} beside it is no comparison that could "
            "be replaced; choose another name, or remove it."
        )
    with replacing(files[".csv"]) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        found = comparison.to_json()
        about = {key: found[key] for key in ("metric", "unit", "better", "label", "split")}
        rows = [_flat(run) | about | {"metric_title": found["title"]} for run in found["runs"]]
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    write_json(files[".json"], comparison.to_json())
    with replacing(files[".md"]) as temporary:
        temporary.write_text(_markdown(comparison), encoding="utf-8")
    with replacing(files[".png"]) as temporary:
        temporary.write_bytes(forest(comparison.standings, _axis_of(comparison), comparison.heading))
    return list(files.values())


def _holds_comparison(path: Path) -> bool:
    try:
        return {"metric", "split", "better", "runs"} <= set(read_record(path, ""))
    except StateError:
        return False


def _axis_of(comparison: Comparison) -> str:
    what = comparison.title if comparison.label is None else f"{comparison.title} of {comparison.label}"
    return f"{what} ({comparison.unit})" if comparison.unit else what


def _markdown(comparison: Comparison) -> str:
    lines = [f"# {comparison.heading}", ""]
    for table in tables(comparison):
        lines += [_line(table.columns), _line(["---"] * len(table.columns)), *map(_line, table.rows), ""]
    return "\n".join([*lines, *(f"- {note}" for note in comparison.notes)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _flat(run: dict[str, Any]) -> dict[str, Any]:
    """Return one line of the CSV: intervals as two columns, sizes joined, nothing where nothing is known."""
    line: dict[str, Any] = {}
    for key, value in run.items():
        if key == "minus_best":
            gap = value or {"mean": None, "interval": None}
            line["minus_best"] = gap["mean"]
            line["minus_best_low"], line["minus_best_high"] = gap["interval"] or (None, None)
        elif key.startswith("interval"):
            name = key.replace("interval", "mean")
            line[f"{name}_low"], line[f"{name}_high"] = value or (None, None)
        else:
            line[key] = "x".join(map(str, value)) if isinstance(value, list) else value
    return line


def _with_interval(mean: float | None, interval: Interval | None, digits: int, *, signed: bool = False) -> str:
    if mean is None:
        return "-"
    sign = "+" if signed else ""
    told = f"{mean:{sign}.{digits}f}"
    return told if interval is None else f"{told} ({interval[0]:{sign}.{digits}f} to {interval[1]:{sign}.{digits}f})"


def _chance(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _large(count: int) -> str:
    """Return a count in three digits with k, M, G or T."""
    power = min(4, max(0, (len(f"{float(f'{count:.2e}'):.0f}") - 1) // 3))
    return f"{float(f'{count / 1000**power:.3g}'):g} {' kMGT'[power]}".strip()


def _number(value: float | None, unit: str, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}{unit}"
