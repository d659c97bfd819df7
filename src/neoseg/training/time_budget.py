"""How many steps fit into a given time, by doing once what a training does over and over."""

from __future__ import annotations

import copy
import math
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ..inference.configs import WindowConfig
from .checkpoint import TrainingState, write_checkpoint, write_weights
from .configs import TrainingConfig
from .guard import Guard
from .loader import loading
from .log import PICTURE_SHARE, picture_seconds
from .optim import MovingAverage, make_optimiser
from .step import StepParts, train_step
from .validation import OVERLAP, validate

__all__ = ["Besides", "steps_within"]

LEEWAY = 0.1
"""Most share of a budget by which a training may take longer, where it would otherwise end too early by more."""

TIMED = 20
"""Most steps that are timed, unless there are many sizes of patches."""


@dataclass(frozen=True)
class Besides:
    """Seconds that a training takes besides its steps.

    Attributes:
        validation: of a validation, with the weights of a best epoch.
        epoch: of what ends every epoch.
        picture: of a picture of the curves.
    """

    validation: float = 0.0
    epoch: float = 0.0
    picture: float = 0.0

    def seconds(self, steps: int, step: float, config: TrainingConfig) -> float:
        """Return what a training of so many steps, each of ``step`` seconds, takes besides them."""
        epochs = math.ceil(steps / config.steps_per_epoch)
        # the last epoch is always validated
        apart = self.epoch * epochs + self.validation * math.ceil(epochs / config.validate_every)
        # one with the first epoch, one at the end, and between them as many as may take their share of the time
        between = min((epochs - 1) * self.picture, (steps * step + apart) * PICTURE_SHARE)
        return apart + 2 * self.picture + between


def steps_within(seconds: float, network: nn.Module, parts: StepParts, folder: Path) -> int:
    """Return how many steps fit into a time, at least one, by doing some and what ends an epoch on a copy.

    Args:
        seconds: time that is left.
        network: on its device; it is left as it is.
        parts: of the fold.
        folder: of the fold; files of the trial lie in a folder there meanwhile.
    """
    begin, config, ranks = time.perf_counter(), parts.config, parts.ranks
    trial = copy.deepcopy(network).train()
    optimiser = make_optimiser(trial, config)
    for group in optimiser.param_groups:
        group["lr"] = config.peak_rate * 0.01
    average = MovingAverage(trial, config.ema_decay) if config.ema_decay is not None else None
    guard = Guard.for_format(parts.dtype)
    times: list[float] = []
    sizes = max(1, len(parts.data.patches))
    timing = True
    # batches come as they will: beside a GPU they are made ahead
    with loading(parts, 0, max(TIMED, 2 * sizes) + sizes) as loader:
        while timing:
            start = time.perf_counter()
            train_step(trial, optimiser, parts, len(times), guard, loader.take)
            if average is not None:
                average.update(trial, len(times))
            times.append(time.perf_counter() - start)
            more = len(times) < TIMED and time.perf_counter() - begin < 0.05 * seconds
            # every size as often as any other
            timing = bool(ranks.agreed([len(times) < max(3, 2 * sizes) or more or len(times) % sizes > 0])[0])
    # the first steps allocate memory and choose kernels; the mean, not the median, since augmentation varies
    each = statistics.fmean(times[sizes:])
    besides = _besides(trial, optimiser, average.state if average else None, parts, folder / "timing")
    left = seconds - (time.perf_counter() - begin)

    def takes(steps: int) -> float:
        return steps * each + besides.seconds(steps, each, config)

    fitting = _largest(takes, left)
    # one step more may begin an epoch, with all that ends it
    if takes(fitting + 1) - left < min(left - takes(fitting), LEEWAY * seconds):
        fitting += 1
    # the clock of rank 0 decides
    return int(ranks.agreed([fitting])[0])


def _largest(takes: Callable[[int], float], most: float) -> int:
    """Return the largest number from 1 on that takes no longer than is allowed, or 1."""
    low, high = 1, 2
    while takes(high) <= most:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if takes(middle) <= most else (low, middle)
    return low


def _besides(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, Tensor] | None,
    parts: StepParts,
    folder: Path,
) -> Besides:
    """Time a validation, a checkpoint and a picture, with their files in a folder of their own."""
    start = time.perf_counter()
    if parts.data.validation:
        window = WindowConfig(precision=parts.config.precision, overlap=OVERLAP)
        validate(network, parts.loss, parts.data, window, parts.device, ranks=parts.ranks)
    if not parts.ranks.leads:
        return Besides()
    write_weights(folder / "best", network.state_dict(), {})
    judged = time.perf_counter()
    write_checkpoint(folder / "last", network, optimiser, averaged, TrainingState())
    saved = time.perf_counter()
    picture = picture_seconds(folder / "progress.png")
    shutil.rmtree(folder)
    return Besides(judged - start, saved - judged, picture)
