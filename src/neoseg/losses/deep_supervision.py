"""Deep supervision: every head is compared with the truth at its own size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from neoseg.errors import GeometryError

__all__ = ["head_weights", "resample_target", "step_between", "steps_of", "supervise"]


def head_weights(heads: int) -> tuple[float, ...]:
    """Return weights that halve from head to head and sum to one: 4/7, 2/7, 1/7 for the three of UNETR++."""
    total = 2**heads - 1
    return tuple(2 ** (heads - 1 - head) / total for head in range(heads))


def resample_target(target: Tensor, size: Sequence[int], steps: Sequence[int] | None = None) -> Tensor:
    """Return the class indices nearest to the voxel centres of another size, as the code of UNETR++ does.

    Nearest keeps the classes exact and the share of each class unbiased, but may skip a lesion thinner than the step.
    Two other ways are the largest class in each cell, which keeps small lesions and swells them, and comparing
    logits that were brought to full size, which costs as many times more voxels as the step is large.

    Args:
        target: class indices (B, ...).
        size: voxels wanted on each axis after the first.
        steps: voxels of the target for each of these; omitted: see :func:`step_between`.
    """
    for axis, wanted in enumerate(size, start=1):
        given = target.shape[axis]
        if given != wanted:
            step = step_between(given, wanted) if steps is None else steps[axis - 1]
            index = torch.arange(wanted, device=target.device) * step + step // 2
            target = target.index_select(axis, index.clamp_(max=given - 1))
    return target


def step_between(given: int, wanted: int) -> int:
    """Return the voxels of an axis for each voxel of a smaller one.

    An axis that does not divide evenly is one that the network padded at its end and cut again: the step is then the
    next power of two.
    """
    return given // wanted if given % wanted == 0 else 1 << (given // wanted).bit_length()


def steps_of(sizes: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """Return the voxels of the first size for each of every size, along each axis.

    From size to size, since a padded one may divide the first by chance: 36, 18, 9, 5, 3 are steps of 2 throughout.
    """
    steps = [(1,) * len(sizes[0])]
    for larger, smaller in pairwise(sizes):
        own = (step_between(*pair) for pair in zip(larger, smaller, strict=True))
        steps.append(tuple(before * step for before, step in zip(steps[-1], own, strict=True)))
    return steps


def supervise(loss: Callable[[Tensor, Tensor], Tensor], logits: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the weighted sum of a loss over heads (B, K, ...), full size first, each with its own target.

    Raises:
        GeometryError: the target does not have the size of the first head.
    """
    sizes = [tuple(head.shape[2:]) for head in logits]
    if (wanted := (len(logits[0]), *sizes[0])) != tuple(target.shape):
        raise GeometryError(
            f"The target has the shape {tuple(target.shape)}, but {wanted} is wanted, one class a voxel of the first "
            "output; give it without an axis of channels, in the order of the image's axes."
        )
    terms = [
        weight * loss(head, resample_target(target, size, steps))
        for weight, head, size, steps in zip(head_weights(len(logits)), logits, sizes, steps_of(sizes), strict=True)
    ]
    return torch.stack(terms).sum()
