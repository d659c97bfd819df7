"""The Plan: every number that follows from the data and the budget, computed, saved, and shown with its reason."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

import numpy as np
from pydantic import BaseModel, Field, ValidationError, model_validator

from ..atomic import read_json, write_json
from ..data.field_of_view import too_thin
from ..errors import ConfigError, InputError, UserError, nearest
from ..networks.configs import NETWORKS, NetworkBase, NetworkConfig, check_lowest, check_patch, required_multiple
from .budget import ENOUGH_STEPS, Demand, Fitted, PlanConfig, StepSettings, fit
from .candidates import PLANNERS, Decided, Voxels
from .fingerprint import CaseFacts, pooled_labelled, pooled_statistics
from .intensity import ChannelStatistics, NormaliseConfig, Rule, common_unit, default_rule
from .reason import Reason, as_text
from .topology import (
    LARGEST_IF,
    SMALL_OBJECT,
    finer_for_small_objects,
    median_shape,
    resampled_shapes,
    target_spacing,
)

__all__ = ["Plan", "PlanConfig", "Reason", "make_plan", "read_plan", "require_axes", "with_axes", "write_plan"]


class Plan(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """What was decided; ``plan.json`` may be edited and is then obeyed.

    Attributes:
        inputs: hash of what the plan was made from; a changed input makes a new plan.
        channels: channels in the order of the network.
        spacing_mm, patch, batch: grid, patch (x, y, z) and patches a step.
        unit: of the spacing, see :class:`neoseg.volume.Grid`; None (plans of old): not known.
        steps: training steps a fold; None leaves them to [training].
        network: complete config of the network.
        rules, statistics: normalisation of each channel.
        reasons: one an entry.
    """

    inputs: str
    channels: Annotated[tuple[str, ...], Field(min_length=1)]
    spacing_mm: tuple[Annotated[float, Field(gt=0)], ...]
    unit: Literal["mm", "px"] | None = None
    patch: tuple[Annotated[int, Field(gt=0)], ...]
    batch: int = Field(gt=0)
    steps: int | None = Field(gt=0)
    network: NetworkConfig
    rules: dict[str, Rule]
    statistics: dict[str, ChannelStatistics]
    reasons: tuple[Reason, ...]

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        """Refuse parts that do not belong together; a person may have edited them."""
        if len(self.spacing_mm) != len(self.patch):
            raise ValueError(f"spacing_mm has {len(self.spacing_mm)} axes and patch has {len(self.patch)}")
        try:
            check_patch(self.network, self.patch)
            check_lowest(self.network, self.patch)
        except UserError as error:
            raise ValueError(f"patch: {error}") from error
        if set(self.rules) != set(self.channels) or len(set(self.channels)) < len(self.channels):
            raise ValueError(f"channels {list(self.channels)} and rules {sorted(self.rules)} have to name the same")
        for channel, rule in self.rules.items():
            stats = self.statistics.get(channel)
            if rule == "auto":
                raise ValueError(f"rules.{channel}: 'auto' is decided by the planner; write the rule itself")
            if rule in ("dataset", "ct") and stats is None:
                raise ValueError(f"rules.{channel}: the rule {rule!r} needs statistics.{channel}")
            if rule == "ct" and (stats is None or stats.low is None):
                raise ValueError(f"rules.{channel}: the rule 'ct' needs low and high in statistics.{channel}")
        return self

    def decisions(self) -> dict[str, Any]:
        """Return what was decided, without the reasons and the hash of the inputs."""
        return self.model_dump(mode="json", exclude={"reasons", "inputs"})


def make_plan(
    facts: Sequence[CaseFacts],
    *,
    channels: Sequence[str],
    network: NetworkBase,
    normalise: dict[str, NormaliseConfig],
    config: PlanConfig,
    step: StepSettings,
    inputs: str,
) -> Plan:
    """Decide everything from the facts of the training cases.

    Args:
        facts: of the training split only.
        channels: channels of the network; one that no case has ("zadc" that is made later) gets no statistics.
        network: the network as configured; fields that the user did not set are planned.
        normalise: rules by channel.
        config: budget and overrules.
        step: what is known of a training step.
        inputs: hash of the inputs, kept in the plan.

    Raises:
        ConfigError: an overruled patch or spacing has the wrong number of axes; fields of the network do not fit
            together; or the budget is too small, and the least that would do is named.
        GeometryError: an overruled patch does not suit the network; the nearest right one is named.
        InputError: the images have a single voxel along an axis, or a channel is constant in every case.
    """
    reasons: list[Reason] = []

    def decided(what: str, value: Any, why: str, inputs: str = "") -> None:
        reasons.append(Reason(what=what, value=as_text(value), why=why, inputs=inputs))

    spacings, shapes = [f.spacing_mm for f in facts], [f.foreground_shape for f in facts]
    axes = _axes_of(facts)
    network = with_axes(network, axes)
    spacing = _spacing(facts, config, decided)
    typical = median_shape(spacings, shapes, spacing)
    largest = tuple(int(n) for n in resampled_shapes(spacings, shapes, spacing).max(axis=0))
    decided("size", typical, "median over the cases", f"boxes of the foreground at this spacing, {_range(largest)}")
    if told := too_thin(largest, f"at {as_text(spacing)} {facts[0].unit} "):
        raise InputError(told)
    given = frozenset(name for name in network.model_fields_set if getattr(network, name) is not None)
    if config.patch is not None:
        require_axes("plan.patch", config.patch, axes)
    demand = Demand(Voxels(spacing, typical, facts[0].unit), largest, given, len(channels), step)
    fitted = fit(network, demand, config)
    # What follows from the voxels is decided with the patch, and told before it.
    PLANNERS[network.kind].shaped(network, fitted.voxels, given, decided)
    _explain(fitted, demand, config, decided)
    rules, statistics = _normalisation(facts, channels, normalise, decided)
    try:
        plan = Plan(
            inputs=inputs,
            channels=tuple(channels),
            spacing_mm=spacing,
            unit=facts[0].unit,
            patch=fitted.patch,
            batch=fitted.batch,
            steps=fitted.steps,
            network=cast(NetworkConfig, fitted.network),
            rules=rules,
            statistics=statistics,
            reasons=tuple(reasons),
        )
        # A network that is only copied with other fields has not been checked.
        Plan.model_validate(plan.model_dump(mode="json"))
    except ValidationError as error:
        raise ConfigError(f"The plan for these images: {_first_problem(error)}; correct the configuration.") from error
    return plan


def write_plan(plan: Plan, path: Path) -> None:
    """Write plan.json."""
    write_json(path, plan.model_dump(mode="json"))


def read_plan(path: Path, *, remedy: str = "correct it or delete the file to plan anew") -> Plan:
    """Read plan.json.

    Args:
        path: the file.
        remedy: what to do when it cannot be read.

    Raises:
        ConfigError: a key or value that is not valid, or parts that do not fit; the message names it.
    """
    try:
        return Plan.model_validate(read_json(path))
    except ValidationError as error:
        raise ConfigError(f"{path}: {_first_problem(error)}; {remedy}.") from error
    except ValueError as error:
        raise ConfigError(f"{path}: this is not JSON ({error}); {remedy}.") from error


def _spacing(facts: Sequence[CaseFacts], config: PlanConfig, decided: Decided) -> tuple[float, ...]:
    spacings, shapes = [f.spacing_mm for f in facts], [f.foreground_shape for f in facts]
    table = np.asarray(spacings)
    lines = [f"{as_text(tuple(float(v) for v in row))}" for row in (np.median(table, 0), table.min(0), table.max(0))]
    numbers = f"{len(facts)} training cases, {facts[0].unit}: median {lines[0]}, finest {lines[1]}, coarsest {lines[2]}"
    if config.spacing_mm is not None:
        spacing = require_axes("plan.spacing_mm", config.spacing_mm, len(spacings[0]))
        decided("spacing", spacing, "given as plan.spacing_mm", numbers)
        return spacing
    spacing = target_spacing(spacings, shapes)
    decided(
        "spacing",
        spacing,
        "median; 10th % of an axis over 3 times coarser than the others with under a third of their voxels",
        numbers,
    )
    return _finer_spacing(facts, spacing, decided) or spacing


def _finer_spacing(
    facts: Sequence[CaseFacts], spacing: tuple[float, ...], decided: Decided
) -> tuple[float, ...] | None:
    """Return a finer grid for small objects in pictures, and say so; None where it stays as it is."""
    pixel = math.prod(spacing)
    diameters = [f.object_px * math.sqrt(math.prod(f.spacing_mm) / pixel) for f in facts if f.object_px is not None]
    typical = median_shape([f.spacing_mm for f in facts], [f.foreground_shape for f in facts], spacing)
    finer = finer_for_small_objects(spacing, typical, diameters)
    if finer is not None:
        decided(
            "finer spacing",
            finer,
            f"half of that: in a quarter of the pictures the typical object is under {SMALL_OBJECT:g} pixels across",
            "diameter of the typical object: quartiles "
            + ", ".join(f"{q:.3g}" for q in np.percentile(diameters, (25, 50, 75))),
        )
    return finer


def _explain(fitted: Fitted, demand: Demand, config: PlanConfig, decided: Decided) -> None:
    """Say how patch, batch, steps and width came about."""
    multiple = required_multiple(fitted.network)
    cover = "the largest" if fitted.covers_largest else "the typical"
    sizes = (
        f"typical {as_text(demand.voxels.typical)}, largest {as_text(demand.largest)}, multiples of {as_text(multiple)}"
    )
    if math.prod(fitted.patch) == fitted.network.lowest_voxels * math.prod(multiple) > math.prod(multiple):
        sizes += ", a single one leaves nothing to normalise"
    if config.patch is not None:
        decided("patch", fitted.patch, "given as plan.patch", sizes)
    elif fitted.patch == fitted.wanted:
        why = f"covers {cover} training volume; one that covers the largest has over {LARGEST_IF:g} times the voxels"
        if fitted.covers_largest:
            why = f"covers {cover} training volume, at most {LARGEST_IF:g} times the voxels that cover the typical one"
        decided("patch", fitted.patch, why, sizes)
    else:
        why = (
            f"shortened from {as_text(fitted.wanted)}, which covers {cover} volume, along the axis that is longest "
            f"against it, to at most {fitted.most_voxels:,} voxels: {fitted.bound}"
        )
        decided("patch", fitted.patch, why, sizes)
    voxels = f"{math.prod(fitted.patch):,} voxels a patch, {config.batch_voxels:,} wanted a step"
    why = (
        "given as training.batch_size"
        if demand.step.batch
        else "as many as that holds, 2 to 16, within memory and time"
    )
    decided("batch", fitted.batch, why, voxels)
    over = fitted.gib > config.memory_gib * 1.0001
    decided(
        "memory",
        f"{fitted.gib:.2f} GiB{f', over plan.memory_gib = {config.memory_gib:g}' if over else ''}",
        f"forecast of a step in float32{'; more than that, since the patch or the batch is given' if over else ''}",
        f"{config.memory_gib:g} GiB allowed",
    )
    minutes = config.core_minutes
    if minutes is not None:
        decided(
            "steps",
            fitted.steps,
            "core-minutes / seconds of a step",
            f"{minutes:g} core-minutes a fold, {fitted.seconds:.3g} core-seconds forecast for a step in "
            f"{'bfloat16' if demand.step.bfloat16 else 'float32, which is what this CPU is fastest in'}",
        )
    field = PLANNERS[fitted.network.kind].field
    if field in demand.given:
        why = f"given as network.{field}"
    elif fitted.sizes == 1:
        why = "the only size"
    elif minutes is None:
        why = "the published size" if fitted.size == 0 else "the largest size that fits into memory"
    elif fitted.size < fitted.sizes - 1:
        why = f"the largest of {fitted.sizes} sizes that the budget trains for {ENOUGH_STEPS} steps"
    else:
        why = f"the smallest of {fitted.sizes} sizes; wider ones get fewer than {ENOUGH_STEPS} steps"
    decided(field, getattr(fitted.network, field), why, f"size {fitted.size + 1} of {fitted.sizes}")


def _normalisation(
    facts: Sequence[CaseFacts], channels: Sequence[str], normalise: dict[str, NormaliseConfig], decided: Decided
) -> tuple[dict[str, Rule], dict[str, ChannelStatistics]]:
    rules: dict[str, Rule] = {}
    statistics: dict[str, ChannelStatistics] = {}
    for channel in channels:
        seen = [f.channels[channel] for f in facts if channel in f.channels]
        rule = normalise.get(channel, NormaliseConfig()).rule
        asked, unit = rule, common_unit({f.unit for f in seen})
        if rule == "auto":
            # A Z map is standardised by definition: mean 0 and sd 1 in healthy tissue.
            made = channel.lower() == "zadc"
            rule = "none" if made or not seen else default_rule(channel, unit)
        if rule in ("dataset", "ct"):
            if not seen:
                raise ConfigError(
                    f"prepare.normalise.{channel}: {rule!r} needs images, but this channel is made later."
                )
            statistics[channel] = _statistics(facts, channel, rule)
        rules[channel] = rule
        why = "by the channel's name and unit" if asked == "auto" else f"given as prepare.normalise.{channel}"
        numbers = f"unit {unit or 'none'}" if seen else "no image of it; it is made in preparation"
        if stats := statistics.get(channel):
            numbers += f", mean {stats.mean:.4g}, sd {stats.sd:.4g}"
            numbers += "" if stats.low is None else f", clipped to {stats.low:.4g} .. {stats.high:.4g}"
        decided(f"normalise {channel}", rule, why, numbers)
    return rules, statistics


def _statistics(facts: Sequence[CaseFacts], channel: str, rule: Rule) -> ChannelStatistics:
    if rule == "dataset":
        mean, sd = pooled_statistics(facts, channel)
        low = high = None
    else:
        pooled = pooled_labelled(facts, channel)
        if pooled is None:
            raise InputError(
                f"prepare.normalise.{channel}: the rule 'ct' takes its window from labelled voxels, but no training "
                "case has one; choose another rule."
            )
        mean, sd, low, high = pooled
    if sd <= 1e-6 * abs(mean):
        raise InputError(
            f"The channel {channel!r} has the value {mean:.6g} throughout the training cases, so it tells nothing; "
            "leave it out of `channels`, or check its files."
        )
    return ChannelStatistics(mean=mean, sd=sd, low=low, high=high)


def with_axes(network: NetworkBase, axes: int) -> NetworkBase:
    """Return the network for images of so many axes, which it follows unless the user set it.

    Raises:
        ConfigError: the user set it otherwise, or a field is not one of such a network.
    """
    if network.spatial_dims == axes:
        return network
    if "spatial_dims" in network.model_fields_set:
        raise ConfigError(
            f"network.spatial_dims = {network.spatial_dims}, but the images have {axes} axes; leave it out, and it "
            "follows the images."
        )
    try:
        return type(network).model_validate({**network.model_dump(exclude_unset=True), "spatial_dims": axes})
    except ValidationError as error:
        raise ConfigError(f"network, for images of {axes} axes: {_first_problem(error)}; correct it.") from error


def _axes_of(facts: Sequence[CaseFacts]) -> int:
    """Return how many axes the images have; one network takes one number, and spacings of one unit."""
    first = facts[0]
    for other in facts[1:]:
        for what, one, two in (
            ("axes", len(first.spacing_mm), len(other.spacing_mm)),
            ("spacings in", first.unit, other.unit),
        ):
            if one != two:
                raise InputError(
                    f"The images of case {first.case} have {what}: {one}, those of case {other.case} {what}: {two}; "
                    "train on one kind and leave the other out."
                )
    return len(first.spacing_mm)


def require_axes(key: str, value: tuple[Any, ...], axes: int) -> tuple[Any, ...]:
    """Return a value that has one number for each axis.

    Raises:
        ConfigError: it has more or fewer.
    """
    if len(value) != axes:
        raise ConfigError(f"{key}: {len(value)} numbers were given, but the images have {axes} axes.")
    return value


def _range(largest: Sequence[int]) -> str:
    return f"the largest {as_text(tuple(largest))}"


def _first_problem(error: ValidationError) -> str:
    # A misspelt key is often the cause of a missing one, so it is told first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    # Below "network" pydantic names the kind, which is no key of the file.
    place = [part for i, part in enumerate(first["loc"]) if not (i == 1 and first["loc"][0] == "network")]
    key = ".".join(str(part) for part in place)
    if first["type"] == "extra_forbidden":
        return f"the key {key!r} is not known{nearest(key, Plan.model_fields) if len(place) == 1 else ''}"
    if first["type"] == "union_tag_invalid":
        tag = str(first["ctx"]["tag"])
        return f"{key}.kind = {tag!r} is not known{nearest(tag, NETWORKS)}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{key}: {message}" if key else message
