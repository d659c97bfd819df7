"""Images of sizes that a network cannot divide evenly: padded going in, cut coming out."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional

__all__ = ["cut", "padded_to"]


def padded_to(multiple: Sequence[int], x: Tensor) -> Tensor:
    """Return (B, C, x, y, z) with zeros at the end of each axis up to the next multiple, or x itself if it has them."""
    missing = [-size % m for size, m in zip(x.shape[2:], multiple, strict=True)]
    return functional.pad(x, [n for size in reversed(missing) for n in (0, size)]) if any(missing) else x


def cut(output: Tensor, given: Sequence[int], padded: Sequence[int]) -> Tensor:
    """Return the part of an output, at full or a lower size, that the given voxels of a padded input cover."""
    for axis, (wanted, there) in enumerate(zip(given, padded, strict=True), start=2):
        size = output.shape[axis]
        output = output.narrow(axis, 0, -(-wanted * size // there))
    return output
