"""Normalisations over voxels, of images whose channels lie side by side in memory too.

On a CPU torch sums the voxels of such an image in float32 one after the other, so that the sums of a large image go
wrong: of 192 x 192 x 160 voxels the normalised ones come out 0.4 % too large, of 512 x 512 x 160 6 %. Here the moments
of a few thousand voxels are taken at a time and put together in float64 (Chan, Golub and LeVeque, The American
Statistician 37 (1983), equation 2.1), which takes a tenth more time of large images.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.nn import functional

from neoseg.networks.blocks.tokens import batch_norm_of

__all__ = ["GroupNorm", "InstanceNorm", "Norm", "group_width", "normalisation", "with_exact_groups"]

Norm = Literal["batch", "instance", "group", "plain_instance"]
EPSILON = 1e-5
GROUP_WIDTH = 8

VOXELS_AT_A_TIME = 4096
"""Voxels whose moments torch takes: few enough to be exact to seven digits, and to stay in the cache."""


def normalisation(kind: Norm, channels: int, axes: int = 3) -> nn.Module:
    """Return a normalisation of (B, C, x, y, z) with eps 1e-5; "plain_instance" learns no scale and no shift."""
    if kind == "batch":
        return batch_norm_of(axes)(channels)
    if kind == "group":
        return GroupNorm(channels // group_width(channels), channels)
    return InstanceNorm(channels, affine=kind == "instance")


def group_width(channels: int) -> int:
    """Return the channels of a group: 8, or the divisor nearest to 8 of a number of channels that is no multiple of it.

    Of two that are as near it is the smaller one. It is never 1 unless there is one channel: a single voxel at the
    lowest level would leave nothing to normalise.
    """
    divisors = [width for width in range(2, channels + 1) if channels % width == 0] or [1]
    return min(divisors, key=lambda width: abs(width - GROUP_WIDTH))


class InstanceNorm(nn.Module):
    """Bring each channel of each sample to mean 0 and variance 1 over its voxels, in training and evaluation alike.

    Args:
        channels: channels C of (B, C, x, y, z).
        affine: learn a scale and a shift for each channel.
    """

    def __init__(self, channels: int, *, affine: bool) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        if x.is_contiguous():
            return functional.group_norm(x, self.channels, self.weight, self.bias, EPSILON)
        # Batch normalisation of one sample is the same function; with channels-last memory on a CPU it is several times
        # faster than either of torch's own ways to normalise an instance.
        return self._of_one(x) if len(x) == 1 else torch.cat([self._of_one(sample) for sample in x.chunk(len(x))])

    def _of_one(self, sample: Tensor) -> Tensor:
        if _sums_go_wrong(sample):
            return _normalised(sample, self.channels, self.weight, self.bias, EPSILON)
        # Not functional.batch_norm: where several processes share a batch, that one is taken over all of their samples
        # (training.whole_batch), and a sample is no share of a batch here.
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(sample, self.weight, self.bias, None, None, True, 0.0, EPSILON, cudnn)


class GroupNorm(nn.GroupNorm):
    """torch's, exact with channels-last memory too."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        if not _sums_go_wrong(x):
            return super().forward(x)
        parts = [_normalised(sample, self.num_groups, self.weight, self.bias, self.eps) for sample in x.chunk(len(x))]
        return torch.cat(parts) if len(parts) > 1 else parts[0]


def with_exact_groups(network: nn.Module) -> nn.Module:
    """Turn torch's group normalisations of another's network into those of this file, in place, and return it."""
    for module in network.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = GroupNorm
    return network


def _sums_go_wrong(x: Tensor) -> bool:
    """Tell whether torch would sum a sample of (B, C, x, y, z) as the head of this file says."""
    if x.dtype != torch.float32 or x.device.type != "cpu" or x.is_contiguous():
        return False
    memory = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
    return math.prod(x.shape[2:]) > VOXELS_AT_A_TIME and x.is_contiguous(memory_format=memory)


def _normalised(sample: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, epsilon: float) -> Tensor:
    """Return one sample (1, C, x, y, z) with channels-last memory, each group of channels normalised."""
    if not is_compiling():
        return cast(Tensor, _Normalised.apply(sample, weight, bias, groups, epsilon))  # type: ignore[no-untyped-call]
    grouped: Tensor = sample.unflatten(1, (groups, -1))  # type: ignore[no-untyped-call]
    variance, mean = torch.var_mean(grouped, dim=tuple(range(2, grouped.ndim)), correction=0, keepdim=True)
    y = ((grouped - mean) * (variance + epsilon).rsqrt()).flatten(1, 2)
    if weight is None or bias is None:
        return y
    each = (1, -1, *(1,) * (sample.ndim - 2))
    return y * weight.view(each) + bias.view(each)


def _moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each channel of (1, C, x, y, z) with channels-last memory, (C,) float64 each."""
    parts = torch.split(sample.movedim(1, -1).reshape(-1, sample.shape[1]), VOXELS_AT_A_TIME)
    means, variances = zip(*(torch.batch_norm_update_stats(part, None, None, 0.0) for part in parts), strict=True)
    share = torch.tensor([len(part) for part in parts], dtype=torch.float64)[:, None]
    share /= share.sum()
    each = torch.stack(means).double()
    mean = (each * share).sum(0)
    return mean, ((torch.stack(variances).double() + (each - mean) ** 2) * share).sum(0)


class _Normalised(torch.autograd.Function):
    """Group normalisation of one sample (1, C, x, y, z) with channels-last memory."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, epsilon: float) -> Tensor:
        mean, variance = _moments(x)
        if groups < len(mean):
            of_channels, mean = mean.view(groups, -1), mean.view(groups, -1).mean(1, keepdim=True)
            variance = (variance.view(groups, -1) + (of_channels - mean) ** 2).mean(1)
            width = of_channels.shape[1]
            mean, variance = mean.flatten().repeat_interleave(width), variance.repeat_interleave(width)
        scale = (variance + epsilon).rsqrt().float()
        mean = mean.float()
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.groups = groups
        return torch.native_batch_norm(x, weight, bias, mean, variance.float(), False, 0.0, epsilon)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, weight, mean, scale = ctx.saved_tensors
        channels, wanted = x.shape[1], ctx.needs_input_grad[:3]
        memory = torch.channels_last if x.ndim == 4 else torch.channels_last_3d
        gradient = gradient.contiguous(memory_format=memory)
        if ctx.groups == channels:
            found = torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, None, None, mean, scale, True, EPSILON, wanted
            )
        else:
            one = slice(None, None, channels // ctx.groups)  # of each group
            mean, scale, voxels = mean[None, one].contiguous(), scale[None, one].contiguous(), x[0, 0].numel()
            found = torch.ops.aten.native_group_norm_backward(
                gradient, x, mean, scale, weight, 1, channels, voxels, ctx.groups, wanted
            )
        return (*(value if need else None for value, need in zip(found, wanted, strict=True)), None, None)  # type: ignore[return-value]
