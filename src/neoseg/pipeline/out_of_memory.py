"""Words for a training or a prediction that runs out of memory: what was asked for, what is free, what would fit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..cluster.processes import run_side_by_side
from ..errors import MachineError, UserError
from ..machine import free_memory_gib, is_out_of_memory
from ..networks.configs import required_multiple
from ..plan.cost import step_gib
from ..plan.plan import Plan
from ..plan.reason import as_text
from ..plan.topology import patch_for
from ..progress import Progress, Silent

__all__ = [
    "REDUCED",
    "Replan",
    "TrainingStep",
    "patch_that_fits",
    "predicting_in_memory",
    "require_memory",
    "training_in_memory",
]

Replan = Callable[[tuple[int, ...], int], Plan]
"""What returns the plan that another patch and batch would get: with them the planner may take another network."""

LESS = 0.7
"""A patch that is proposed takes at most this share of what the one that failed takes."""

SPARE = 0.9
"""Share of the free memory that a proposed patch may take."""

STEP_DOWN = 0.9
"""How much less the next patch takes when the planner would give the one before another network."""

REDUCED = 0.5
"""Share of the memory of float32 that a step in a number format of two bytes takes at least."""

SURE = 0.75
"""Share of its forecast that a step takes at least, since what works must not be refused: of the Synapse variant of
UNETR++ with its 14 classes it was 0.76 (``benchmarks/results/network_avx2.json``)."""


@dataclass(frozen=True)
class TrainingStep:
    """What a training step asks of the memory, and the words for it.

    Attributes:
        plan: with patch and batch.
        patches: sizes of the patches, where there are several.
        classes: channels of each output of the network.
        share: of what the step takes in float32 that one process has to hold.
        state_gib: what the training holds besides, whatever the patch: weights, gradients, moments.
        replan: for a patch and batch that are proposed; ``None``: the network stays as it is.
    """

    plan: Plan
    patches: Sequence[tuple[int, ...]] = ()
    classes: int = 2
    share: float = 1.0
    state_gib: float = 0.0
    replan: Replan | None = None

    @property
    def largest(self) -> tuple[int, ...]:
        """The size that the memory has to hold."""
        return max((self.plan.patch, *self.patches), key=math.prod)

    @property
    def gib(self) -> float:
        """Forecast of the memory of one process."""
        return self._forecast + self.state_gib

    @property
    def sure_gib(self) -> float:
        """What one process takes at least."""
        return SURE * self._forecast + self.state_gib

    @property
    def _forecast(self) -> float:
        return self.share * step_gib(self.plan.network, self.largest, self.plan.batch, self.classes)

    @property
    def told(self) -> str:
        """The step and its memory."""
        size = as_text(self.largest)
        return f"a step of {self.plan.batch} patches of {size} voxels takes about {_rounded(self.gib)} GiB"

    def advice(self, free_gib: float | None, *, begun: bool) -> str:
        """Return which patch would fit into what is free for one process.

        Args:
            free_gib: that much; ``None``: not known.
            begun: whether the run holds a training already, so that another plan needs another name.
        """
        # every size grows and shrinks with the planned one, and the largest has to fit
        larger = math.prod(self.largest) / math.prod(self.plan.patch)
        free = None if free_gib is None else max(0.0, free_gib - self.state_gib) / larger / self.share
        fits = patch_that_fits(self.plan, free, self.classes, self.replan)
        if fits is None:
            return "not even the smallest patch would fit: plan for another network, or use a machine with more of it"
        patch, batch, gib = fits
        gib = self.share * gib * larger + self.state_gib
        return (
            f"{batch} patches of {as_text(patch)} would take {_rounded(gib)} GiB: set plan.patch = {list(patch)} and "
            f"training.batch_size = {batch}"
            f"{', and give the run another `name`' if begun else ''}"
        )


def require_memory(step: TrainingStep, devices: Sequence[str], *, beside: int = 1, begun: bool = False) -> None:
    """Refuse a training whose steps surely do not fit into what is free now.

    A system that promises more memory than it has ends a process that takes it, without a word; so this is said before
    the start. Where the system does not tell what is free, nothing is refused.

    Args:
        step: of a fold.
        devices: that the folds are dealt to.
        beside: folds that are trained side by side.
        begun: whether the run holds a training already, so that another plan needs another name.

    Raises:
        MachineError: naming what would fit.
    """
    at_once = math.ceil(beside / len(devices))
    free = _least_free(devices[:beside], apart=beside > 1)
    sure = step.sure_gib
    if free is None or at_once * sure <= free:
        return
    advice = step.advice(free / at_once, begun=begun)
    several = f" {beside} folds side by side" if beside > 1 else ""
    fewer = int(free / sure) * len(devices)
    if fewer:
        advice = f"set fold_jobs = {fewer} to train fewer at a time; for all of them, {advice}"
    raise MachineError(
        f"The memory does not suffice to train{several} on {' and '.join(devices[:beside])}: {step.told}"
        f"{' for each fold' if several else ''}{_told(free)}; {advice}."
    )


@contextmanager
def training_in_memory(step: TrainingStep, device: str) -> Iterator[None]:
    """Say which patch would fit when the memory does not suffice for a training step.

    Args:
        step: of the training.
        device: where it runs.

    Raises:
        MachineError: in place of whatever PyTorch, NumPy or Python raised about memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        free = _free_gib(device)
        # what the training holds will be free again
        advice = step.advice(None if free is None else free + step.state_gib, begun=True)
        raise MachineError(
            f"The memory does not suffice to train on {device}: {step.told}{_told(free)}; {advice}."
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


def patch_that_fits(
    plan: Plan, free_gib: float | None, classes: int = 2, replan: Replan | None = None
) -> tuple[tuple[int, ...], int, float] | None:
    """Return patch, batch and GiB of a step that takes clearly less than the plan's and no more than is free.

    One patch a step is tried before the patch is made smaller than half; ``None`` when not even the smallest fits.
    The GiB are those of the network that the patch would get.
    """
    wanted = LESS * step_gib(plan.network, plan.patch, plan.batch, classes)
    if free_gib is not None:
        wanted = min(wanted, SPARE * free_gib)
    most = wanted
    while (found := _fitting(plan, most, classes)) is not None:
        patch, batch = found
        try:
            network = plan.network if replan is None else replan(patch, batch).network
            gib = step_gib(network, patch, batch, classes)
        except UserError:  # the levels that such a patch gets do not divide it
            gib = math.inf
        if gib <= wanted:
            return patch, batch, gib
        most = STEP_DOWN * step_gib(plan.network, patch, batch, classes)
    return None


def _fitting(plan: Plan, most: float, classes: int) -> tuple[tuple[int, ...], int] | None:
    """Return patch and batch of a step of the plan's network that takes at most so many GiB."""
    multiple, lowest = required_multiple(plan.network), plan.network.lowest_voxels
    for batch in sorted({plan.batch, min(plan.batch, 2), 1}, reverse=True):
        voxels = most / step_gib(plan.network, (1, 1, 1), batch, classes)
        patch = patch_for(plan.patch, plan.patch, multiple, voxels, lowest)
        small = math.prod(patch) <= lowest * math.prod(multiple) and batch > 1
        if not small and step_gib(plan.network, patch, batch, classes) <= most:
            return patch, batch
    return None


def _least_free(devices: Sequence[str], *, apart: bool) -> float | None:
    """Return what is free on the device that has least of it.

    Args:
        devices: that are used.
        apart: ask GPUs from another process: who asks holds some of their memory from then on.
    """
    if apart and devices[0] != "cpu":
        found = [o.value for o in run_side_by_side(_free_there, devices, jobs=1, progress=Silent())]
    else:
        found = [_free_gib(device) for device in devices]
    return min((gib for gib in found if gib is not None), default=None)


def _free_there(device: str, slot: int, progress: Progress) -> float | None:
    return _free_gib(device)


def _free_gib(device: str) -> float | None:
    if device == "cpu":
        return free_memory_gib()
    import torch

    return float(torch.cuda.mem_get_info(device)[0]) / 2**30


def _told(free: float | None) -> str:
    return "" if free is None else f", and {_rounded(free)} GiB are free"


def _rounded(gib: float) -> str:
    """Return a number with two digits that count, and never as a power of ten."""
    return f"{float(f'{gib:.2g}'):,.10g}"
