"""Convolutions with normalisation and activation, in rows and in residual blocks, as U-Nets are made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.normalisation import normalisation
from neoseg.networks.blocks.residual_conv import SLOPE
from neoseg.networks.blocks.tokens import conv_of, dropout_of, step_up_of

__all__ = [
    "ConvBlock",
    "Form",
    "ResidualBlock",
    "activated",
    "initialise",
    "pooled",
    "row_of",
    "row_of_residual",
    "step_up",
]


class Form(NamedTuple):
    """What all convolutions of a network have alike.

    Attributes:
        norm: normalisation behind each convolution; "none" gives each a bias in its place.
        activation: "leaky_relu" with slope 0.01, "relu", "relu6" (at most 6), or "silu" (x times its sigmoid).
    """

    norm: Literal["batch", "instance", "group", "none"]
    activation: Literal["leaky_relu", "relu", "relu6", "silu"]

    @property
    def biased(self) -> bool:
        """Whether convolutions have a bias; a normalisation behind them would take it away again."""
        return self.norm == "none"

    def normalisation(self, channels: int, axes: int) -> nn.Module:
        """Return the normalisation of (B, channels, x, y, z)."""
        return nn.Identity() if self.norm == "none" else normalisation(self.norm, channels, axes)


class ConvBlock(nn.Module):
    """Convolution, normalisation, activation, dropout: (B, in, x, y, z) to (B, out, x, y, z) divided by the stride.

    Whole channels are dropped, and after the activation: a normalisation behind would bring back what is dropped.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: size of the convolution along each axis, odd.
        form: normalisation and activation.
        stride: what each axis is divided by; None: nothing.
        dropout: share of channels dropped while training.
        groups: channels of one group do not see those of others; as many as channels make it depthwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        form: Form,
        *,
        stride: Sequence[int] | None = None,
        dropout: float = 0.0,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.form, axes = form, len(kernel)
        padding = tuple(size // 2 for size in kernel)
        self.conv = conv_of(axes)(
            in_channels, out_channels, tuple(kernel), stride=tuple(stride or (1,) * axes), padding=padding,
            groups=groups, bias=form.biased,
        )  # fmt: skip
        self.norm = form.normalisation(out_channels, axes)
        self.dropout = dropout_of(axes)(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, x, y, z) to (B, out, x, y, z) divided by the stride."""
        return cast(Tensor, self.dropout(activated(self.form, self.norm(convolve(self.conv, x)))))


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut, nnU-Net's residual block (Isensee et al., MICCAI 2024, arXiv 2404.09556).

    The shortcut averages where there is a stride, and has a 1x1x1 convolution with its own normalisation where the
    widths differ. A fresh block passes its shortcut alone.

    Args:
        in_channels: channels in.
        out_channels: channels out.
        kernel: size of both convolutions along each axis, odd.
        form: normalisation and activation.
        stride: what each axis is divided by; None: nothing.
        dropout: share of channels dropped between the two convolutions while training.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Sequence[int],
        form: Form,
        *,
        stride: Sequence[int] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.form, axes = form, len(kernel)
        self.first = ConvBlock(in_channels, out_channels, kernel, form, stride=stride, dropout=dropout)
        padding = tuple(size // 2 for size in kernel)
        self.conv = conv_of(axes)(out_channels, out_channels, tuple(kernel), padding=padding, bias=form.biased)
        self.norm = form.normalisation(out_channels, axes)
        self.stride = tuple(stride) if stride is not None and math.prod(stride) > 1 else None
        self.carry: nn.Module | None = None
        self.carry_norm: nn.Module | None = None
        if in_channels != out_channels:
            self.carry = conv_of(axes)(in_channels, out_channels, 1, bias=form.biased)
            self.carry_norm = form.normalisation(out_channels, axes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, in, x, y, z) to (B, out, x, y, z) divided by the stride."""
        y = self.norm(convolve(self.conv, self.first(x)))
        if self.stride is not None:
            pool = functional.avg_pool2d if len(self.stride) == 2 else functional.avg_pool3d
            # torch has no mean of two bytes a number for volumes on a CPU
            x = pool(x.float(), self.stride, self.stride).to(y.dtype)
        if self.carry is not None and self.carry_norm is not None:
            x = self.carry_norm(convolve(self.carry, x))
        return activated(self.form, y.add_(x))


def row_of(
    count: int,
    channels: tuple[int, int],
    kernel: Sequence[int],
    form: Form,
    *,
    stride: Sequence[int] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return convolutions from the first to the second number of channels, the first with stride and dropout."""
    first = ConvBlock(*channels, kernel, form, stride=stride, dropout=dropout)
    return nn.Sequential(first, *(ConvBlock(channels[1], channels[1], kernel, form) for _ in range(count - 1)))


def row_of_residual(
    count: int,
    channels: tuple[int, int],
    kernel: Sequence[int],
    form: Form,
    *,
    stride: Sequence[int] | None = None,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Return residual blocks from the first to the second number of channels, as `row_of` returns convolutions."""
    first = ResidualBlock(*channels, kernel, form, stride=stride, dropout=dropout)
    return nn.Sequential(first, *(ResidualBlock(channels[1], channels[1], kernel, form) for _ in range(count - 1)))


def step_up(in_channels: int, out_channels: int, step: Sequence[int], form: Form) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride: each axis is multiplied by `step`."""
    return step_up_of(len(step))(in_channels, out_channels, tuple(step), stride=tuple(step), bias=form.biased)


def activated(form: Form, x: Tensor) -> Tensor:
    """Return x after the activation, in its own memory."""
    match form.activation:
        case "relu":
            return functional.relu_(x)
        case "relu6":
            return functional.relu6(x, inplace=True)
        case "silu":
            return functional.silu(x, inplace=True)
        case _:
            return functional.leaky_relu(x, SLOPE, inplace=True)


def pooled(x: Tensor, step: Sequence[int]) -> Tensor:
    """Return the largest value of each cell of `step` voxels of (B, C, x, y, z)."""
    pool = functional.max_pool2d if len(step) == 2 else functional.max_pool3d
    return pool(x, tuple(step), tuple(step))


def initialise(network: nn.Module) -> None:
    """Draw He normal weights for leaky ReLU of slope 0.01 and set biases to 0; residual blocks start as shortcuts."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for module in network.modules():
        if isinstance(module, ResidualBlock):
            # Without a normalisation the convolution itself is what has to be 0.
            last = module.conv if isinstance(module.norm, nn.Identity) else module.norm
            nn.init.zeros_(cast(Tensor, last.weight))
