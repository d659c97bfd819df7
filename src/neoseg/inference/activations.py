"""How much memory the tensors of a pass through a network take."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["activation_bytes"]


def activation_bytes(network: nn.Module, shape: Sequence[int]) -> int:
    """Return the most bytes of float32 tensors that are alive at once in a pass, besides weights and input.

    The pass is done once, on zeros. Memory that single operations take for themselves is not seen.

    Args:
        network: in evaluation mode, on the CPU.
        shape: of the input, ``(b, c, x, y, z)``.
    """
    batch = torch.zeros(tuple(shape))
    with torch.no_grad(), _Alive() as alive:
        network(batch)
    return int(alive.most)


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations make, from their birth to their end."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now: int = 0
        self.most: int = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(value, Tensor):
                self._note(value)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        mark = storage._cdata
        if mark in self._known:
            return
        self._known.add(mark)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._end, mark, storage.nbytes())

    def _end(self, mark: int, size: int) -> None:
        self._known.discard(mark)
        self.now -= size
