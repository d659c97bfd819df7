"""One file with two parts to play: a label that is an image too, or the label of two cases."""

from __future__ import annotations

import math
from pathlib import Path

from .facts import DataFacts, FileFacts
from .problem import Problem, error, warning

__all__ = ["shared_files"]

_BY_CHANCE = 50
"""Labels of so few voxels may be equal without one being a copy of the other."""


def shared_files(data: DataFacts) -> list[Problem]:
    """Report labels that are an image of the table, or the label of another case; equal voxels are a warning."""
    images = {path.resolve(): facts.case.case for facts in data.cases for path in facts.case.images.values()}
    found: list[Problem] = []
    labels: dict[Path, str] = {}
    voxels: dict[str, str] = {}
    for facts in data.cases:
        if facts.label is None:
            continue
        name, path = facts.case.case, facts.label.path
        if (owner := images.get(path.resolve())) is not None:
            sentence = f"The label is the same file as an image of case {owner}; correct the label column of cases.csv."
            found.append(error(name, path, sentence))
        elif (other := labels.setdefault(path.resolve(), name)) != name:
            sentence = f"The label is the same file as that of case {other}; give each case its own."
            found.append(error(name, path, sentence))
        elif _labelled(facts.label) > _BY_CHANCE:
            other = voxels.setdefault(facts.label.digest, name)
            if other != name:
                sentence = f"The label has the same voxels as that of case {other}; is it the right file?"
                found.append(warning(name, path, sentence))
    return found


def _labelled(label: FileFacts) -> float:
    return 0 if label.grid is None else (1 - label.zeros) * math.prod(label.grid.shape)
