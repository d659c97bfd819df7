"""Random fields over the head: periodic band-limited noise, smooth velocity fields and the flow along them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lattice", "Table", "flow", "noise_table", "smooth_table"]

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Lattice:
    """A cube of points around the origin of the head: ``count`` points along each axis, ``step_mm`` apart."""

    count: int = 48
    step_mm: float = 3.0

    @property
    def origin_mm(self) -> float:
        """Coordinate of the first point on every axis."""
        return -self.step_mm * (self.count - 1) / 2

    def points(self) -> Floats:
        """Return all points, ``(count**3, 3)`` mm."""
        axis = self.origin_mm + self.step_mm * np.arange(self.count, dtype=np.float32)
        return np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Table:
    """A function of position kept on a lattice, read by linear interpolation (constant beyond the last points)."""

    values: Floats
    lattice: Lattice

    def at(self, points_mm: Floats) -> Floats:
        """Return the value at points ``(n, 3)`` mm, float32 ``(n,)``."""
        from scipy.ndimage import map_coordinates

        index = (points_mm.T - np.float32(self.lattice.origin_mm)) / np.float32(self.lattice.step_mm)
        found = map_coordinates(self.values, index, order=1, mode="nearest", output=np.float32)
        return np.asarray(found, dtype=np.float32)


def _filtered(generator: np.random.Generator, lattice: Lattice, low: float, high: float, width: float) -> Floats:
    """White noise whose spatial frequencies (1/mm) outside low..high fade as a Gaussian of that width; mean 0, sd 1."""
    n = lattice.count
    axis = np.fft.fftfreq(n, lattice.step_mm)
    last = np.fft.rfftfreq(n, lattice.step_mm)
    k = np.sqrt(axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + last[None, None, :] ** 2)
    gain = np.exp(-0.5 * (np.maximum(np.maximum(low - k, k - high), 0) / width) ** 2)
    gain[0, 0, 0] = 0
    values = np.fft.irfftn(np.fft.rfftn(generator.standard_normal((n, n, n))) * gain, s=(n, n, n), axes=(0, 1, 2))
    return np.asarray(values / values.std(), dtype=np.float32)


def noise_table(generator: np.random.Generator, lattice: Lattice, wavelength_mm: float) -> Table:
    """Return noise of about one wavelength, mean 0 and sd 1: its zero level winds like the sulci of a cortex."""
    k = 1 / wavelength_mm
    return Table(_filtered(generator, lattice, k, k, 0.18 * k), lattice)


def smooth_table(generator: np.random.Generator, lattice: Lattice, wavelength_mm: float) -> Table:
    """Return noise with all wavelengths longer than the given one, mean 0 and sd 1."""
    k = 1 / wavelength_mm
    return Table(_filtered(generator, lattice, 0, 0, k / 2), lattice)


def flow(velocity: Floats, lattice: Lattice, squarings: int = 6) -> Floats:
    """Integrate a stationary velocity field over unit time (scaling and squaring: Arsigny et al., MICCAI 2006).

    Args:
        velocity: ``(3, n, n, n)`` mm per unit time on the lattice.
        lattice: where it is given.
        squarings: the first step is ``2**-squarings`` of the time.

    Returns:
        Displacement u in mm, ``(3, n, n, n)``, so that x + u(x) is a smooth map with a smooth inverse.
    """
    points = lattice.points()
    shape = velocity.shape
    displacement = (velocity / np.float32(2**squarings)).astype(np.float32)
    for _ in range(squarings):
        moved = points + displacement.reshape(3, -1).T
        step = np.stack([Table(component, lattice).at(moved) for component in displacement])
        displacement = displacement + step.reshape(shape)
    return displacement
