"""What a transform of a training batch is: parameters drawn first, then a computation without chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig

__all__ = ["BatchInfo", "Parameters", "Transform", "gated"]

Parameters = Mapping[str, NDArray[np.float64]]
"""Named numbers; the first axis of each is the sample of the batch. They can be kept and replayed."""


@dataclass(frozen=True)
class BatchInfo:
    """What a batch is like.

    Attributes:
        batch: samples.
        channels: of the image.
        shape: spatial, ``(x, y, z)`` or ``(x, y)``.
        spacing_mm: voxel size.
        fill: image value outside.
        background: ``(b, 1, x, y, z)``, where all channels were at the fill value before the first change of values;
            ``None``: where they are so now. A blur spreads values over the surroundings, hence this memory.
    """

    batch: int
    channels: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    fill: float = 0.0
    background: Tensor | None = field(default=None, compare=False, repr=False)

    def outside(self, image: Tensor) -> Tensor:
        """Return where the image is empty, ``(b, 1, x, y, z)`` bool."""
        if self.background is not None:
            return self.background
        return (image == self.fill).all(dim=1, keepdim=True)


@dataclass(frozen=True)
class Transform:
    """One kind of change.

    Attributes:
        name: of the transform.
        moves: whether voxels move; if not, the label stays as it is.
        sample: draws the parameters of a batch.
        identity: the parameters that change nothing.
        apply: image ``(b, c, x, y, z)`` float32 and label ``(b, x, y, z)`` to new ones; never in place. Identity
            parameters give the same bits.
    """

    name: str
    moves: bool
    sample: Callable[[AugmentConfig, np.random.Generator, BatchInfo], Parameters]
    identity: Callable[[BatchInfo], Parameters]
    apply: Callable[[Tensor, Tensor, Parameters, BatchInfo], tuple[Tensor, Tensor]]


def gated(
    generator: np.random.Generator, probability: float, values: NDArray[np.float64], otherwise: float
) -> NDArray[np.float64]:
    """Keep the values of each sample (first axis) with the probability, else put the value that changes nothing."""
    happens = generator.random(len(values)) < probability
    return np.where(happens.reshape((-1,) + (1,) * (values.ndim - 1)), values, otherwise)
