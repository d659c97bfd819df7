"""Activation checkpointing: computing activations again in the backward pass in place of keeping them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import cast

from torch import Tensor, is_grad_enabled, nn, no_grad
from torch.compiler import is_compiling
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

__all__ = ["recomputed"]


def recomputed(module: nn.Module, x: Tensor) -> Tensor:
    """Return `module(x)`, keeping only `x` for the backward pass; values, gradients and buffers are the same.

    Dropout draws the same numbers the second time, and running means of batches are counted once.
    """
    if not is_grad_enabled():
        return cast(Tensor, module(x))
    if is_compiling():
        # A traced graph counts the batch once by itself, and no context can be traced into it.
        return cast(Tensor, checkpoint(module, x, use_reentrant=False))

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _without_counting(module)

    return cast(Tensor, checkpoint(module, x, use_reentrant=False, context_fn=contexts))


@contextmanager
def _without_counting(module: nn.Module) -> Iterator[None]:
    """Put the running statistics of batches back when the block ends; the first pass has counted the batch."""
    # Leaving them out of the second pass would be simpler, but then it keeps other tensors than the first one.
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    try:
        yield
    finally:
        with no_grad():
            for buffer, before in kept:
                buffer.copy_(before)
