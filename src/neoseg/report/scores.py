"""From the scores of the metrics room to the lines and notes that a report shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ..metrics.scores import Score
from ..metrics.table import Metric, metric_named, worst_value
from .content import MetricNote, ScoreLine, ScoreRow
from .summary import summarise

__all__ = ["metric_notes", "metric_title", "score_lines", "score_row"]

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "hd95": "HD95",
    "masd": "MASD",
    "assd": "ASSD",
    "nsd": "NSD",
    "lesion_f1": "lesion F1",
}
_WORST = {"mm": "diagonal of the image", "mL": "volume of the image", "count": "as many lesions as fit into the image"}
_USUAL_TOLERANCE = "2 mm unless stated"
"""What the text of NSD says of its tolerance."""


def metric_title(name: str) -> str:
    """Return how a metric is called on the page: "Dice", "lesion sensitivity"."""
    return _TITLES.get(name, name.replace("_", " "))


def score_row(score: Score, shape: Sequence[int], spacing_mm: Sequence[float]) -> ScoreRow:
    """Join a score with its metric's direction and its worst value on this image.

    Args:
        score: one number of one case.
        shape: spatial shape of the case's image in voxels.
        spacing_mm: its voxel spacing.

    Raises:
        ConfigError: the metric is unknown.
    """
    metric = metric_named(score.metric)
    return ScoreRow(
        case=score.case,
        label=score.label,
        metric=metric_title(metric.name),
        value=score.value if math.isfinite(score.value) else None,
        worst=worst_value(metric, shape, spacing_mm),
        unit="" if metric.unit == "ratio" else metric.unit,
        better=metric.direction,
    )


def score_lines(
    rows: Sequence[ScoreRow],
    *,
    generator: np.random.Generator,
    resamples: int = 2000,
    subjects: Mapping[str, str] | None = None,
) -> tuple[ScoreLine, ...]:
    """Summarise scores into one line for each metric and class, in order of first appearance.

    Args:
        rows: the scores.
        generator: draws the bootstrap.
        resamples: bootstrap resamples.
        subjects: case to subject; None where each case is of a subject of its own.
    """
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault((row.metric, row.label), []).append(row)
    return tuple(
        ScoreLine(
            metric=metric,
            label=label,
            unit=group[0].unit,
            better=group[0].better,
            summary=summarise(
                [row.value for row in group],
                [row.worst for row in group],
                generator=generator,
                resamples=resamples,
                subjects=None if subjects is None else [subjects[row.case] for row in group],
            ),
        )
        for (metric, label), group in groups.items()
    )


def metric_notes(
    names: Sequence[str], *, length_unit: str = "mm", size_unit: str = "mL", tolerance: float | None = None
) -> tuple[MetricNote, ...]:
    """Explain metrics by name, with their rules for empty masks and the worst value put in where they are undefined.

    Args:
        names: of the metrics.
        length_unit: what distances are told in: "px" where nobody knows how large a pixel is.
        size_unit: what amounts are told in: of planes "mm²" or "px²".
        tolerance: of NSD in ``length_unit``, that the scores were made with; by default the usual one is told.

    Raises:
        ConfigError: a metric is unknown.
    """
    units = {"mm": length_unit, "mL": size_unit, "ratio": ""}
    return tuple(_note(metric_named(name), units, tolerance) for name in names)


def _note(metric: Metric, units: Mapping[str, str], tolerance: float | None) -> MetricNote:
    rules = (
        ("Both empty", metric.empty.both),
        ("only the truth empty", metric.empty.truth),
        ("only the prediction empty", metric.empty.prediction),
    )
    told = [f"{name}: {_rule(value)}" for name, value in rules if value is not None]
    worst = (
        _WORST[metric.unit].replace("volume", "volume" if units["mL"] == "mL" else "area")
        if metric.unit in _WORST
        else f"{metric.worst((1, 1, 1), (1.0, 1.0, 1.0)):g}"
    )
    text = metric.text
    if tolerance is not None:
        text = text.replace(_USUAL_TOLERANCE, f"{tolerance:g} {units['mm']}")
    return MetricNote(
        name=metric_title(metric.name),
        unit=units.get(metric.unit, metric.unit),
        better=metric.direction,
        definition=f"{text}.".replace(" mm ", f" {units['mm']} "),
        empty=f"{'; '.join(told)}.",
        worst=worst,
    )


def _rule(value: float) -> str:
    return f"{value:g}" if math.isfinite(value) else "undefined"
