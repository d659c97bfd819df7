"""One optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import nn

from ..inference.precision import autocast
from .batch import Batch, StepParts, make_batch, next_batch
from .guard import Guard
from .validation import mean_dice
from .whole_batch import WholeBatch

__all__ = ["StepParts", "next_batch", "train_step"]


def train_step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    parts: StepParts,
    step: int,
    guard: Guard,
    take: Callable[[int, int], Batch] | None = None,
) -> tuple[float | None, float | None]:
    """Do one step; one whose loss or gradient is not finite changes nothing but the guard.

    Args:
        network: on its device, in training mode.
        optimiser: of its parameters.
        parts: of the fold.
        step: counted from 0.
        guard: of the training.
        take: gives the batches of the step, by (step, part); ``None`` makes them here.

    Returns:
        The loss (``None`` when the step was undone), and the mean foreground Dice of the first batch (``None`` when it
        holds no foreground).

    Raises:
        NeosegError: too many steps in a row had to be undone.
    """
    config, ranks = parts.config, parts.ranks
    # a forward pass moves the running means of norms, also one that ends in NaN
    buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
    optimiser.zero_grad(set_to_none=True)
    total, dice = 0.0, None
    for part in range(config.accumulate):
        images, labels = (take(step, part) if take else make_batch(parts, step, part)).arrive()
        with WholeBatch(ranks) if ranks.world > 1 else nullcontext():
            with autocast(parts.dtype, parts.device):
                logits = network(images)
            logits, labels = tuple(ranks.whole(head.float()) for head in logits), ranks.whole(labels)
            value = parts.loss(logits, labels.long()) / config.accumulate
            (value * guard.loss_scale).backward()  # type: ignore[no-untyped-call]
        total += value.item()
        if part == 0:
            targets = parts.data.targets
            dice = mean_dice(targets.classes_of(logits[0].detach(), 1, logits=True), labels, targets)
    ranks.add_gradients(network)
    if guard.loss_scale != 1:
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.grad /= guard.loss_scale
    norm = float(nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip))
    total, norm = ranks.agreed((total, norm))
    if not (math.isfinite(total) and math.isfinite(norm)):
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
        guard.failed(f"the loss is {total:.4g}, the norm of its gradient {norm:.4g}")
        return None, dice
    optimiser.step()
    guard.passed()
    return total, dice
