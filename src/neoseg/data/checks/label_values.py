"""Stored label values that no class declares."""

from __future__ import annotations

import numpy as np

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["label_values"]


def label_values(data: DataFacts) -> list[Problem]:
    """Report labels that hold values such as 255 or 0.99999997 where 1 was declared."""
    found = []
    for facts in data.cases:
        if facts.label is None or not facts.label.values:
            continue
        unknown = data.labels.unknown(np.asarray(facts.label.values))
        if unknown:
            shown = ", ".join(f"{value:.9g}" for value in unknown)
            declared = ", ".join(
                f"{name} = {' or '.join(f'{value:g}' for value in group)}"
                for name, group in zip(data.labels.names, data.labels.values, strict=True)
            )
            sentence = (
                f"The label holds the undeclared values {shown} (declared: 0 and {declared}); declare them in "
                "[labels], set a label_tolerance for rounded ones, or correct the file."
            )
            found.append(error(facts.case.case, facts.label.path, sentence))
    return found
