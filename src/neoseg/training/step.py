"""One optimiser step, and how many of them fit into a given time."""

from __future__ import annotations

import copy
import math
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..augment.augmentation import Augmentation
from ..data.patches import PatchSampler
from ..inference.precision import autocast
from .configs import TrainingConfig
from .data import TrainingData, load_batch
from .guard import Guard
from .optim import make_optimiser
from .validation import Loss, mean_dice

__all__ = ["StepParts", "next_batch", "steps_within", "train_step"]


@dataclass(frozen=True)
class StepParts:
    """What every step of a fold uses alike.

    Attributes:
        loss: of the logits and the target.
        data: the fold.
        sampler: places the patches.
        augmentation: changes a batch; ``None`` leaves it as it is.
        config: the training.
        device: where the network is.
        dtype: number format of the network's arithmetic.
        seed: of the fold.
    """

    loss: Loss
    data: TrainingData
    sampler: PatchSampler
    augmentation: Augmentation | None
    config: TrainingConfig
    device: torch.device
    dtype: torch.dtype
    seed: int


def next_batch(parts: StepParts, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
    """Return a batch of a step, augmented, on the device; also sets torch's generator for what the network draws.

    Everything random in a step follows from (seed, step, part) alone, so a resumed training repeats it.

    Args:
        parts: of the fold.
        step: counted from 0.
        part: which of the batches whose gradients the step adds up.
    """
    generator = np.random.default_rng([parts.seed, step, part] if part else [parts.seed, step])
    torch.manual_seed(int(generator.integers(2**62)))
    images, labels = load_batch(parts.data, parts.sampler, generator, parts.config.batch_size)
    images, labels = images.to(parts.device), labels.to(parts.device)
    if parts.augmentation is not None:
        images, labels = parts.augmentation(
            images, labels, generator, spacing_mm=parts.data.spacing_mm, fill=parts.data.fill
        )
    if images.ndim == 5:
        images = images.to(memory_format=torch.channels_last_3d)
    return images, labels


def train_step(
    network: nn.Module, optimiser: torch.optim.Optimizer, parts: StepParts, step: int, guard: Guard
) -> tuple[float | None, float | None]:
    """Do one step; one whose loss or gradient is not finite changes nothing but the guard.

    Returns:
        The loss (``None`` when the step was undone), and the mean foreground Dice of the first batch (``None`` when it
        holds no foreground).

    Raises:
        NeosegError: too many steps in a row had to be undone.
    """
    config = parts.config
    # a forward pass moves the running means of norms, also one that ends in NaN
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    optimiser.zero_grad(set_to_none=True)
    total, dice = 0.0, None
    for part in range(config.accumulate):
        images, labels = next_batch(parts, step, part)
        with autocast(parts.dtype, parts.device):
            logits = network(images)
        value = parts.loss(tuple(head.float() for head in logits), labels.long()) / config.accumulate
        (value * guard.loss_scale).backward()  # type: ignore[no-untyped-call]
        total += value.item()
        if part == 0:
            dice = mean_dice(logits[0].detach().argmax(dim=1), labels, parts.data.classes)
    if guard.loss_scale != 1:
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad /= guard.loss_scale
    norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip))
    if not (math.isfinite(total) and math.isfinite(norm)):
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        guard.failed(f"the loss is {total:.4g}, the norm of its gradient {norm:.4g}")
        return None, dice
    optimiser.step()
    guard.passed()
    return total, dice


def steps_within(seconds: float, network: nn.Module, parts: StepParts, epoch_overhead_s: float) -> int:
    """Return how many steps fit into a time, by timing some on a copy of the network (the network is left as it is).

    Args:
        seconds: time that is left.
        network: on its device.
        parts: of the fold.
        epoch_overhead_s: time for what happens once an epoch.
    """
    begin = time.perf_counter()
    trial = copy.deepcopy(network).train()
    optimiser = make_optimiser(trial, parts.config)
    for group in optimiser.param_groups:
        group["lr"] = parts.config.peak_rate * 0.01
    guard = Guard.for_format(parts.dtype)
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - begin < 0.05 * seconds):
        start = time.perf_counter()
        train_step(trial, optimiser, parts, len(times), guard)
        times.append(time.perf_counter() - start)
    # the first steps allocate memory and choose kernels; the mean, not the median, since augmentation varies
    each = statistics.fmean(times[1:]) + epoch_overhead_s / parts.config.steps_per_epoch
    return max(1, int((seconds - (time.perf_counter() - begin)) / each))
