"""Converted weights of the authors' code as a start: whether a run has their network, and the settings that give it.

In the order of axes of the authors' code each tensor has a meaning at one patch and in one orientation alone. So the
planned network has to be theirs in every field that the weights depend on, and nothing is resized or guessed. Such
weights name neither their channels nor their classes, so these are compared by their number.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from ..data.store import file_digest
from ..errors import ConfigError, InputError
from ..networks.configs import UnetrPPConfig
from ..plan.plan import Plan
from ..targets import Targets

if TYPE_CHECKING:
    from ..networks.published_file import Description

__all__ = ["MODEL", "Converted", "Differences", "differences_by_number", "read_converted", "require_network"]

MODEL = "model.safetensors"

FREE = ("kind", "deep_supervision", "attention_dropout", "conv_dropout", "layer_scale_init", "checkpointing")
"""Fields that no tensor depends on: what a training sets otherwise, and outputs that may be left out."""

PLANNED = ("stem", "dims", "depths", "heads", "proj", "decoder_proj", "feature_size")
"""Fields that the plan chooses where the configuration leaves them out."""


@dataclass(frozen=True)
class Converted:
    """A folder of converted weights.

    Attributes:
        folder: the folder.
        weights: hash of the weights file.
        network: what the folder says of it.
    """

    folder: Path
    weights: str
    network: Description


@dataclass(frozen=True)
class Differences:
    """Why parts of a network start anew.

    Attributes:
        channels: how the channels differ, for the parts that read the image; None where they are the same.
        classes: how the classes or regions differ, for the parts that write them; None where they are the same.
        notes: what has to be known of parts that do not, one sentence each.
    """

    channels: str | None
    classes: str | None
    notes: tuple[str, ...] = ()


def read_converted(folder: Path) -> Converted:
    """Return what a folder that ``neoseg weights convert`` wrote says of its weights.

    Raises:
        InputError: a file is missing, or the description is damaged.
    """
    from ..networks.published_file import read_description

    network = read_description(folder)
    try:
        return Converted(folder, file_digest(folder / MODEL), network)
    except OSError as error:
        raise InputError(
            f"{folder / MODEL}: these weights cannot be read ({error.strerror}); convert the checkpoint again."
        ) from error


def differences_by_number(there: Description, plan: Plan, targets: Targets) -> Differences:
    """Return how channels and classes of a run differ from those of converted weights."""
    channels = classes = None
    if there.in_channels != len(plan.channels):
        channels = f"the channels are {len(plan.channels)} ({', '.join(plan.channels)}) and were {there.in_channels}"
    if targets.overlapping:
        classes = f"the network learns {targets.told} and learned {there.classes} classes"
    elif there.classes != targets.channels:
        names = ", ".join(targets.classes)
        classes = f"the classes are {targets.channels} with the background ({names}) and were {there.classes}"
    same = [what for what, why in (("channels", channels), ("classes", classes)) if why is None]
    if not same:
        return Differences(channels, classes)
    note = f"These weights do not name their {' and '.join(same)}, which were compared by number alone."
    return Differences(channels, classes, (note,))


def require_axes(folder: Path, there: int, here: int) -> None:
    """Refuse weights of networks for images with another number of axes.

    Raises:
        ConfigError: they are.
    """
    if there != here:
        raise ConfigError(
            f"{folder}: these weights are for images of {there} axes, but those of this run have {here}; leave out "
            "`init_from`."
        )


def require_network(source: Converted, plan: Plan, config: RunConfig) -> None:
    """Refuse a run whose network is not that of converted weights.

    Args:
        source: the weights.
        plan: of the run.
        config: of the run; fields that it leaves to the plan are named among the settings, so that they stay.

    Raises:
        ConfigError: the network is another one, or it is not known where the axes of the weights lead; the settings
            that would do are named.
    """
    folder, there, here = source.folder, source.network, plan.network
    require_axes(folder, there.config.spatial_dims, here.spatial_dims)
    own = here if isinstance(here, UnetrPPConfig) else None
    orientation = there.native_orientation or (own.native_orientation if own is not None else None)
    if own is not None:
        wanted, patch = _turned(folder, there, orientation)
        differing = [f"network.{name} is {_told(getattr(own, name))}" for name in _differing(own, wanted)]
        if wanted.size != "free" and plan.patch != patch:
            differing.append(f"plan.patch is {_told(plan.patch)}")
        if not differing:
            return
    else:
        differing = [f"network.kind is {_told(here.kind)}"]
    settings = _settings(there, orientation, own, config)
    doubt = ""
    if own is not None and own.native_orientation not in (None, orientation):
        doubt = f" (where {_told(orientation)} is wrong, convert the checkpoint again with --native-orientation)"
    name = f", published as {there.variant!r}" if there.variant else ""
    raise ConfigError(
        f"{folder}: the network of this run is not that of these weights{name} ({', '.join(differing)}); "
        f"{f'set {settings}{doubt}, then' if settings else 'delete plan.json and'} plan again."
    )


def _turned(folder: Path, there: Description, orientation: str | None) -> tuple[UnetrPPConfig, tuple[int, ...]]:
    try:
        return there.turned(orientation)
    except ConfigError as error:
        raise ConfigError(
            f"{folder}: {str(error).removesuffix('.')}, as native_orientation in [network], or convert the checkpoint "
            "again with --native-orientation."
        ) from error


def _settings(there: Description, orientation: str | None, own: UnetrPPConfig | None, config: RunConfig) -> str:
    """Return the settings that give the network of the weights: those that differ, and those that the plan chooses."""
    given = config.network.model_fields_set if own is not None else frozenset()
    wanted, patch = (there.config, None) if orientation is None else there.turned(orientation)
    names = {*_differing(own or UnetrPPConfig(), wanted), *(name for name in PLANNED if name not in given)}
    if orientation is None:
        names.discard("stem")  # its axes are not known yet
    fields: dict[str, Any] = {} if own is not None else {"kind": wanted.kind}
    fields |= {name: getattr(wanted, name) for name in UnetrPPConfig.model_fields if name in names}
    told = [f"{name} = {_told(value)}" for name, value in fields.items()]
    if orientation is None:
        told.append('native_orientation = where each axis of the arrays of their training leads, such as "SPL"')
    text = f"[network] {', '.join(told)}" if told else ""
    if patch is None or wanted.size == "free" or config.plan.patch == patch:
        return text
    return f"{text}{' and ' if text else ''}[plan] patch = {_told(patch)}"


def _differing(here: UnetrPPConfig, wanted: UnetrPPConfig) -> list[str]:
    names = [name for name in UnetrPPConfig.model_fields if name not in FREE]
    if here.deep_supervision and not wanted.deep_supervision:
        names.append("deep_supervision")
    return [name for name in names if getattr(here, name) != getattr(wanted, name)]


def _told(value: Any) -> str:
    """Return a value as TOML has it."""
    return json.dumps(value)
