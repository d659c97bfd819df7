"""One subject on two sides of a split."""

from __future__ import annotations

from collections import defaultdict

from ...wording import listed
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["split_subjects"]


def split_subjects(data: DataFacts) -> list[Problem]:
    """Report subjects that are in training and test, healthy and patient, or in two parts or two folds."""
    splits: dict[str, dict[str, str]] = defaultdict(dict)
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    subject_of = {}
    for facts in data.cases:
        case = facts.case
        subject_of[case.case] = case.subject
        splits[case.subject].setdefault(case.split, case.case)
        groups[case.subject].setdefault(case.group, case.case)
    found = [_reported(subject, sides) for subject, sides in splits.items() if len(sides) > 1]
    found += [_reported(subject, sides) for subject, sides in groups.items() if len(sides) > 1]
    scored: dict[str, dict[str, str]] = defaultdict(dict)
    for number, fold in enumerate(data.folds):
        parts: dict[str, dict[str, str]] = defaultdict(dict)
        for part, members in (("train", fold.train), ("inner", fold.inner), ("validation", fold.validation)):
            for name in members:
                parts[subject_of.get(name, name)].setdefault(f"{part} of fold {number}", name)
        for name in fold.validation:
            scored[subject_of.get(name, name)].setdefault(f"validation of fold {number}", name)
        found += [_reported(subject, sides) for subject, sides in parts.items() if len(sides) > 1]
    return found + [_reported(subject, sides) for subject, sides in scored.items() if len(sides) > 1]


def _reported(subject: str, sides: dict[str, str]) -> Problem:
    where = " and ".join(f"in {side} (case {case})" for side, case in sides.items())
    cases = listed(sorted(sides.values()))
    return error(cases, None, f"The subject {subject} is {where}; scores would be too good, so move it to one side.")
