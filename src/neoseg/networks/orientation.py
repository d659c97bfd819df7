"""Turning patches to the order of axes that published weights were trained in, and outputs back."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neoseg.networks.configs import axes_of

__all__ = ["Turn"]


class Turn:
    """The turn from arrays (x, y, z) in RAS+ to an orientation, and back.

    Args:
        orientation: where each axis of the turned array leads, the first one first: "SPL" is slices from feet to head,
            then rows from front to back, then columns from right to left. None turns nothing.
    """

    def __init__(self, orientation: str | None) -> None:
        self.axes = tuple(axes_of(orientation)) if orientation is not None else None
        self.flipped = [axis + 2 for axis, letter in enumerate(orientation or "") if letter in "LPI"]

    @property
    def places(self) -> tuple[int, ...]:
        """Return for each axis of (x, y, z) the turned axis that runs along it."""
        axes = self.axes if self.axes is not None else (0, 1, 2)
        return tuple(axes.index(axis) for axis in range(len(axes)))

    def sizes(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """Return sizes along (x, y, z) in the order of the turned axes."""
        return tuple(sizes) if self.axes is None else tuple(sizes[axis] for axis in self.axes)

    def there(self, x: Tensor) -> Tensor:
        """Turn (B, c, x, y, z) in RAS+ to the orientation."""
        if self.axes is None:
            return x
        turned = x.permute(0, 1, *(axis + 2 for axis in self.axes))
        return turned.flip(self.flipped) if self.flipped else turned

    def back(self, y: Tensor) -> Tensor:
        """Turn (B, c, ...) in the orientation back to (B, c, x, y, z) in RAS+."""
        if self.axes is None:
            return y
        y = y.flip(self.flipped) if self.flipped else y
        return y.permute(0, 1, *(place + 2 for place in self.places))
