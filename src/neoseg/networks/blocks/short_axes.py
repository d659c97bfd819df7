"""Convolutions around two faults of torch on a CPU: gradients of short axes, and of single pixels with a stride."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Conv2d", "Conv3d", "ConvTranspose2d", "ConvTranspose3d", "with_right_gradients"]


def _is_two_bytes(x: Tensor) -> bool:
    """Whether a convolution on a CPU would be computed in bfloat16 or float16.

    Where the windows reach fewer voxels of an axis than the kernel has, oneDNN's gradient of the weights in bfloat16
    (torch 2.13, AVX512-BF16) reads and now and then writes memory that is not its own: other gradients each time, some
    not numbers, and some processes end. Found for 2D and 3D, any number of channels and groups: on axes shorter than
    the kernel, and behind a stride larger than the kernel where one window alone fits and half of it is padding. Never
    found elsewhere. So few voxels cost nothing in float32.
    """
    return x.device.type == "cpu" and (torch.is_autocast_enabled("cpu") or x.element_size() == 2)


def _dtype(x: Tensor) -> torch.dtype:
    """Return the dtype that the result would have without this file."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


def _is_short(sizes: Sequence[int], kernel: Sequence[int]) -> bool:
    return any(size < width for size, width in zip(sizes, kernel, strict=True))


def _reached(sizes: Sequence[int], conv: nn.modules.conv._ConvNd) -> list[int]:
    """Return how many voxels of each axis the windows reach from its beginning on."""
    if isinstance(conv.padding, str) or conv.padding_mode != "zeros":
        return list(sizes)
    axes = zip(sizes, conv.kernel_size, conv.stride, conv.padding, conv.dilation, strict=True)
    reached = []
    for size, width, stride, margin, apart in axes:
        whole = apart * (width - 1) + 1
        last = (size + 2 * margin - whole) // stride * stride
        reached.append(min(size, last + whole - margin))
    return reached


class _Conv(nn.modules.conv._ConvNd):
    """What planes and volumes have in common."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        plain: Any = super()
        if x.ndim == 4 and x.device.type == "cpu" and self._leaves_pixels_out():
            seen = x[:, :, :: self.stride[0], :: self.stride[1]]
            return functional.conv2d(seen, weight, bias, groups=self.groups)
        if not (_is_two_bytes(x) and _is_short(_reached(x.shape[2:], self), self.kernel_size)):
            return plain._conv_forward(x, weight, bias)  # type: ignore[no-any-return]
        with torch.autocast("cpu", enabled=False):
            y = plain._conv_forward(x.float(), weight.float(), None if bias is None else bias.float())
        return y.to(_dtype(x))  # type: ignore[no-any-return]

    def _leaves_pixels_out(self) -> bool:
        """Whether each result is of one pixel, and others between them count for nothing.

        The gradient of such a convolution in planes with channels last, of fewer than 16 channels, is written beyond
        its memory (torch 2.13, oneDNN), and now and then the process ends; never found in volumes.
        """
        one = all(width == 1 for width in self.kernel_size) and not any(self.padding)
        return one and any(step > 1 for step in self.stride)


class _ConvTranspose(nn.modules.conv._ConvTransposeNd):
    """What planes and volumes have in common; the grid that counts is that of the result."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        plain: Any = super()
        padding: Any = self.padding
        steps = zip(x.shape[2:], self.stride, padding, self.kernel_size, strict=True)
        sizes = [(size - 1) * stride - 2 * margin + width for size, stride, margin, width in steps]
        if output_size is not None or not (_is_two_bytes(x) and _is_short(sizes, self.kernel_size)):
            return plain.forward(x, output_size)  # type: ignore[no-any-return]
        convolve: Any = functional.conv_transpose2d if x.ndim == 4 else functional.conv_transpose3d
        bias = None if self.bias is None else self.bias.float()
        rest = (self.stride, padding, self.output_padding, self.groups, self.dilation)
        with torch.autocast("cpu", enabled=False):
            y = convolve(x.float(), self.weight.float(), bias, *rest)
        return y.to(_dtype(x))  # type: ignore[no-any-return]


class Conv2d(_Conv, nn.Conv2d):
    """`torch.nn.Conv2d` with right gradients of the weights; results are the same."""


class Conv3d(_Conv, nn.Conv3d):
    """`torch.nn.Conv3d` with right gradients of the weights; results are the same."""


class ConvTranspose2d(_ConvTranspose, nn.ConvTranspose2d):
    """`torch.nn.ConvTranspose2d` with right gradients of the weights; results are the same."""


class ConvTranspose3d(_ConvTranspose, nn.ConvTranspose3d):
    """`torch.nn.ConvTranspose3d` with right gradients of the weights; results are the same."""


_RIGHT = {
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}


def with_right_gradients(network: nn.Module) -> nn.Module:
    """Turn torch's convolutions of another's network into those of this file, in place, and return the network."""
    for module in network.modules():
        if type(module) in _RIGHT:
            module.__class__ = _RIGHT[type(module)]
    return network
