"""Labels without any foreground."""

from __future__ import annotations

from ...wording import listed
from .facts import DataFacts
from .problem import Problem, error, warning

__all__ = ["empty_labels"]


def empty_labels(data: DataFacts) -> list[Problem]:
    """Report how many labels are empty: allowed (no lesion), but an error when all training labels are."""
    known = [facts for facts in data.cases if facts.label is not None and facts.label.grid is not None]
    empty = [facts for facts in known if facts.label is not None and not any(facts.label.values)]
    if not empty:
        return []
    training = [facts for facts in known if facts.case.split == "train" and facts.case.group == "patient"]
    if training and all(facts in empty for facts in training):
        return [error("", None, f"All {len(training)} training labels are empty; there is nothing to learn from.")]
    names = listed(sorted(facts.case.case for facts in empty))
    sentence = f"{len(empty)} of {len(known)} labels are empty ({names}); right if nothing is to be found there."
    return [warning("", None, sentence)]
