"""Turns between volumes and tokens, and layers by the number of axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from neoseg.networks.blocks.short_axes import Conv2d, Conv3d, ConvTranspose2d, ConvTranspose3d

__all__ = ["as_tokens", "as_volume", "batch_norm_of", "conv_of", "dropout_of", "step_up_of"]

Layer = Callable[..., nn.Module]


def as_tokens(volume: Tensor) -> Tensor:
    """Return (B, C, x, y, z) as tokens (B, N, C), the last axis running fastest; channels-last memory is not copied."""
    return volume.flatten(2).transpose(1, 2)


def as_volume(tokens: Tensor, shape: Sequence[int]) -> Tensor:
    """Return tokens (B, N, C) as a volume of a shape (B, C, x, y, z), without a copy."""
    return tokens.transpose(1, 2).view(tuple(shape))


def conv_of(axes: int) -> Layer:
    """Return the convolution of planes or volumes."""
    return Conv2d if axes == 2 else Conv3d


def step_up_of(axes: int) -> Layer:
    """Return the transposed convolution of planes or volumes."""
    return ConvTranspose2d if axes == 2 else ConvTranspose3d


def dropout_of(axes: int) -> Layer:
    """Return the dropout of whole channels of planes or volumes."""
    return nn.Dropout2d if axes == 2 else nn.Dropout3d


def batch_norm_of(axes: int) -> Layer:
    """Return the batch normalisation of planes or volumes."""
    return nn.BatchNorm2d if axes == 2 else nn.BatchNorm3d
