"""Words for a training or a prediction that ran out of memory: what was asked for, what is free, what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from ..errors import MachineError
from ..machine import free_memory_gib, is_out_of_memory
from ..networks.configs import required_multiple
from ..plan.cost import step_gib
from ..plan.plan import Plan
from ..plan.reason import as_text
from ..plan.topology import patch_for

__all__ = ["patch_that_fits", "predicting_in_memory", "training_in_memory"]

LESS = 0.7
"""A patch that is proposed takes at most this share of what the one that failed takes."""

SPARE = 0.9
"""Share of the free memory that a proposed patch may take."""


@contextmanager
def training_in_memory(plan: Plan, device: str, patches: Sequence[tuple[int, ...]] = ()) -> Iterator[None]:
    """Say which patch would fit when the memory does not suffice for a training step.

    Args:
        plan: with patch and batch.
        device: where the training runs.
        patches: sizes of the patches, where there are several.

    Raises:
        MachineError: in place of whatever PyTorch, NumPy or Python raised about memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        largest = max((plan.patch, *patches), key=math.prod)
        needed, free = step_gib(plan.network, largest, plan.batch), _free_gib(device)
        # every size grows and shrinks with the planned one, and the largest has to fit
        larger = math.prod(largest) / math.prod(plan.patch)
        fits = patch_that_fits(plan, None if free is None else free / larger)
        if fits is None:
            advice = "not even the smallest patch would fit: plan for another network, or use a machine with more of it"
        else:
            patch, batch = fits
            size = step_gib(plan.network, patch, batch) * larger
            advice = (
                f"{batch} patches of {as_text(patch)} would take {size:.2g} GiB: set plan.patch = {list(patch)} and "
                f"training.batch_size = {batch}, or plan.memory_gib = {size:.2g}, and give the run another `name`"
            )
        raise MachineError(
            f"The memory does not suffice to train on {device}: a step of {plan.batch} patches of "
            f"{as_text(largest)} voxels takes about {needed:.2g} GiB{_told(free)}; {advice}."
        ) from error


@contextmanager
def predicting_in_memory(plan: Plan, device: str) -> Iterator[None]:
    """Say what helps when the memory does not suffice for a prediction.

    Raises:
        MachineError: in place of whatever PyTorch, NumPy or Python raised about memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        free = _free_gib(device)
        fits = patch_that_fits(plan, free)
        smaller = "" if fits is None else f", or train with plan.patch = {list(fits[0])}"
        other = "window.batch = 1" if device == "cpu" else "window.batch = 1 or --device cpu"
        raise MachineError(
            f"The memory does not suffice to predict on {device} with patches of {as_text(plan.patch)} "
            f"voxels{_told(free)}; end other programs, use {other}{smaller}."
        ) from error


def patch_that_fits(plan: Plan, free_gib: float | None) -> tuple[tuple[int, ...], int] | None:
    """Return patch and batch of a step that takes clearly less than the plan's and no more than is free.

    One patch a step is tried before the patch is made smaller than half; ``None`` when not even the smallest fits.
    """
    most = LESS * step_gib(plan.network, plan.patch, plan.batch)
    if free_gib is not None:
        most = min(most, SPARE * free_gib)
    multiple, lowest = required_multiple(plan.network), plan.network.lowest_voxels
    for batch in sorted({plan.batch, min(plan.batch, 2), 1}, reverse=True):
        voxels = most / step_gib(plan.network, (1, 1, 1), batch)
        patch = patch_for(plan.patch, plan.patch, multiple, voxels, lowest)
        small = math.prod(patch) <= lowest * math.prod(multiple) and batch > 1
        if not small and step_gib(plan.network, patch, batch) <= most:
            return patch, batch
    return None


def _free_gib(device: str) -> float | None:
    if device == "cpu":
        return free_memory_gib()
    import torch

    return float(torch.cuda.mem_get_info(device)[0]) / 2**30


def _told(free: float | None) -> str:
    return "" if free is None else f", and {free:.2g} GiB are free"
