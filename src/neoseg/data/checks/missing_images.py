"""Labels without an image."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["missing_images"]


def missing_images(data: DataFacts) -> list[Problem]:
    """Report cases without any image."""
    found = []
    for facts in data.cases:
        if not facts.case.images:
            what = "The label has no image" if facts.label else "The case has neither image nor label"
            found.append(error(facts.case.case, facts.case.label, f"{what}; add the image or remove the row."))
    return found
