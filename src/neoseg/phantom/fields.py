"""Random fields over the head: periodic band-limited noise, smooth velocity fields and the flow along them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Lattice", "Table", "blocks", "flow", "noise_table", "smooth_table"]

Floats = NDArray[np.float32]

BLOCK = 32_768
"""Points that are worked on at once: what is held between two operations then stays in a core's cache."""


def blocks(count: int) -> Iterator[slice]:
    """Yield slices that cover ``count`` points, ``BLOCK`` at a time."""
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)


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
    """Functions of position kept on a lattice, read by linear interpolation (constant beyond the last points).

    Attributes:
        values: ``(..., count, count, count)``.
        lattice: where they are given.
    """

    values: Floats
    lattice: Lattice

    def at(self, points_mm: Floats) -> Floats:
        """Return the values at points ``(n, 3)`` mm, float32 ``(..., n)``."""
        functions = self.values.reshape(-1, self.lattice.count**3)
        found = np.empty((len(functions), len(points_mm)), dtype=np.float32)
        for part in blocks(len(points_mm)):
            found[:, part] = self._read(functions, points_mm[part])
        return found.reshape(*self.values.shape[:-3], -1)

    def _read(self, functions: Floats, points_mm: Floats) -> list[Floats]:
        n = self.lattice.count
        index = (points_mm.T - np.float32(self.lattice.origin_mm)) / np.float32(self.lattice.step_mm)
        index = np.clip(index, 0, n - 1).astype(np.float32)
        cell = np.minimum(index.astype(np.intp), n - 2)
        x, y, z = (index - cell).astype(np.float32)
        first = (cell[0] * n + cell[1]) * n + cell[2]

        def along(corners: list[Floats], share: Floats) -> list[Floats]:
            return [low + share * (high - low) for low, high in zip(corners[::2], corners[1::2], strict=True)]

        steps = [i * n * n + j * n + k for i in (0, 1) for j in (0, 1) for k in (0, 1)]
        return [along(along(along([f[s:].take(first) for s in steps], z), y), x)[0] for f in functions]


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
    displacement = (velocity / np.float32(2**squarings)).astype(np.float32)
    for _ in range(squarings):
        moved = points + displacement.reshape(3, -1).T
        displacement = displacement + Table(displacement, lattice).at(moved).reshape(velocity.shape)
    return displacement
