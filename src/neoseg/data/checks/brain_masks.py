"""Given brain masks that cannot be one."""

from __future__ import annotations

from .facts import DataFacts
from .problem import Problem, error, warning

__all__ = ["brain_masks"]

_WHOLE = 0.95


def brain_masks(data: DataFacts) -> list[Problem]:
    """Report masks that are 0 everywhere or hold NaN, and those that cover all of the field of view."""
    found = []
    for facts in data.cases:
        file = facts.mask
        if file is None or file.grid is None:
            continue
        if file.nan or file.infinite:
            sentence = "The brain mask holds NaN or infinite voxels; set them to 0 or 1."
            found.append(error(facts.case.case, file.path, sentence))
        elif not any(file.values):
            sentence = "The brain mask is 0 everywhere, so there is no brain in it; correct the file."
            found.append(error(facts.case.case, file.path, sentence))
        elif file.zeros < 1 - _WHOLE:
            sentence = (
                f"The brain mask covers {100 * (1 - file.zeros):.0f} % of the field of view; is it a mask of the brain?"
            )
            found.append(warning(facts.case.case, file.path, sentence))
    return found
