"""Pictures among volumes, and pictures in pixels among images in mm: one network takes one kind."""

from __future__ import annotations

from ...wording import counted, listed
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["kinds_of_images"]


def kinds_of_images(data: DataFacts) -> list[Problem]:
    """Report labelled patients whose images have other axes than most, or sizes in another unit."""
    kinds: dict[tuple[int, str], list[str]] = {}
    for facts in data.cases:
        grids = [file.grid for file in facts.images.values() if file.grid is not None]
        if grids and facts.label is not None and facts.case.group == "patient":
            kinds.setdefault((grids[0].ndim, grids[0].unit), []).append(facts.case.case)
    usual, *others = sorted(kinds, key=lambda kind: -len(kinds[kind])) or [(0, "")]
    return [
        error(
            "",
            None,
            f"{counted(len(kinds[kind]), 'case')} ({listed(sorted(kinds[kind]))}) with {_told(kind)}, the others with "
            f"{_told(usual)}; one network takes one kind, so convert these or leave them out.",
        )
        for kind in others
    ]


def _told(kind: tuple[int, str]) -> str:
    axes, unit = kind
    size = "a pixel of unknown size (pictures)" if unit == "px" else "sizes in mm"
    return f"{axes} axes and {size}"
