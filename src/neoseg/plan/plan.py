"""The Plan: every number that follows from the data and the budget, computed, saved, and shown with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ..atomic import read_json, write_json
from ..errors import ConfigError
from ..networks.configs import NetworkConfig, check_patch, required_multiple
from .cost import step_core_seconds, step_gib
from .fingerprint import CaseFacts, pooled_statistics
from .intensity import ChannelStatistics, NormaliseConfig, Rule, default_rule
from .topology import levels_for, median_shape, patch_for, stem_for, target_spacing

__all__ = ["Plan", "PlanConfig", "Reason", "make_plan", "read_plan", "write_plan"]

FEWEST_STEPS = 250
"""A budget that buys fewer steps than this with a network gets a smaller one."""


PATCHES_ON_A_BUDGET = 6
"""Patches that a step shows at least when time is short: more different lesions are seen than in two whole heads. A
choice made on one fold of the demo's training heads with one seed, so it may change."""


@dataclass(frozen=True)
class Size:
    """How much of the published width and depth a network has; the planner takes the largest that the budget trains."""

    width: int
    depth: int
    heads: int
    slots: int
    features: int


SIZES = (
    Size(32, 3, 4, 64, 16),
    Size(32, 2, 4, 64, 16),
    Size(24, 2, 4, 32, 16),
    Size(16, 2, 4, 32, 16),
    Size(16, 1, 4, 32, 16),
)
"""From the published size down; the full-resolution branch, which sees the small lesions, keeps its published width.
Fields that the configuration sets are kept."""


class PlanConfig(BaseModel, frozen=True, extra="forbid"):
    """The budget, and numbers that overrule the planner.

    Attributes:
        core_minutes: CPU core-minutes of training a fold; decides the number of steps and the network's width.
            Omitted: published width, and the steps of [training].
        memory_gib: memory of one training step; bounds the patch.
        batch_voxels: voxels of one batch that the planner aims at where the volumes are small.
        spacing_mm: the network's grid; omitted: from the cases.
        patch: voxels along x, y, z; omitted: from the cases.
    """

    core_minutes: float | None = Field(None, gt=0)
    memory_gib: float = Field(6.0, gt=0)
    batch_voxels: int = Field(400_000, gt=0)
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...] | None = None
    patch: tuple[Annotated[int, Field(gt=0)], ...] | None = None


class Reason(BaseModel, frozen=True, extra="forbid"):
    """One decision: what, its value as text, and the numbers that led to it."""

    what: str
    value: str
    why: str


class Plan(BaseModel, frozen=True, extra="forbid"):
    """What was decided; ``plan.json`` may be edited and is then obeyed.

    Attributes:
        inputs: hash of what the plan was made from; a changed input makes a new plan.
        channels: channels in the order of the network.
        spacing_mm, patch, batch: grid, patch (x, y, z) and patches a step.
        steps: training steps a fold; None leaves them to [training].
        network: complete config of the network.
        rules, statistics: normalisation of each channel.
        reasons: one an entry.
    """

    inputs: str
    channels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    patch: tuple[int, ...]
    batch: int
    steps: int | None
    network: NetworkConfig
    rules: dict[str, Rule]
    statistics: dict[str, ChannelStatistics]
    reasons: tuple[Reason, ...]

    def decisions(self) -> dict[str, Any]:
        """Return what was decided, without the reasons and the hash of the inputs."""
        return self.model_dump(mode="json", exclude={"reasons", "inputs"})


def make_plan(
    facts: Sequence[CaseFacts],
    *,
    channels: Sequence[str],
    network: NetworkConfig,
    normalise: dict[str, NormaliseConfig],
    config: PlanConfig,
    batch: int | None,
    inputs: str,
) -> Plan:
    """Decide everything from the facts of the training cases.

    Args:
        facts: of the training split only.
        channels: channels of the network; one that no case has ("zadc" that is made later) gets no statistics.
        network: the network as configured; fields that the user did not set are planned.
        normalise: rules by channel.
        config: budget and overrules.
        batch: patches a step when the user set them.
        inputs: hash of the inputs, kept in the plan.

    Raises:
        ConfigError: an overruled patch or spacing has the wrong number of axes.
        GeometryError: an overruled patch does not suit the network; the nearest right one is named.
    """
    reasons: list[Reason] = []

    def decided(what: str, value: Any, why: str) -> None:
        reasons.append(Reason(what=what, value=_text(value), why=why))

    spacings, shapes = [f.spacing_mm for f in facts], [f.foreground_shape for f in facts]
    axes = len(spacings[0])
    if config.spacing_mm is not None:
        spacing = _axes("plan.spacing_mm", config.spacing_mm, axes)
        decided("spacing", spacing, "given as plan.spacing_mm")
    else:
        spacing = target_spacing(spacings, shapes)
        decided("spacing", spacing, f"median of {len(facts)} training cases, mm; a very coarse axis uses its 10th %")
    typical = median_shape(spacings, shapes, spacing)
    sizes = np.rint(np.asarray(spacings) / np.asarray(spacing) * np.asarray(shapes)).astype(int)
    largest = tuple(int(n) for n in sizes.max(axis=0))
    decided("size", typical, f"median of the foreground boxes at this spacing; the largest is {_text(largest)}")

    given = network.model_fields_set
    stem = network.stem or stem_for(spacing, typical)
    decided("stem", stem, "given" if network.stem else f"tokens near to cubes at {_text(spacing)} mm")
    levels = len(network.dims) if given & {"dims", "depths", "proj"} else levels_for(stem, typical)
    decided("levels", levels, "given" if given & {"dims", "depths", "proj"} else "the lowest keeps 4 tokens an axis")
    network = _sized(network, SIZES[0], levels, given).model_copy(update={"stem": stem})
    multiple = required_multiple(network)
    if config.patch is not None:
        patch = _axes("plan.patch", config.patch, axes)
        check_patch(network, patch)
        decided("patch", patch, "given as plan.patch")
    else:
        bounds = {f"{config.memory_gib:g} GiB": int(config.memory_gib / step_gib(network, (1, 1, 1), 1))}
        if config.core_minutes is not None:
            bounds[f"a batch of {PATCHES_ON_A_BUDGET}"] = config.batch_voxels // PATCHES_ON_A_BUDGET
        bound = min(bounds, key=lambda name: bounds[name])
        patch, whole = patch_for(largest, typical, multiple, bounds[bound])
        why = "covers every training case in one pass" if whole else f"as large as {bound} allows"
        decided("patch", patch, f"{why}; multiples of {_text(multiple)}")
    given_batch, batch = batch, batch or max(2, min(16, config.batch_voxels // math.prod(patch)))
    decided("batch", batch, "given" if given_batch else f"at least 2, about {config.batch_voxels:,} voxels a step")

    steps = None
    if config.core_minutes is not None:
        for size in SIZES:
            network = _sized(network, size, levels, given)
            seconds = step_core_seconds(network, patch, len(channels), batch)
            steps = max(1, int(60 * config.core_minutes / seconds))
            if steps >= FEWEST_STEPS:
                break
        decided("steps", steps, f"{config.core_minutes:g} core-minutes a fold, {seconds:.2f} forecast for a step")
    why = f"the largest of {len(SIZES)} sizes that the budget trains for {FEWEST_STEPS} steps"
    why = "the published size" if config.core_minutes is None else why
    decided("dims", network.dims, "given" if "dims" in given else why)
    rules, statistics = _normalisation(facts, channels, normalise)
    for channel in channels:
        stats = statistics.get(channel)
        value = rules[channel] + (f" (mean {stats.mean:.4g}, sd {stats.sd:.4g})" if stats else "")
        decided(f"normalise {channel}", value, "given" if channel in normalise else "by the channel's unit")
    return Plan(
        inputs=inputs,
        channels=tuple(channels),
        spacing_mm=spacing,
        patch=patch,
        batch=batch,
        steps=steps,
        network=network,
        rules=rules,
        statistics=statistics,
        reasons=tuple(reasons),
    )


def write_plan(plan: Plan, path: Path) -> None:
    """Write plan.json."""
    write_json(path, plan.model_dump(mode="json"))


def read_plan(path: Path) -> Plan:
    """Read plan.json.

    Raises:
        ConfigError: a key or value that is not valid; the message names it.
    """
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {key}: {first['msg']}; correct it or delete the file to plan anew.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: this is not JSON ({error}); correct it or delete the file.") from error


def _sized(network: NetworkConfig, size: Size, levels: int, given: set[str]) -> NetworkConfig:
    """Return the network with a size; fields that the user set stay."""
    fields = {
        "dims": tuple(size.width * 2**i for i in range(levels)),
        "depths": (size.depth,) * levels,
        "heads": size.heads,
        "proj": (size.slots,) * (levels - 1) + (min(size.slots, 32),),
        "decoder_proj": size.slots,
        "feature_size": size.features,
    }
    return network.model_copy(update={name: value for name, value in fields.items() if name not in given})


def _normalisation(
    facts: Sequence[CaseFacts], channels: Sequence[str], normalise: dict[str, NormaliseConfig]
) -> tuple[dict[str, Rule], dict[str, ChannelStatistics]]:
    rules: dict[str, Rule] = {}
    statistics: dict[str, ChannelStatistics] = {}
    for channel in channels:
        seen = [f.channels[channel] for f in facts if channel in f.channels]
        rule = normalise.get(channel, NormaliseConfig()).rule
        if rule == "auto":
            # A Z map is standardised by definition: mean 0 and sd 1 in healthy tissue.
            made = channel.lower() == "zadc"
            rule = "none" if made or not seen else default_rule(channel, seen[0].unit)
        if rule == "dataset" and not seen:
            raise ConfigError(f"prepare.normalise.{channel}: 'dataset' needs images, but this channel is made later.")
        rules[channel] = rule
        if rule == "dataset":
            mean, sd = pooled_statistics(facts, channel)
            statistics[channel] = ChannelStatistics(mean=mean, sd=sd)
    return rules, statistics


def _axes(key: str, value: tuple[Any, ...], axes: int) -> tuple[Any, ...]:
    if len(value) != axes:
        raise ConfigError(f"{key}: {len(value)} numbers were given, but the images have {axes} axes.")
    return value


def _text(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " x ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
    return str(value)
