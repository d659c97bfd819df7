"""One optimiser step, and how many of them fit into a given time."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..augment.augmentation import Augmentation
from ..data.patches import PatchSampler
from ..errors import NeosegError
from ..inference.precision import autocast
from .configs import TrainingConfig
from .data import TrainingData, load_batch
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


def next_batch(parts: StepParts, step: int) -> tuple[Tensor, Tensor]:
    """Return the batch of a step, augmented, on the device; also sets torch's generator for what the network draws.

    Everything random in a step follows from (seed, step) alone, so a resumed training repeats it.
    """
    generator = np.random.default_rng([parts.seed, step])
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
    network: nn.Module, optimiser: torch.optim.Optimizer, parts: StepParts, step: int
) -> tuple[float, float | None]:
    """Do one step.

    Returns:
        The loss, and the mean foreground Dice of the batch (``None`` when it holds no foreground).

    Raises:
        NeosegError: the loss or the gradient is not finite.
    """
    images, labels = next_batch(parts, step)
    with autocast(parts.dtype, parts.device):
        logits = network(images)
    value = parts.loss(tuple(head.float() for head in logits), labels.long())
    optimiser.zero_grad(set_to_none=True)
    value.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(network.parameters(), parts.config.gradient_clip)
    if not (bool(torch.isfinite(value)) and bool(torch.isfinite(norm))):
        raise NeosegError(
            f"The training broke down at step {step + 1}: the loss is {value.item():.4g} and the norm of its gradient "
            f"{norm.item():.4g}; look for extreme values in the images, lower learning_rate (now "
            f"{parts.config.peak_rate:g}) or set precision to float32, and train this fold in a new folder."
        )
    optimiser.step()
    return value.item(), mean_dice(logits[0].detach().argmax(dim=1), labels, parts.data.classes)


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
    times: list[float] = []
    while len(times) < 3 or (len(times) < 20 and time.perf_counter() - begin < 0.05 * seconds):
        start = time.perf_counter()
        train_step(trial, optimiser, parts, len(times))
        times.append(time.perf_counter() - start)
    # the first steps allocate memory and choose kernels; the mean, not the median, since augmentation varies
    each = statistics.fmean(times[1:]) + epoch_overhead_s / parts.config.steps_per_epoch
    return max(1, int((seconds - (time.perf_counter() - begin)) / each))
