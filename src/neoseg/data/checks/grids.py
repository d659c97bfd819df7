"""Channels and labels of one case that do not lie on one grid."""

from __future__ import annotations

from ...io import is_planar
from ...volume import grid_difference, same_grid
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["grids"]


def grids(data: DataFacts) -> list[Problem]:
    """Report every file of a case whose grid is not the first image's, with the numbers that differ."""
    found = []
    for facts in data.cases:
        files = [*facts.images.items()] + ([("label", facts.label)] if facts.label else [])
        files += [("mask", facts.mask)] if facts.mask else []
        known = [(name, file, file.grid) for name, file in files if file.grid is not None]
        for name, file, grid in known[1:]:
            first_name, first_file, first = known[0]
            if not same_grid(first, grid):
                told = f"The {name} lies on another grid than {first_name} ({first_file.path.name})"
                in_space = "resample one onto the other or correct its header"
                mend = "give both one size" if is_planar(file.path) else in_space
                sentence = f"{told}: {grid_difference(grid, first)}; {mend}."
                found.append(error(facts.case.case, file.path, sentence))
    return found
