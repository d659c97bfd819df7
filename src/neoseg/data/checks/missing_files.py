"""Files that cases.csv names but that are not there."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["missing_files"]


def missing_files(data: DataFacts) -> list[Problem]:
    """Report every image, label and mask that does not exist; a link to nowhere is called one."""
    found = []
    for facts in data.cases:
        for file in (*facts.images.values(), *(f for f in (facts.label, facts.mask) if f is not None)):
            if file.missing:
                what = "a link to a file that is not there" if file.path.is_symlink() else "not there"
                if file.path.is_dir():
                    what = "a folder"
                found.append(error(facts.case.case, file.path, f"The file is {what}; fetch it or correct cases.csv."))
    return found
