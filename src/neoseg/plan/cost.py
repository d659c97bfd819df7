"""What a UNETR++ costs: arithmetic and memory of one training step, from its config alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..networks.configs import UnetrPPConfig

__all__ = ["step_core_seconds", "step_flops", "step_gib"]

BACKWARD = 3
"""A training step costs about three forward passes: one forward, one for each of the two gradients."""


def step_flops(config: UnetrPPConfig, patch: Sequence[int], channels: int) -> float:
    """Return floating-point operations of a training step on one patch (2 per multiply-add).

    Counted are the 3x3x3 (3x3) convolutions, the linear layers of the attention and the up-convolutions, which are more
    than nine tenths of the work.
    """
    assert config.stem is not None
    voxels = math.prod(patch)
    tokens = voxels / math.prod(config.stem)
    f = config.feature_size
    kernel, octants = 3**config.spatial_dims, 2**config.spatial_dims
    macs = voxels * kernel * (channels * f + 3 * f * f)
    for level, (dim, depth, slots) in enumerate(zip(config.dims, config.depths, config.proj, strict=True)):
        n = tokens / octants**level
        block = n * dim * dim * (kernel * 2 * config.conv_blocks + 4 + 1 + 1) + 4 * n * dim * slots
        decoder = depth if level < len(config.dims) - 1 else 0
        macs += block * (depth + decoder)
        if level:
            macs += 2 * n * octants * config.dims[level - 1] * dim
    macs += voxels * f * config.dims[0]
    return 2.0 * BACKWARD * macs


def step_gib(config: UnetrPPConfig, patch: Sequence[int], batch: int) -> float:
    """Return a forecast of the memory (GiB) that a float32 training step takes beyond the program itself.

    Two dozen tensors of ``feature_size`` channels at full resolution and about thirty of a block's width a block are
    alive at the deepest point of the backward pass.
    """
    assert config.stem is not None
    voxels = math.prod(patch)
    tokens = voxels / math.prod(config.stem)
    values = 24.0 * voxels * config.feature_size
    for level, (dim, depth) in enumerate(zip(config.dims, config.depths, strict=True)):
        blocks = depth * (2 if level < len(config.dims) - 1 else 1)
        values += 30.0 * blocks * dim * tokens / 2 ** (config.spatial_dims * level)
    return values * 4 * batch / 2**30


def step_core_seconds(
    config: UnetrPPConfig, patch: Sequence[int], channels: int, batch: int, *, bfloat16: bool = True
) -> float:
    """Return a forecast of the CPU core-seconds of one training step.

    These networks wait for memory more than for arithmetic: one second a GiB of activations and 250 GFLOP/s a core
    describe five of them, from 20 to 190 GFLOP a step, within 40 % (bfloat16 on one core with AVX512-BF16). In float32
    with AVX2 it is 2 seconds a GiB and 90 GFLOP/s. Nothing is timed, so that two machines with the same number format
    make the same plan.

    Args:
        config: with its stem.
        patch: voxels along each axis.
        channels: of the image.
        batch: patches a step.
        bfloat16: whether the step is computed in bfloat16 by hardware, or in float32.
    """
    a_gib, rate = (1.0, 250e9) if bfloat16 else (2.0, 90e9)
    return a_gib * step_gib(config, patch, batch) + batch * step_flops(config, patch, channels) / rate
