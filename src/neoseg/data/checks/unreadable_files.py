"""Files that are there but cannot be read as one volume."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["unreadable_files"]


def unreadable_files(data: DataFacts) -> list[Problem]:
    """Report truncated, damaged, mislabelled, sheared and 4-D files in the words of the reader."""
    found = []
    for facts in data.cases:
        for file in (*facts.images.values(), *(f for f in (facts.label, facts.mask) if f is not None)):
            if file.error and not file.missing:
                sentence = file.error.removeprefix(f"{file.path}: ")
                found.append(error(facts.case.case, file.path, sentence[:1].upper() + sentence[1:]))
    return found
