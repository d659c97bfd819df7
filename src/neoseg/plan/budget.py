"""What a budget buys: width and depth of the network, patch, patches a step and number of steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, Field

from ..errors import ConfigError, GeometryError
from ..networks.configs import NetworkBase, check_lowest, check_patch, required_multiple
from .candidates import PLANNERS, Voxels
from .cost import step_core_seconds, step_gib
from .reason import as_text
from .scales import PatchScales
from .topology import longest_axis, whole_patch

__all__ = [
    "ENOUGH_STEPS",
    "FEWEST_STEPS",
    "PATCHES_ON_A_BUDGET",
    "Demand",
    "Fitted",
    "PlanConfig",
    "StepSettings",
    "fit",
]

ENOUGH_STEPS = 500
"""A budget that buys fewer steps gets a smaller network.

Chosen by trainings of eight to twelve minutes on one core with one seed. Slices of seven hearts: from some 290 steps to
700 of a narrower wide U-Net the mean Dice rose from 0.78 to 0.88, of UNETR++ (440, smaller patches) from 0.77 to 0.82.
The hippocampus of 36 cases: from 339 steps to 1002 of a narrower U-Net from 0.853 to 0.873, and to 0.875 with 2496 of
the narrowest; of UNETR++ from 258 to 718 from 0.855 to 0.872, and to 0.876 with 1430 of smaller patches. Data that are
harder to tell apart need more width than these, so it is not more."""

FEWEST_STEPS: Mapping[int, int] = MappingProxyType({2: 500, 3: 250})
"""By the axes of the images: where the smallest network gets fewer steps, its patch is shortened.

On the demo's heads twice as many steps of patches half as large changed nothing that one could tell (held out 0.630 and
0.637, in the folds 0.494 and 0.487)."""

PATCHES_ON_A_BUDGET = 6
"""Patches that a step shows at least when time is short: more different lesions are seen than in two whole heads. A
choice made on one fold of the demo's training heads with one seed, so it may change."""

FEWEST_PATCHES, MOST_PATCHES = 2, 16
"""Patches a step."""


class PlanConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """The budget, and numbers that overrule the planner.

    Attributes:
        core_minutes: CPU core-minutes of training a fold; decides the number of steps and the network's width, and
            bounds the patch. Omitted: published width, and the steps of [training].
        memory_gib: memory in GiB of one training step in float32; bounds the patch and the patches a step.
        batch_voxels: voxels of one batch that the planner aims at where the volumes are small.
        spacing_mm: the network's grid; omitted: from the cases.
        patch: voxels along x, y, z; omitted: from the cases.
    """

    core_minutes: float | None = Field(None, gt=0)
    memory_gib: float = Field(6.0, gt=0)
    batch_voxels: int = Field(400_000, gt=0)
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    patch: tuple[Annotated[int, Field(gt=0)], ...] | None = None


@dataclass(frozen=True)
class StepSettings:
    """What is known of a training step before it is planned.

    Attributes:
        batch: patches a step when the user set them.
        bfloat16: whether the machine that trains computes in it by hardware; a budget of core-minutes buys about half
            as much in float32.
        scales: of patches of several sizes.
        classes: channels of each output of the network, background included.
    """

    batch: int | None = None
    bfloat16: bool = True
    scales: PatchScales = field(default_factory=PatchScales)
    classes: int = 2

    def gib(self, network: NetworkBase, patch: Sequence[int], batch: int) -> float:
        """Return the memory in GiB of a step with patches of the largest size."""
        return step_gib(network, patch, batch, self.classes) * self.scales.largest

    def seconds(self, network: NetworkBase, patch: Sequence[int], channels: int, batch: int) -> float:
        """Return the core-seconds of a step in the mean over the sizes."""
        return step_core_seconds(network, patch, channels, batch, bfloat16=self.bfloat16) * self.scales.mean


@dataclass(frozen=True)
class Demand:
    """What the data and the configuration ask of a budget.

    Attributes:
        voxels: the network's grid and the median size of the training cases on it.
        largest: their largest size on that grid.
        given: fields of the network that the user set.
        channels: of the network.
        step: what is known of a training step.
    """

    voxels: Voxels
    largest: tuple[int, ...]
    given: frozenset[str]
    channels: int
    step: StepSettings


@dataclass(frozen=True)
class Fitted:
    """What the budget buys.

    Attributes:
        network: complete.
        voxels: what its levels follow.
        size, sizes: its place among the networks that were tried, from 0, and their number.
        patch, batch, steps: steps are None without a budget of time.
        wanted: the patch without a budget.
        covers_largest: whether ``wanted`` covers the largest training case.
        most_voxels: bound of the patch.
        bound: what set it, in words.
        gib, seconds: forecast of one step.
    """

    network: NetworkBase
    voxels: Voxels
    size: int
    sizes: int
    patch: tuple[int, ...]
    batch: int
    steps: int | None
    wanted: tuple[int, ...]
    covers_largest: bool
    most_voxels: int
    bound: str
    gib: float
    seconds: float


@dataclass(frozen=True)
class _Cut:
    """A patch, and the networks that may take it, the largest first; their levels follow ``voxels``."""

    patch: tuple[int, ...]
    networks: Sequence[NetworkBase]
    voxels: Voxels


def fit(network: NetworkBase, demand: Demand, config: PlanConfig) -> Fitted:
    """Return the largest network, and for it the largest patch, that the budget allows.

    Without a budget of time this is the published size, unless not even the smallest patch fits into memory. With
    one, networks are tried from the published size down until one gets :data:`ENOUGH_STEPS`; the smallest of them gets
    a patch as small as :data:`FEWEST_STEPS` need. A patch that is shortened gets the levels that suit it.

    Args:
        network: as configured; what the user did not set is decided here.
        demand: sizes, what was given.
        config: the budget; a given patch is kept.

    Raises:
        ConfigError: the budget does not suffice for the smallest patch; the least that would do is named.
        GeometryError: a given patch does not suit the network.
    """
    whole = _cut(network, demand, None)
    wanted, covers = _wanted(whole.networks[0], demand)
    if config.patch is not None:
        cuts = [_given(network, whole, demand, config.patch)]
    else:
        cuts = _cuts(network, replace(whole, patch=wanted), demand)
    sizes = range(len(whole.networks))
    fitting = [i for i in sizes if config.patch is not None or _gib(cuts[-1], i, demand) <= config.memory_gib]
    if not fitting:
        raise _too_little_memory(cuts[-1], demand, config)

    def fitted_to(size: int, *, for_steps: bool) -> Fitted:
        return _fitted(cuts, size, demand, config, for_steps=for_steps, wanted=wanted, covers_largest=covers)

    fewest = FEWEST_STEPS[len(demand.largest)]
    for size in fitting:
        fitted = fitted_to(size, for_steps=False)
        if fitted.steps is None or fitted.steps >= (ENOUGH_STEPS if size < fitting[-1] else fewest):
            return fitted
    assert config.core_minutes is not None
    fitted = fitted_to(fitting[-1], for_steps=True)
    assert fitted.steps is not None
    steps = fewest if config.patch is None else 1
    if fitted.steps < steps:
        raise ConfigError(
            f"plan.core_minutes = {config.core_minutes:g}: {fitted.batch} patches of {as_text(fitted.patch)} voxels a "
            f"step, the least that this network can be trained on, take {_rounded_up(steps * fitted.seconds / 60):g} "
            f"core-minutes for {steps} steps; allow at least that."
        )
    return fitted


def _fitted(
    cuts: Sequence[_Cut],
    size: int,
    demand: Demand,
    config: PlanConfig,
    *,
    for_steps: bool,
    wanted: tuple[int, ...],
    covers_largest: bool,
) -> Fitted:
    """Return what a network of this size gets; ``for_steps`` bounds the patch so that there are enough steps."""
    fewest, few = demand.step.batch or FEWEST_PATCHES, demand.step.batch or PATCHES_ON_A_BUDGET
    for cut in cuts:
        network, patch = cut.networks[size], cut.patch
        a_voxel, batch_voxels = demand.step.gib(network, (1, 1, 1), 1), config.batch_voxels
        bounds = {f"{fewest} patches in {config.memory_gib:g} GiB": int(config.memory_gib / a_voxel / fewest)}
        if config.core_minutes is not None:
            if for_steps:
                # A step's seconds grow with its voxels, so that many voxels a step leave enough steps.
                seconds = demand.step.seconds(network, (1, 1, 1), demand.channels, 1)
                batch_voxels = min(batch_voxels, int(60 * config.core_minutes / FEWEST_STEPS[len(patch)] / seconds))
            bounds[f"{few} patches within {batch_voxels:,} voxels a step"] = batch_voxels // few
        bound = min(bounds, key=lambda name: bounds[name])
        if math.prod(patch) <= bounds[bound]:
            break
    voxels = math.prod(patch)
    room = min(batch_voxels // voxels, int(config.memory_gib / a_voxel) // voxels, MOST_PATCHES)
    batch = demand.step.batch or max(FEWEST_PATCHES, room)
    seconds = demand.step.seconds(network, patch, demand.channels, batch)
    return Fitted(
        network=network,
        voxels=cut.voxels,
        size=size,
        sizes=len(cut.networks),
        patch=patch,
        batch=batch,
        steps=None if config.core_minutes is None else int(60 * config.core_minutes / seconds + 1e-6),
        wanted=wanted,
        covers_largest=covers_largest,
        most_voxels=bounds[bound],
        bound=bound,
        gib=demand.step.gib(network, patch, batch),
        seconds=seconds,
    )


def _cut(network: NetworkBase, demand: Demand, patch: tuple[int, ...] | None) -> _Cut:
    """Return a patch with the networks for it, None for one that covers the typical size."""
    voxels = replace(demand.voxels, patch=patch)
    if patch is not None and voxels.seen == voxels.typical:
        voxels = demand.voxels
    planner = PLANNERS[network.kind]
    shaped = planner.shaped(network, voxels, demand.given, _silent)
    return _Cut(patch or voxels.typical, planner.sizes(shaped, demand.given), voxels)


def _wanted(network: NetworkBase, demand: Demand) -> tuple[tuple[int, ...], bool]:
    return whole_patch(demand.largest, demand.voxels.typical, required_multiple(network), network.lowest_voxels)


def _cuts(network: NetworkBase, whole: _Cut, demand: Demand) -> list[_Cut]:
    """Return the whole patch and all that it may be shortened to, down to what the whole one is a multiple of.

    Each time the axis with the largest ratio of patch to typical size is shortened by what the shorter patch has to be
    a multiple of, and the levels are chosen anew for it (nnU-Net's rule).
    """
    cuts, least = [whole], required_multiple(whole.networks[0])
    while True:
        patch, multiple = cuts[-1].patch, required_multiple(cuts[-1].networks[0])
        axis = longest_axis(patch, demand.voxels.typical, least)
        if axis is None:
            return cuts
        shorter = _less(patch, axis, multiple[axis])
        finer = required_multiple(_cut(network, demand, shorter).networks[0])[axis]
        cut = _rounded_down(network, demand, _less(patch, axis, min(finer, multiple[axis])))
        if not _leaves_enough(cut.networks[0], cut.patch):
            return cuts
        cuts.append(cut)


def _less(patch: tuple[int, ...], axis: int, step: int) -> tuple[int, ...]:
    return (*patch[:axis], patch[axis] - step, *patch[axis + 1 :])


def _rounded_down(network: NetworkBase, demand: Demand, patch: tuple[int, ...]) -> _Cut:
    """Return the longest patch within this one that suits the levels chosen for it.

    Where one axis gets too short to be halved, a coarser one may have to be halved more often than before.
    """
    while True:
        cut = _cut(network, demand, patch)
        multiple = required_multiple(cut.networks[0])
        patch = tuple(n // m * m for n, m in zip(cut.patch, multiple, strict=True))
        if patch == cut.patch:
            return cut


def _given(network: NetworkBase, whole: _Cut, demand: Demand, patch: tuple[int, ...]) -> _Cut:
    """Return the patch that the user wants with networks for it.

    Raises:
        GeometryError: it does not suit them.
    """
    cut = _cut(network, demand, patch)
    if not _suits(cut.networks[0], patch) and _suits(whole.networks[0], patch):
        return replace(whole, patch=patch)
    check_patch(cut.networks[0], patch)
    check_lowest(cut.networks[0], patch)
    return cut


def _suits(network: NetworkBase, patch: Sequence[int]) -> bool:
    try:
        check_patch(network, patch)
    except GeometryError:
        return False
    return _leaves_enough(network, patch)


def _leaves_enough(network: NetworkBase, patch: Sequence[int]) -> bool:
    """Whether the lowest level can be normalised."""
    return math.prod(patch) >= network.lowest_voxels * math.prod(required_multiple(network))


def _gib(cut: _Cut, size: int, demand: Demand) -> float:
    return demand.step.gib(cut.networks[size], cut.patch, demand.step.batch or FEWEST_PATCHES)


def _too_little_memory(smallest: _Cut, demand: Demand, config: PlanConfig) -> ConfigError:
    return ConfigError(
        f"plan.memory_gib = {config.memory_gib:g}: {demand.step.batch or FEWEST_PATCHES} patches of "
        f"{as_text(smallest.patch)} voxels, the smallest that suit the network, take "
        f"{_rounded_up(_gib(smallest, -1, demand)):g} GiB; allow at least that."
    )


def _silent(what: str, value: Any, why: str, inputs: str = "") -> None:
    """Note nothing: a decision counts once the patch is chosen."""


def _rounded_up(value: float) -> float:
    """Return two leading digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit) * unit, 12)
