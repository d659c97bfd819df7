"""What a budget buys: width and depth of the network, patch, patches a step and number of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, Field

from ..errors import ConfigError
from ..networks.configs import NetworkBase, check_lowest, check_patch, required_multiple
from .candidates import PLANNERS
from .cost import step_core_seconds, step_gib
from .reason import as_text
from .scales import PatchScales
from .topology import patch_for, smallest_patch, whole_patch

__all__ = [
    "FEWEST_STEPS",
    "PATCHES_ON_A_BUDGET",
    "Demand",
    "Fitted",
    "PlanConfig",
    "StepSettings",
    "fit",
]

FEWEST_STEPS = 250
"""A budget that buys fewer steps than this gets a smaller network, and then a smaller patch."""

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
    """

    batch: int | None = None
    bfloat16: bool = True
    scales: PatchScales = field(default_factory=PatchScales)

    def gib(self, network: NetworkBase, patch: Sequence[int], batch: int) -> float:
        """Return the memory in GiB of a step with patches of the largest size."""
        return step_gib(network, patch, batch) * self.scales.largest

    def seconds(self, network: NetworkBase, patch: Sequence[int], channels: int, batch: int) -> float:
        """Return the core-seconds of a step in the mean over the sizes."""
        return step_core_seconds(network, patch, channels, batch, bfloat16=self.bfloat16) * self.scales.mean


@dataclass(frozen=True)
class Demand:
    """What the data and the configuration ask of a budget.

    Attributes:
        typical, largest: median and largest size of the training cases on the network's grid.
        given: fields of the network that the user set.
        channels: of the network.
        step: what is known of a training step.
    """

    typical: tuple[int, ...]
    largest: tuple[int, ...]
    given: frozenset[str]
    channels: int
    step: StepSettings


@dataclass(frozen=True)
class Fitted:
    """What the budget buys.

    Attributes:
        network: complete.
        size, sizes: its place among the networks that were tried, from 0, and their number.
        patch, batch, steps: steps are None without a budget of time.
        wanted: the patch without a budget.
        covers_largest: whether ``wanted`` covers the largest training case.
        most_voxels: bound of the patch.
        bound: what set it, in words.
        gib, seconds: forecast of one step.
    """

    network: NetworkBase
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


def fit(network: NetworkBase, demand: Demand, config: PlanConfig) -> Fitted:
    """Return the largest network, and for it the largest patch, that the budget allows.

    Without a budget of time this is the published size, unless not even the smallest patch fits into memory. With
    one, networks are tried from the published size down until one gets :data:`FEWEST_STEPS` steps; the smallest of
    them then gets a patch as small as that many steps need.

    Args:
        network: with the fields that follow from the voxels; its size is decided here unless the user set it.
        demand: sizes, what was given.
        config: the budget; a given patch is kept.

    Raises:
        ConfigError: the budget does not suffice for the smallest patch; the least that would do is named.
        GeometryError: a given patch does not suit the network.
    """
    networks = PLANNERS[network.kind].sizes(network, demand.given)
    fitting = [
        i for i, n in enumerate(networks) if config.patch is not None or _smallest_gib(n, demand) <= config.memory_gib
    ]
    if not fitting:
        raise _too_little_memory(networks[-1], demand, config)
    for index in fitting:
        fitted = _fitted(networks, index, demand, config, config.batch_voxels)
        if fitted.steps is None or fitted.steps >= FEWEST_STEPS:
            return fitted
    assert config.core_minutes is not None
    # A step's seconds grow with its voxels, so that many voxels a step leave enough steps.
    last = networks[fitting[-1]]
    a_voxel = demand.step.seconds(last, (1, 1, 1), demand.channels, 1)
    voxels = int(60 * config.core_minutes / FEWEST_STEPS / a_voxel)
    fitted = _fitted(networks, fitting[-1], demand, config, min(voxels, config.batch_voxels))
    assert fitted.steps is not None
    if fitted.steps < (FEWEST_STEPS if config.patch is None else 1):
        steps = FEWEST_STEPS if config.patch is None else 1
        raise ConfigError(
            f"plan.core_minutes = {config.core_minutes:g}: {fitted.batch} patches of {as_text(fitted.patch)} voxels a "
            f"step, the least that this network can be trained on, take {_rounded_up(steps * fitted.seconds / 60):g} "
            f"core-minutes for {steps} steps; allow at least that."
        )
    return fitted


def _fitted(
    networks: Sequence[NetworkBase], size: int, demand: Demand, config: PlanConfig, batch_voxels: int
) -> Fitted:
    network = networks[size]
    multiple = required_multiple(network)
    wanted, covers = whole_patch(demand.largest, demand.typical, multiple, network.lowest_voxels)
    fewest = demand.step.batch or FEWEST_PATCHES
    a_voxel = demand.step.gib(network, (1, 1, 1), 1)
    bounds = {f"{fewest} patches in {config.memory_gib:g} GiB": int(config.memory_gib / a_voxel / fewest)}
    if config.core_minutes is not None:
        few = demand.step.batch or PATCHES_ON_A_BUDGET
        bounds[f"{few} patches within {batch_voxels:,} voxels a step"] = batch_voxels // few
    bound = min(bounds, key=lambda name: bounds[name])
    if config.patch is not None:
        check_patch(network, config.patch)
        check_lowest(network, config.patch)
        patch = config.patch
    else:
        patch = patch_for(wanted, demand.typical, multiple, bounds[bound], network.lowest_voxels)
    voxels = math.prod(patch)
    room = min(batch_voxels // voxels, int(config.memory_gib / a_voxel) // voxels, MOST_PATCHES)
    batch = demand.step.batch or max(FEWEST_PATCHES, room)
    seconds = demand.step.seconds(network, patch, demand.channels, batch)
    return Fitted(
        network=network,
        size=size,
        sizes=len(networks),
        patch=patch,
        batch=batch,
        steps=None if config.core_minutes is None else int(60 * config.core_minutes / seconds + 1e-6),
        wanted=wanted,
        covers_largest=covers,
        most_voxels=bounds[bound],
        bound=bound,
        gib=demand.step.gib(network, patch, batch),
        seconds=seconds,
    )


def _smallest_gib(network: NetworkBase, demand: Demand) -> float:
    return demand.step.gib(network, _smallest(network, demand), demand.step.batch or FEWEST_PATCHES)


def _smallest(network: NetworkBase, demand: Demand) -> tuple[int, ...]:
    return smallest_patch(demand.typical, required_multiple(network), network.lowest_voxels)


def _too_little_memory(network: NetworkBase, demand: Demand, config: PlanConfig) -> ConfigError:
    return ConfigError(
        f"plan.memory_gib = {config.memory_gib:g}: {demand.step.batch or FEWEST_PATCHES} patches of "
        f"{as_text(_smallest(network, demand))} voxels, the smallest that suit the network, take "
        f"{_rounded_up(_smallest_gib(network, demand)):g} GiB; allow at least that."
    )


def _rounded_up(value: float) -> float:
    """Return two leading digits, upwards."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit) * unit, 12)
