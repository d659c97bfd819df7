"""Converted weights of the authors' code as a start: whether a run has their network, and the settings that give it.

In the order of axes of the authors' code each tensor has a meaning at one patch and in one orientation alone. So the
planned network has to be theirs in every field that the weights depend on, and nothing is resized or guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import RunConfig
from ..errors import ConfigError
from ..networks.configs import UnetrPPConfig
from ..plan.plan import Plan

if TYPE_CHECKING:
    from ..networks.published_file import Description

__all__ = ["require_network"]

FREE = ("kind", "deep_supervision", "attention_dropout", "conv_dropout", "layer_scale_init", "checkpointing")
"""Fields that no tensor depends on: what a training sets otherwise, and outputs that may be left out."""

PLANNED = ("stem", "dims", "depths", "heads", "proj", "decoder_proj", "feature_size")
"""Fields that the plan chooses where the configuration leaves them out."""


def require_network(folder: Path, there: Description, plan: Plan, config: RunConfig) -> None:
    """Refuse a run whose network is not that of converted weights.

    Args:
        folder: of the weights.
        there: what it says of them.
        plan: of the run.
        config: of the run; fields that it leaves to the plan are named among the settings, so that they stay.

    Raises:
        ConfigError: the network is another one, or it is not known where the axes of the weights lead; the settings
            that would do are named.
    """
    here = plan.network
    if here.spatial_dims != there.config.spatial_dims:
        raise ConfigError(
            f"{folder}: these weights are for images of {there.config.spatial_dims} axes, but those of this run have "
            f"{here.spatial_dims}; leave out `init_from`."
        )
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
        f"{folder}: the network of this run is not that of these weights{name} ({', '.join(differing)}); set {settings}"
        f"{doubt}, then plan again."
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
