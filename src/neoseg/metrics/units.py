"""In which units the scores of an image are told: mm and mL of a volume, mm² or pixels of a plane."""

from __future__ import annotations

from ..volume import Grid

__all__ = ["in_units_of"]

MM2_PER_CM2 = 100.0


def in_units_of(grid: Grid, value: float, unit: str) -> tuple[float, str]:
    """Return a score in the unit of the image's world, and that unit.

    Args:
        grid: of the masks.
        value: of a metric, in its own unit; of a plane an amount is in cm2, or 100 px2, see
            :class:`neoseg.metrics.overlap.Counts`.
        unit: of the metric: "ratio", "mm", "mL" or "count".
    """
    if unit == "mm":
        return value, grid.unit
    if unit == "mL" and grid.ndim == 2:
        return value * MM2_PER_CM2, grid.size_unit
    return value, unit
