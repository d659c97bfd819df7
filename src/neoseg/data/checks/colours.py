"""Grey pictures among pictures in colour."""

from __future__ import annotations

from ...io import COLOURS, is_planar
from ...wording import listed
from .facts import CaseFacts, DataFacts
from .problem import Problem, warning

__all__ = ["colours", "of_one_picture"]


def colours(data: DataFacts) -> list[Problem]:
    """Report how many pictures of a data set in colour are grey: their red, green and blue are alike."""
    known = [facts for facts in data.cases if of_one_picture(facts) and all(f.digest for f in facts.images.values())]
    grey = [facts.case.case for facts in known if len({file.digest for file in facts.images.values()}) == 1]
    if not grey or len(grey) == len(known):
        return []
    sentence = (
        f"{len(grey)} of {len(known)} images are grey ({listed(sorted(grey))}), the others in colour; the grey stands "
        f"for {', '.join(COLOURS[:-1])} and {COLOURS[-1]} alike."
    )
    return [warning("", None, sentence)]


def of_one_picture(facts: CaseFacts) -> bool:
    """Tell whether the channels of a case are the colours of one picture."""
    paths = {file.path for file in facts.images.values()}
    return len(paths) == 1 and len(facts.images) > 1 and is_planar(next(iter(paths)))
