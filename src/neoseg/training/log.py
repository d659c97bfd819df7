"""What one sees of a training: a line of JSON an epoch and a picture of the curves."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..atomic import replacing
from ..errors import StateError
from .checkpoint import TrainingState
from .validation import Validation

__all__ = ["Curves", "draw_curves", "epoch_line", "picture_seconds", "read_log", "rounded", "write_log"]

PICTURE_SHARE = 0.05
"""Pictures of the curves take at most this share of a training's time, the first and the last apart."""


class Curves:
    """The picture of the curves of a fold, which grows with it."""

    def __init__(self, path: Path, title: str) -> None:
        """Draw to a path, with a title above."""
        self.path, self.title, self.due = path, title, 0.0

    def draw(self, history: Sequence[dict[str, Any]], *, last: bool = False) -> None:
        """Draw the curves, unless the last picture is too young for what a picture costs."""
        start = time.perf_counter()
        if start < self.due and not last:
            return
        draw_curves(history, self.path, self.title)
        end = time.perf_counter()
        self.due = end + (end - start) / PICTURE_SHARE


def picture_seconds(path: Path) -> float:
    """Return the seconds that a picture takes once the library that draws it is loaded, by drawing one to a path."""
    keys = ("loss", "validation_loss", "validation_dice", "smoothed_dice")
    history = [{"epoch": epoch, **dict.fromkeys(keys, 0.5)} for epoch in range(2)]
    start = 0.0
    for _ in range(2):
        start = time.perf_counter()
        draw_curves(history, path, "")
    return time.perf_counter() - start


def epoch_line(state: TrainingState, scores: Validation | None, rate: float, *, smoothed: bool) -> dict[str, Any]:
    """Return what ``log.jsonl`` says about the epoch that ends.

    Args:
        state: with the steps of the epoch counted.
        scores: of its validation, if there was one.
        rate: learning rate of the last step.
        smoothed: whether the smoothed Dice is of this epoch.
    """
    return {
        "epoch": state.epoch,
        "step": state.step,
        "loss": state.epoch_loss / state.epoch_good if state.epoch_good else None,
        "validation_dice": scores and scores.dice,
        "smoothed_dice": state.smoothed if smoothed else None,
        "validation_loss": scores.loss if scores and math.isfinite(scores.loss) else None,
        "false_positive_voxels": scores and scores.false_positive_voxels,
        "learning_rate": rate,
        "undone_steps": state.guard.undone,
        "step_seconds": state.epoch_seconds,
        "wait_seconds": state.epoch_waited,
    }


def rounded(line: dict[str, Any]) -> dict[str, Any]:
    """Return the line with times and memory to three digits after the point."""
    measured = ("step_seconds", "wait_seconds", "seconds", "peak_gib")
    return {key: round(value, 3) if key in measured and value is not None else value for key, value in line.items()}


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the lines of ``log.jsonl``; none when the file is absent.

    Raises:
        StateError: it is damaged.
    """
    if not path.exists():
        return []
    try:
        return [dict(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (OSError, ValueError, TypeError) as error:
        raise StateError(f"{path}: this log is damaged ({error}); delete it, and the curves begin anew.") from error


def write_log(path: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write all lines anew, so that a resumed training leaves no epoch twice."""
    with replacing(path) as temporary:
        lines = (json.dumps(line, allow_nan=False) for line in history)
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def draw_curves(history: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Draw the losses (left axis) and the validation Dice (right axis) over the epochs as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.09, right=0.91, bottom=0.19, top=0.93)
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
        labels = [str(line.get_label()) for line in lines]
        figure.legend(lines, labels, loc="lower center", ncols=len(lines), fontsize="small", frameon=False)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
