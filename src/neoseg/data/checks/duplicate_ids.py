"""Case names that occur twice."""

from __future__ import annotations

from collections import Counter

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["duplicate_ids"]


def duplicate_ids(data: DataFacts) -> list[Problem]:
    """Report names of more than one row, also when they differ only in upper and lower case."""
    counts = Counter(facts.case.case.lower() for facts in data.cases)
    spelled = {facts.case.case.lower(): facts.case.case for facts in data.cases}
    return [
        error(spelled[name], None, f"The case name occurs {count} times; every row needs its own (outputs carry it).")
        for name, count in counts.items()
        if count > 1
    ]
