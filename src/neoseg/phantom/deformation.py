"""From the scanner to the common anatomy: where a head lies, how large it is, and its individual smooth shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import HeadConfig
from .fields import Lattice, Table, flow, smooth_table
from .geometry import rotation

__all__ = ["Deformation", "draw_deformation"]


@dataclass(frozen=True, eq=False)
class Deformation:
    """A map from RAS world mm to the millimetres of the common (canonical) anatomy.

    Attributes:
        pose: 4 x 4, RAS world mm to head mm: rotation, offset and size.
        displacement: ``(3, n, n, n)`` mm on the lattice; head point h is h + displacement(h) in the common anatomy.
        lattice: where the displacement is given.
    """

    pose: NDArray[np.float64]
    displacement: NDArray[np.float32]
    lattice: Lattice

    def to_head(self, world_mm: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map RAS world mm ``(n, 3)`` to upright head coordinates without individual shape."""
        return np.asarray(world_mm @ self.pose[:3, :3].T + self.pose[:3, 3], dtype=np.float32)

    def to_canonical(self, world_mm: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map RAS world mm ``(n, 3)`` to the common anatomy, float32 ``(n, 3)``."""
        head = self.to_head(world_mm)
        return np.asarray(head + Table(self.displacement, self.lattice).at(head).T, dtype=np.float32)


def draw_deformation(
    generator: np.random.Generator, config: HeadConfig, centre_mm: NDArray[np.float64], tilt: NDArray[np.float64]
) -> Deformation:
    """Draw where a head lies in the scanner and how it differs from the common anatomy.

    Args:
        generator: source of randomness.
        config: sizes of the differences.
        centre_mm: RAS world position of the middle of the field of view.
        tilt: 3 x 3, directions of the grid's axes; the head lies along them up to a few degrees.
    """
    lattice = Lattice(36, 4.0)
    turn = tilt @ rotation(generator.normal(0, [3.0, 2.0, 3.0]))
    size = TERM_SIZE * generator.normal(1, config.scale_sd / 2) * generator.normal(1, config.scale_sd, 3)
    offset = centre_mm + tilt @ generator.normal(0, [2.0, 3.0, 0.5])
    pose = np.eye(4)
    pose[:3, :3] = np.diag(1 / size) @ turn.T
    pose[:3, 3] = MIDDLE_MM - pose[:3, :3] @ offset
    tables = [smooth_table(generator, lattice, config.velocity_wavelength_mm).values for _ in range(3)]
    velocity = np.float32(config.velocity_mm / np.sqrt(3)) * np.stack(tables)
    return Deformation(pose, flow(velocity, lattice), lattice)


MIDDLE_MM = np.array([0.0, 0.0, -4.0])
"""Middle of the brain in the common anatomy."""

TERM_SIZE = 0.905
"""Mean size of a head at term relative to the common anatomy."""
