"""What one sees of a training: a line of JSON an epoch and a picture of the curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..atomic import replacing

__all__ = ["draw_curves", "read_log", "write_log"]


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of ``log.jsonl``; none when the file is absent."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def write_log(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write all lines anew, so that a resumed training leaves no epoch twice."""
    with replacing(path) as temporary:
        lines = (json.dumps(line, allow_nan=False) for line in history)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def draw_curves(history: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the losses (left axis) and the validation Dice (right axis) over the epochs as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left = figure.add_subplot()
    right = left.twinx()
    curves = (
        (left, "loss", "training loss", "tab:blue", "-"),
        (left, "validation_loss", "validation loss", "tab:red", "-"),
        (right, "validation_dice", "validation Dice", "tab:green", ":"),
        (right, "smoothed_dice", "validation Dice, smoothed", "tab:green", "-"),
    )
    for axes, key, label, colour, style in curves:
        points = [(line["epoch"] + 1, line[key]) for line in history if line.get(key) is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=style, marker=".", label=label)
    left.set(xlabel="epoch", ylabel="loss", title=title)
    right.set(ylabel="Dice", ylim=(0, 1))
    lines = [*left.get_lines(), *right.get_lines()]
    if lines:
        left.legend(lines, [str(line.get_label()) for line in lines], loc="center right", fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
