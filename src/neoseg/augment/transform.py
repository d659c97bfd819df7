"""What a transform of a training batch is: parameters drawn first, then a computation without chance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .configs import AugmentConfig

__all__ = ["THICK", "BatchInfo", "Parameters", "Transform", "gated"]

THICK = 3.0
"""Slices this many times thicker than the finest voxel side are not mixed with each other."""

EMPTY = 1e-2
"""A block of voxels nearer to the fill value than this share of the mean distance from it holds nothing."""

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
        empty: ``(b, c)``, the channels that were at the fill value throughout by then; ``None``: those that are now.
    """

    batch: int
    channels: int
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    fill: float = 0.0
    background: Tensor | None = field(default=None, compare=False, repr=False)
    empty: Tensor | None = field(default=None, compare=False, repr=False)

    @property
    def slice_axis(self) -> int | None:
        """The axis across thick slices: nothing is moved along it or interpolated across it. ``None``: there is none.

        The rule by which preparation resamples: the one axis with the largest spacing, when that is more than
        :data:`THICK` times the smallest. Two-dimensional images have no such axis.
        """
        spacing = self.spacing_mm
        if len(spacing) != 3 or max(spacing) <= THICK * min(spacing):
            return None
        coarse = [axis for axis, side in enumerate(spacing) if side > 0.999 * max(spacing)]
        return coarse[0] if len(coarse) == 1 else None

    def empty_channels(self, image: Tensor) -> Tensor:
        """Return which channels hold nothing, ``(b, c)`` bool."""
        return (image == self.fill).flatten(2).all(dim=2) if self.empty is None else self.empty

    def outside(self, image: Tensor) -> Tensor:
        """Return where the image is empty, ``(b, 1, x, y, z)`` bool.

        That is where every channel is at the fill value, and in 3-D in whole blocks of 3 voxels a side in which every
        channel is nearly so: resampling by splines leaves ripples in what was filled, while inside, where the values
        pass the fill value here and there, blocks do not. In pictures nothing is filled before they are resampled.
        """
        if self.background is not None:
            return self.background
        if len(self.shape) != 3:
            return _in_every_channel(image == self.fill)
        away = (image - self.fill).abs_()
        # the mean, since one wild voxel must not make all others small; sample by sample, so that its rounding does not
        # depend on the size of the batch
        level = torch.stack([one.flatten(1).mean(dim=1) for one in away])[..., None, None, None] * EMPTY
        near = _in_every_channel(away <= level)
        return _opened(near) | _in_every_channel(away == 0)


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


def _in_every_channel(mask: Tensor) -> Tensor:
    """Return ``(b, 1, x, y, z)`` of ``(b, c, x, y, z)``; torch's ``all`` is several times slower on CPUs."""
    result = mask[:, :1]
    for channel in range(1, mask.shape[1]):
        result = result & mask[:, channel : channel + 1]
    return result


def _opened(mask: Tensor) -> Tensor:
    """Return the voxels of ``(b, 1, x, y, z)`` that lie in blocks of 3 voxels a side; beyond the border all are set."""
    return _grown(~_grown(~mask))


def _grown(mask: Tensor) -> Tensor:
    """Return the mask with every neighbour of its voxels."""
    for axis in range(2, mask.ndim):
        one, n = mask.clone(), mask.shape[axis]
        one.narrow(axis, 0, n - 1).logical_or_(mask.narrow(axis, 1, n - 1))
        one.narrow(axis, 1, n - 1).logical_or_(mask.narrow(axis, 0, n - 1))
        mask = one
    return mask
