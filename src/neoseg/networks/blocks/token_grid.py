"""Parameters that belong to a grid of tokens, and how they are brought to another grid."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["GridCache", "TokenShape", "pool_tokens", "resize_rows", "resize_table"]

MOST_GRIDS = 8


class TokenShape(NamedTuple):
    """Tokens that an attention works on: how many, how wide, the slots they are projected to, and their grid.

    `grid` is what networks of size "flex" resize from, and what tells the others how many axes there are.
    """

    tokens: int
    dim: int
    slots: int
    grid: tuple[int, ...] = ()


class GridCache:
    """Results of resizing parameters, kept for each grid as long as the parameters stay what they were.

    Nothing is kept while gradients are recorded, since every step changes the parameters and needs their graph. torch
    counts changes in place, but neither those of fused optimisers nor those through ``parameter.data``: what is kept is
    forgotten when the network changes between training and evaluation, and otherwise by :meth:`clear`.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], tuple[tuple[object, ...], tuple[Tensor, ...]]] = {}

    def get(
        self, grid: tuple[int, ...], parameters: Sequence[Tensor], make: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """Return `make()`, or what it gave for this grid and the same state of the parameters."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return make()
        # In-place changes count up the version, moves to another device or type change address or type.
        state = tuple((p._version, p.data_ptr(), p.dtype, p.device) for p in parameters if not p.is_inference())
        known = self._kept.get(grid)
        if known is not None and known[0] == state and len(state) == len(parameters):
            return known[1]
        made = make()
        if len(self._kept) >= MOST_GRIDS:
            del self._kept[next(iter(self._kept))]
        self._kept[grid] = (state, made)
        return made

    def clear(self) -> None:
        """Forget what is kept."""
        self._kept.clear()

    def __deepcopy__(self, memo: object) -> GridCache:
        return GridCache()

    def __getstate__(self) -> dict[str, object]:
        return {"_kept": {}}


def resize_table(table: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Return a table (1, N, C) of values on a grid, interpolated linearly along each axis of another grid.

    Places are those of cell centres; beyond the outermost centres the outermost value stands.
    """
    volume = table.transpose(1, 2).reshape(1, table.shape[2], *old)
    return _interpolate(volume, new).flatten(2).transpose(1, 2)


def resize_rows(rows: Tensor, old: Sequence[int], new: Sequence[int]) -> Tensor:
    """Return weights (p, N) of sums over a grid for another grid: interpolated, and scaled so that sums stay alike."""
    return _interpolate(rows.reshape(1, len(rows), *old), new)[0].flatten(1) * (math.prod(old) / math.prod(new))


def pool_tokens(tokens: Tensor, grid: Sequence[int], cells: int) -> Tensor:
    """Return the means of tokens (B, N, C) in `cells` cells along each axis of their grid: (B, cells ** axes, C)."""
    volume = tokens.transpose(1, 2).reshape(len(tokens), tokens.shape[2], *grid)
    # Axis by axis, since means in cells are separable; torch's own pooling of volumes reads float32 and float64 only
    # on a CPU, and is slower with channels last.
    for axis, size in enumerate(grid, start=2):
        volume = torch.tensordot(volume, _cell_means(size, cells, volume), dims=([axis], [1])).movedim(-1, axis)
    return volume.flatten(2).transpose(1, 2)


def _cell_means(size: int, cells: int, like: Tensor) -> Tensor:
    """Return the matrix (cells, size) of means: cell i covers the voxels from floor(i n / m) to ceil((i + 1) n / m)."""
    place = torch.arange(size, device=like.device)
    cell = torch.arange(cells, device=like.device)[:, None]
    inside = (place >= cell * size // cells) & (place < -((-(cell + 1) * size) // cells))
    return (inside / inside.sum(dim=1, keepdim=True)).to(like.dtype)


def _interpolate(volume: Tensor, size: Sequence[int]) -> Tensor:
    """Return (B, C, ...) at another size, linear along each axis."""
    if tuple(volume.shape[2:]) == tuple(size):
        return volume
    mode = "bilinear" if volume.ndim == 4 else "trilinear"
    return functional.interpolate(volume, size=tuple(size), mode=mode, align_corners=False)
