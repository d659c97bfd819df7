"""Channels and labels of one case that do not lie on one grid."""

from __future__ import annotations

import numpy as np

from ...volume import Grid, same_grid
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
                sentence = f"{told}: {_difference(grid, first)}; resample one onto the other or correct its header."
                found.append(error(facts.case.case, file.path, sentence))
    return found


def _difference(grid: Grid, first: Grid) -> str:
    """Return the first of shape, spacing, direction and position that differs."""
    if grid.shape != first.shape:
        return f"shape {grid.shape} against {first.shape}"
    if not np.allclose(grid.spacing, first.spacing, rtol=1e-3):
        return f"spacing {_mm(grid.spacing)} mm against {_mm(first.spacing)} mm"
    turn = float(np.clip((grid.directions * first.directions).sum(axis=0), -1, 1).min())
    if (degrees := float(np.degrees(np.arccos(turn)))) > 0.05:
        return f"axes turned by {degrees:.2f} degrees"
    return f"centre {_mm(grid.centre)} mm against {_mm(first.centre)} mm"


def _mm(values: object) -> str:
    return "(" + ", ".join(f"{v:.5g}" for v in np.asarray(values)) + ")"
