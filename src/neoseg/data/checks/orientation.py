"""NIfTI headers whose two descriptions of the orientation disagree, or that have none."""

from __future__ import annotations

from ..headers import orientation_doubt
from .facts import DataFacts
from .problem import Problem, warning

__all__ = ["orientation"]


def orientation(data: DataFacts) -> list[Problem]:
    """Report images, labels and masks whose header leaves doubt about which way they lie."""
    found = []
    for facts in data.cases:
        for file in (*facts.images.values(), facts.label, facts.mask):
            doubt = orientation_doubt(file.grid) if file is not None and file.grid is not None else None
            if file is not None and doubt is not None:
                found.append(warning(facts.case.case, file.path, doubt))
    return found
