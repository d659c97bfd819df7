"""What a network costs: arithmetic and memory of one training step, from its config alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeGuard

from ..networks.configs import ConvUNet, DynUNetConfig, NetworkBase, UnetrPPConfig
from ..networks.layers import conv_layers
from ..networks.voxel_costs import macs_a_voxel, values_a_voxel

__all__ = ["step_core_seconds", "step_flops", "step_gib"]

BACKWARD = 3
"""A training step costs about three forward passes: one forward, one for each of the two gradients."""

CONV_COPIES = 4.4
"""Tensors of the size of each convolution's output that are alive at the deepest point of a backward pass."""

FULL_SIZE_TENSORS = {"none": 24.0, "full_size": 17.0, "all": 17.0}
"""Tensors of ``feature_size`` channels at full resolution of a UNETR++, by its checkpointing."""

BLOCK_TENSORS, BLOCK_INPUTS = 30.0, 1.0
"""Tensors of a block's width that it keeps, and those of one that is computed again."""

LOSS_COPIES = 6.0
"""Values a class and voxel of each output that the loss holds: logits, their logarithms, probabilities and the truth,
and two gradients of them."""

COUNTED_CLASSES = 2
"""Classes that the other numbers hold already; they were measured with so many."""


def step_flops(config: NetworkBase, patch: Sequence[int], channels: int) -> float:
    """Return floating-point operations of a training step on one patch (2 per multiply-add).

    Counted are convolutions, the linear layers of the attention and the up-convolutions, which are more than nine
    tenths of the work.
    """
    if isinstance(config, UnetrPPConfig):
        macs = _unetr_pp_macs(config, patch, channels)
    elif _by_layers(config):
        macs = math.prod(patch) * sum(layer.macs for layer in conv_layers(config, in_channels=channels, classes=2))
    else:
        macs = math.prod(patch) * macs_a_voxel(config, channels)
    return 2.0 * BACKWARD * macs


def step_gib(config: NetworkBase, patch: Sequence[int], batch: int, classes: int = COUNTED_CLASSES) -> float:
    """Return a forecast of the memory (GiB) that a float32 training step takes beyond the program itself.

    Of a UNETR++ two dozen tensors of ``feature_size`` channels at full resolution and about thirty of a block's width
    a block are alive at the deepest point of the backward pass; of a convolutional network :data:`CONV_COPIES` of each
    convolution's output. Checkpointing leaves out what is computed again, but for the largest part of it. Classes
    beyond two add what the loss holds of them (:data:`LOSS_COPIES`).

    Args:
        config: with the fields that the plan fills.
        patch: voxels along each axis.
        batch: patches a step.
        classes: channels of each output.
    """
    more = max(0, classes - COUNTED_CLASSES) * LOSS_COPIES * _output_voxels(config)
    return (_values(config, patch) + math.prod(patch) * more) * 4 * batch / 2**30


def step_core_seconds(
    config: NetworkBase, patch: Sequence[int], channels: int, batch: int, *, bfloat16: bool = True
) -> float:
    """Return a forecast of the CPU core-seconds of one training step.

    These networks wait for memory more than for arithmetic: one second a GiB of activations and 250 GFLOP/s a core
    describe five of them, from 20 to 190 GFLOP a step, within 40 % (bfloat16 on one core with AVX512-BF16). In float32
    with AVX2 it is 2 seconds a GiB and 90 GFLOP/s. Nothing is timed, so that two machines with the same number format
    make the same plan.

    Args:
        config: with the fields that the plan fills.
        patch: voxels along each axis.
        channels: of the image.
        batch: patches a step.
        bfloat16: whether the step is computed in bfloat16 by hardware, or in float32.
    """
    a_gib, rate = (1.0, 250e9) if bfloat16 else (2.0, 90e9)
    # what is computed again passes through memory all the same
    passed = step_gib(_keeping_all(config), patch, batch)
    return a_gib * passed + batch * step_flops(config, patch, channels) / rate


def _by_layers(config: NetworkBase) -> TypeGuard[ConvUNet]:
    """Whether the convolutions of a network are listed one by one."""
    return isinstance(config, ConvUNet) and not isinstance(config, DynUNetConfig)


def _unetr_pp_macs(config: UnetrPPConfig, patch: Sequence[int], channels: int) -> float:
    assert config.stem is not None
    voxels, axes = math.prod(patch), len(config.stem)
    kernel, half = 3**axes, 2**axes
    tokens = voxels / math.prod(config.stem)
    f = config.feature_size
    macs = voxels * kernel * (channels * f + 3 * f * f)
    for level, (dim, depth, slots) in enumerate(zip(config.dims, config.depths, config.proj, strict=True)):
        n = tokens / half**level
        block = n * dim * dim * (kernel * 2 * config.conv_blocks + 4 + 1 + 1) + 4 * n * dim * slots
        decoder = depth if level < len(config.dims) - 1 else 0
        macs += block * (depth + decoder)
        if level:
            macs += 2 * n * half * config.dims[level - 1] * dim
    return float(macs + voxels * f * config.dims[0])


def _values(config: NetworkBase, patch: Sequence[int]) -> float:
    """Return the values of a patch that are alive at the deepest point of the backward pass, with two classes."""
    if isinstance(config, UnetrPPConfig):
        return _unetr_pp_values(config, patch)
    if _by_layers(config):
        layers = conv_layers(config, in_channels=1, classes=COUNTED_CLASSES)
        return math.prod(patch) * CONV_COPIES * sum(layer.values for layer in layers)
    return math.prod(patch) * values_a_voxel(config)


def _output_voxels(config: NetworkBase) -> float:
    """Return the voxels of all outputs for each voxel of the patch."""
    if _by_layers(config):
        fewer, more = (
            sum(layer.values for layer in conv_layers(config, in_channels=1, classes=classes)) for classes in (1, 2)
        )
        return more - fewer
    # each further output has half the voxels of the one before along every axis, or fewer
    return 1 / (1 - 2.0**-config.spatial_dims) if config.deep_supervision else 1.0


def _keeping_all(config: NetworkBase) -> NetworkBase:
    """Return the network without checkpointing."""
    return config.model_copy(update={"checkpointing": "none"}) if hasattr(config, "checkpointing") else config


def _unetr_pp_values(config: UnetrPPConfig, patch: Sequence[int]) -> float:
    assert config.stem is not None
    voxels, half = math.prod(patch), 2 ** len(config.stem)
    tokens = voxels / math.prod(config.stem)
    again = config.checkpointing == "all"
    values = FULL_SIZE_TENSORS[config.checkpointing] * voxels * config.feature_size
    widths = [dim * tokens / half**level for level, dim in enumerate(config.dims)]
    for level, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
        blocks = depth * (2 if level < len(config.dims) - 1 else 1)
        values += (BLOCK_INPUTS if again else BLOCK_TENSORS) * blocks * width
    return values + (BLOCK_TENSORS * max(widths) if again else 0.0)
