"""What a sample of a batch is made from: the part of a volume that its spatial transform needs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Box", "Piece"]


@dataclass(frozen=True)
class Box:
    """A box of voxels around a patch, or in it.

    Attributes:
        first: its first voxel along each axis, counted from the first one of the patch.
        shape: voxels along each axis.
    """

    first: tuple[int, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Piece:
    """Voxels cut out for one sample.

    Attributes:
        image: ``(c, x, y, z)`` or ``(c, x, y)`` float32.
        label: ``(x, y, z)`` or ``(x, y)`` class indices.
        first: the first voxel along each axis, counted from the first one of the patch; all 0 for the patch itself.
    """

    image: Tensor
    label: Tensor
    first: tuple[int, ...]

    def to(self, device: torch.device) -> Piece:
        """Return the piece on a device."""
        return Piece(self.image.to(device), self.label.to(device), self.first)
