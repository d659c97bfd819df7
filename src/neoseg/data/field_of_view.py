"""Whether the size of an image can be meant: spacings in micrometres, centimetres or metres that a header calls mm."""

from __future__ import annotations

from ..volume import Grid

__all__ = ["size_doubt", "unlikely_size"]

SMALLEST_MM, LARGEST_MM = 2.0, 3000.0
"""Longest side of a field of view: below the first and above the second it shows no part of a body."""

SMALLEST_HEAD_MM, FINE_VOXELS = 60.0, 64
"""A map of a whole head is longer than the first; with fewer voxels than the second it may be a part cut out of one."""


def unlikely_size(grid: Grid) -> str | None:
    """Return one sentence when a volume is so small or so large that its spacing cannot be in mm, else None.

    Args:
        grid: of an image; planes and grids in pixels pass.
    """
    longest = _longest(grid)
    if longest is None or SMALLEST_MM <= longest <= LARGEST_MM:
        return None
    unit = "um, or mm under a unit code for metres" if longest > LARGEST_MM else "metres"
    return (
        f"the field of view is {longest:.3g} mm long with voxels of {_voxel(grid)} mm, which fits no scan; the header "
        f"seems to give {unit}: correct its spacing."
    )


def size_doubt(grid: Grid) -> str | None:
    """Return one sentence when an ADC map has the voxels of a whole head but not its size, else None."""
    longest = _longest(grid)
    if longest is None or not SMALLEST_MM <= longest < SMALLEST_HEAD_MM or max(grid.shape) < FINE_VOXELS:
        return None
    return (
        f"The field of view is {longest:.3g} mm long with voxels of {_voxel(grid)} mm, which is small for a head; is "
        "its spacing in cm?"
    )


def _longest(grid: Grid) -> float | None:
    if grid.ndim != 3 or grid.unit != "mm":
        return None
    return max(n * s for n, s in zip(grid.shape, grid.spacing, strict=True))


def _voxel(grid: Grid) -> str:
    return " x ".join(f"{s:.3g}" for s in grid.spacing)
