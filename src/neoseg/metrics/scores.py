"""Rows of scores and their file, scores.csv: one row for a case, a label and a metric."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..atomic import replacing
from ..errors import InputError

__all__ = ["Score", "read_scores", "write_scores"]


@dataclass(frozen=True, slots=True)
class Score:
    """One number of one case.

    Attributes:
        case: name of the case.
        label: name of the class or region that was scored.
        metric: name of the metric.
        value: in the unit; nan where the metric is undefined.
        unit: "ratio", "mm", "mL" or "count"; of a plane "px" and "mm²" or "px²" too.
    """

    case: str
    label: str
    metric: str
    value: float
    unit: str


_COLUMNS = [field.name for field in fields(Score)]


def write_scores(rows: Iterable[Score], path: Path) -> None:
    """Write scores as CSV; values with all their digits, undefined ones as nan."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({**asdict(row), "value": repr(float(row.value))} for row in rows)


def read_scores(path: Path) -> list[Score]:
    """Read scores that :func:`write_scores` wrote.

    Raises:
        InputError: the file is absent, its columns are others, or a value is not a number.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the scores cannot be read ({error}); run the evaluation again.") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if list(reader.fieldnames or []) != _COLUMNS:
        raise InputError(f"{path}: the columns are {reader.fieldnames}, but {_COLUMNS} are wanted.")
    rows: list[Score] = []
    for record in reader:
        fields_given = list(record.values())
        try:
            if len(fields_given) != len(_COLUMNS) or None in fields_given:
                raise ValueError(f"{_COLUMNS} are wanted")
            value = float(record["value"])
        except ValueError as error:
            raise InputError(
                f"{path}, line {reader.line_num}: {fields_given} is no score ({error}); correct the line or run the "
                "evaluation again."
            ) from error
        rows.append(Score(record["case"], record["label"], record["metric"], value, record["unit"]))
    return rows
