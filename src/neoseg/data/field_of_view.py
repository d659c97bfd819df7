"""Whether the size of an image can be meant: spacings in micrometres, centimetres or metres that a header calls mm."""

from __future__ import annotations

from collections.abc import Sequence

from ..volume import Grid

__all__ = ["size_doubt", "too_thin", "unlikely_size"]

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


def too_thin(largest: Sequence[int], where: str = "") -> str | None:
    """Return one sentence when images have a single voxel along an axis, so that no network can learn there, else None.

    Args:
        largest: most voxels of all training cases along each axis.
        where: at which spacing, such as "at 1 x 1 mm "; "" for that of the files.
    """
    if min(largest) > 1:
        return None
    size = " x ".join(str(n) for n in largest)
    if len(largest) == 2:
        return (
            f"The training pictures are single rows or columns: {where}they have at most {size} pixels, but a network "
            "needs several along both axes; give larger pictures."
        )
    return (
        f"The training cases are single slices: {where}they have at most {size} voxels, but a network for volumes "
        "needs several along every axis; save the slices as 2-D images (PNG, TIFF, or 2-D .mha or .nrrd)."
    )


def _longest(grid: Grid) -> float | None:
    if grid.ndim != 3 or grid.unit != "mm":
        return None
    return max(n * s for n, s in zip(grid.shape, grid.spacing, strict=True))


def _voxel(grid: Grid) -> str:
    return " x ".join(f"{s:.3g}" for s in grid.spacing)
