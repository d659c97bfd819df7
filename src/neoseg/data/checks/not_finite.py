"""NaN and infinity in images."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["not_finite"]


def not_finite(data: DataFacts) -> list[Problem]:
    """Report images with voxels that are not numbers; for labels the values are reported as undeclared."""
    found = []
    for facts in data.cases:
        for file in facts.images.values():
            if file.nan or file.infinite:
                sentence = (
                    f"{file.nan} voxels are NaN and {file.infinite} are infinite or beyond 3.4e38; set them to a "
                    "number first."
                )
                found.append(error(facts.case.case, file.path, sentence))
    return found
