"""Patches of several sizes in one training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import GeometryError
from ..networks.configs import NetworkBase, check_lowest, required_multiple

__all__ = ["PatchScales", "scaled_patches"]


@dataclass(frozen=True)
class PatchScales:
    """What patches of several sizes cost, in patches of the planned size.

    Attributes:
        mean: voxels of a patch in the mean over the sizes; what a step costs in time.
        largest: voxels of the largest; what the memory has to hold.
    """

    mean: float = 1.0
    largest: float = 1.0

    @staticmethod
    def of(scales: Sequence[float] | None, axes: int) -> PatchScales:
        """Return the costs of sizes given as multiples along every axis; None is the planned size alone."""
        volumes = [scale**axes for scale in scales or (1.0,)]
        return PatchScales(math.fsum(volumes) / len(volumes), max(volumes))


def scaled_patches(
    network: NetworkBase, patch: Sequence[int], scales: Sequence[float] | None
) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of the patches of a training in the order of the scales; none where there are no scales.

    Args:
        network: each side is the nearest multiple of what its axes ask for, at least one.
        patch: of the plan.
        scales: multiples of it along every axis; None: the planned size alone.

    Raises:
        GeometryError: a size leaves too little at the network's lowest level, or two scales make the same size.
    """
    if scales is None:
        return ()
    multiples = required_multiple(network)
    sizes = tuple(
        dict.fromkeys(
            tuple(max(1, round(scale * side / m)) * m for side, m in zip(patch, multiples, strict=True))
            for scale in scales
        )
    )
    for size in sizes:
        check_lowest(network, size)
    if len(sizes) < len(scales):
        raise GeometryError(
            f"training.patch_scales = {list(scales)} of the patch {list(patch)} makes the sizes "
            f"{[list(size) for size in sizes]}, since the network takes multiples of {list(multiples)}: give scales "
            "that lie further apart, or a larger plan.patch."
        )
    return sizes
