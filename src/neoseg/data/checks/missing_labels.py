"""Images without a label."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["missing_labels"]


def missing_labels(data: DataFacts) -> list[Problem]:
    """Report patients without a label: they can be predicted, but neither trained on nor scored."""
    found = []
    for facts in data.cases:
        if facts.case.group == "patient" and facts.case.label is None and facts.case.images:
            use = "scored" if facts.case.split == "test" else "trained on"
            first = next(iter(facts.case.images.values()))
            sentence = f"The image has no label, so it cannot be {use}; add the label or remove the row."
            found.append(error(facts.case.case, first, sentence))
    return found
