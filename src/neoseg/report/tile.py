"""Places for pictures on one pair of axes that covers a figure; axes of their own would take half of all the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tile", "axes_in_pixels"]


@dataclass(frozen=True, eq=False)
class Tile:
    """A place for one picture on the axes of a figure.

    Attributes:
        axes: cover the figure, in pixels from its lower left corner, see :func:`axes_in_pixels`.
        left, bottom, width, height: of the place in those pixels.
        shape: rows and columns of the picture.
    """

    axes: Any
    left: float
    bottom: float
    width: float
    height: float
    shape: tuple[int, int]

    def image(self, picture: NDArray[Any], **style: Any) -> None:
        """Draw a picture, row 0 at the top."""
        extent = (self.left, self.left + self.width, self.bottom, self.bottom + self.height)
        self.axes.imshow(picture, aspect="auto", extent=extent, **style)

    def lines(self, segments: NDArray[np.float64], colour: str) -> None:
        """Draw segments ``(n, 2, 2)`` between (column, row); pixel (0, 0) has its middle at (0, 0)."""
        from matplotlib.collections import LineCollection

        if len(segments):
            rows, columns = self.shape
            across = (segments[..., 0] + 0.5) * (self.width / columns)
            down = (segments[..., 1] + 0.5) * (self.height / rows)
            placed = np.stack([self.left + across, self.bottom + self.height - down], axis=-1)
            lines = LineCollection(list(placed), colors=colour, linewidths=1.2, antialiaseds=False)
            self.axes.add_collection(lines, autolim=False)

    def text(self, at: tuple[float, float], text: str, **style: Any) -> None:
        """Write at a share of width and height."""
        self.axes.text(self.left + at[0] * self.width, self.bottom + at[1] * self.height, text, **style)


def axes_in_pixels(figure: Any, size: tuple[float, float]) -> Any:
    """Return axes over a whole figure of that width and height in pixels, without any line of their own."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.autoscale(False)
    axes.set_axis_off()
    return axes
