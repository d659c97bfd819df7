"""Applying a convolution by the fastest way that torch has and does not choose by itself."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

__all__ = ["convolve"]


def convolve(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution with stride 1 of planes or volumes; the result is that of `conv(x)` but for rounding."""
    if x.device.type == "cpu" and _is_slow_by_default(x):
        layer = cast(Any, conv)
        padding, stride, dilation = layer.padding, layer.stride, layer.dilation
        return torch.mkldnn_convolution(x, layer.weight, layer.bias, padding, stride, dilation, layer.groups)
    return cast(Tensor, conv(x))


def _is_slow_by_default(x: Tensor) -> bool:
    """Whether torch would convolve without oneDNN, though that is several times faster.

    For a single sample torch (2.13) leaves oneDNN out where channels times the first axes are few; gradients are not
    defined for the operator that always takes it, and `torch.compile`, which chooses for itself, cannot trace it.
    """
    return (
        not torch.compiler.is_compiling()
        and len(x) == 1
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
