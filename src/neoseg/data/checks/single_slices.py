"""Training cases that have no extent along an axis."""

from __future__ import annotations

from ..field_of_view import too_thin
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["single_slices"]


def single_slices(data: DataFacts) -> list[Problem]:
    """Report that all labelled training cases are single slices, or pictures of one row or column of pixels."""
    training = [f for f in data.cases if f.case.group == "patient" and f.case.split == "train" and f.label is not None]
    shapes = [file.grid.shape for facts in training for file in facts.images.values() if file.grid is not None]
    if not shapes or len({len(shape) for shape in shapes}) > 1:
        return []
    told = too_thin([max(sizes) for sizes in zip(*shapes, strict=True)])
    return [error("", None, told)] if told else []
