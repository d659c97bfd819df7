"""Images in which a few voxels lie far from all others."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, warning

__all__ = ["extreme_values"]


def extreme_values(data: DataFacts) -> list[Problem]:
    """Report images whose standard deviation is made by a few voxels: normalised by it, the rest loses its contrast."""
    return [
        warning(
            facts.case.case,
            file.path,
            f"Of what is not 0, {file.extreme}; look whether they are meant.",
        )
        for facts in data.cases
        for file in facts.images.values()
        if file.extreme
    ]
