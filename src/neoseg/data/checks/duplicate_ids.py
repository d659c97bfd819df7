"""Case names that occur twice."""

from __future__ import annotations

from collections import defaultdict

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["duplicate_ids"]


def duplicate_ids(data: DataFacts) -> list[Problem]:
    """Report names of more than one row, also when they differ only in upper and lower case."""
    spelled: dict[str, list[str]] = defaultdict(list)
    for facts in data.cases:
        spelled[facts.case.case.lower()].append(facts.case.case)
    return [
        error(
            ", ".join(dict.fromkeys(names)),
            None,
            f"The case name occurs {len(names)} times; every row needs its own (outputs carry it)"
            + ("." if len(set(names)) == 1 else ", also where capital letters do not count."),
        )
        for names in spelled.values()
        if len(names) > 1
    ]
