"""Predict a volume of any size with a network of fixed patch size.

Windows are spaced evenly, each result is weighted by a Gaussian around the window's centre (sigma = patch / 8), and
the weighted *probabilities* (after softmax, not the logits) are averaged: over windows and over mirrorings.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..data.patches import clamped_start
from .configs import WindowConfig
from .precision import autocast, resolve_precision

__all__ = ["Call", "gaussian_weights", "predict_probabilities", "window_starts"]

Call = Callable[[Tensor], Sequence[Tensor]]
"""``(b, c, x, y, z)`` -> logits, full size ``(b, classes, x, y, z)`` first; any network of this package is one."""


def predict_probabilities(
    call: Call,
    image: NDArray[Any] | Tensor,
    *,
    patch: Sequence[int],
    classes: int,
    config: WindowConfig | None = None,
    device: torch.device | str = "cpu",
    fill: float = 0.0,
) -> Tensor:
    """Return the class probabilities of a whole volume.

    A volume that fits into the patch along every axis is padded to it and predicted in one pass.

    Args:
        call: network in evaluation mode, or :func:`neoseg.inference.ensemble.mean_of`.
        image: ``(c, x, y, z)`` or ``(c, x, y)``.
        patch: voxels along each axis.
        classes: with background.
        config: windows, mirroring and precision; default :class:`WindowConfig`.
        device: where the network is, and where the result will be.
        fill: image value of the padding.

    Returns:
        ``(classes, x, y, z)`` float32 on the device, non-negative, sum 1 over the classes.
    """
    config = config or WindowConfig()
    device = torch.device(device)
    tensor = image if isinstance(image, Tensor) else torch.from_numpy(np.array(image, dtype=np.float32))
    tensor = tensor.to(device, torch.float32)
    patch = tuple(int(p) for p in patch)
    shape = tuple(tensor.shape[1:])
    before = [max(0, -s) for s in clamped_start([0] * len(shape), shape, patch)]
    after = [max(0, p - n - b) for p, n, b in zip(patch, shape, before, strict=True)]
    padding = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    tensor = functional.pad(tensor, padding, value=fill) if any(padding) else tensor

    starts = list(itertools.product(*window_starts(tuple(tensor.shape[1:]), patch, config.overlap)))
    dtype = resolve_precision(config.precision, device)
    with torch.inference_mode(), autocast(dtype, device):
        if len(starts) == 1:
            total = _softmax(call, tensor[None], config.mirror_axes)[0]
        else:
            weights = gaussian_weights(patch).to(device)
            total = torch.zeros((classes, *tensor.shape[1:]), device=device)
            norm = torch.zeros(tuple(tensor.shape[1:]), device=device)
            for group in _groups(starts, config.batch):
                places = [tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True)) for start in group]
                batch = torch.stack([tensor[(slice(None), *place)] for place in places])
                for place, result in zip(places, _softmax(call, batch, config.mirror_axes), strict=True):
                    total[(slice(None), *place)] += result * weights
                    norm[place] += weights
            total /= norm
        inner = tuple(slice(b, b + n) for b, n in zip(before, shape, strict=True))
        # a clone leaves inference mode's flag behind, so that a loss may be computed on the result
        result = total[(slice(None), *inner)].contiguous()
    return result.clone()


def window_starts(shape: Sequence[int], patch: Sequence[int], overlap: float) -> list[list[int]]:
    """Return the starts along each axis: the fewest evenly spaced ones with a stride of at most (1 - overlap) patch.

    Along an axis on which the volume is not larger than the patch there is one, 0.
    """
    result = []
    for n, p in zip(shape, patch, strict=True):
        free = max(0, n - p)
        count = math.ceil(free / max(1, int(p * (1 - overlap)))) + 1
        result.append([round(free * i / max(1, count - 1)) for i in range(count)])
    return result


def gaussian_weights(patch: Sequence[int]) -> Tensor:
    """Return the weight of each voxel of a window: a Gaussian around its centre, sigma = patch / 8 along each axis.

    Its largest value is near 1; where float32 rounds it to zero the smallest positive value stands.
    """
    weights = torch.ones(())
    for p in patch:
        distance = torch.arange(p, dtype=torch.float64) - (p - 1) / 2
        weights = weights[..., None] * torch.exp(-0.5 * (distance / (p / 8)) ** 2)
    weights = weights.to(torch.float32)
    return weights.clamp_min(float(weights[weights > 0].min()))


def _softmax(call: Call, batch: Tensor, mirror_axes: Sequence[int]) -> Tensor:
    """Return the probabilities of a batch, averaged over every combination of the mirror axes."""
    total: Tensor | None = None
    flips = [
        [axis + 2 for axis in chosen]
        for count in range(len(mirror_axes) + 1)
        for chosen in itertools.combinations(mirror_axes, count)
    ]
    for axes in flips:
        turned = call(torch.flip(batch, axes) if axes else batch)[0].float()
        probabilities = torch.softmax(turned, dim=1)
        probabilities = torch.flip(probabilities, axes) if axes else probabilities
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total / len(flips)


def _groups(starts: list[tuple[int, ...]], size: int) -> Iterator[list[tuple[int, ...]]]:
    for first in range(0, len(starts), size):
        yield starts[first : first + size]
