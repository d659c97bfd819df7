"""The settings of all preparation steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, field_validator

from ..plan.intensity import ChannelStatistics, NormaliseConfig, Rule
from ..register.configs import AffineConfig, FfdConfig
from .bias_field import BiasFieldConfig
from .zmap import ZmapConfig

__all__ = ["ADC", "ZADC", "PrepareConfig", "PrepareSettings", "channels_read", "reference_channel"]

ADC, ZADC = "adc", "zadc"


class PrepareConfig(BaseModel, frozen=True, extra="forbid"):
    """Which steps run.

    Attributes:
        space: where the network works. "native": on the scan's own axes. "template": every case is brought, by one
            interpolation, onto the grid of the template (the atlas of the healthy group, or ``template``) and the
            probabilities come back to the scan. Masks and scores are on the scan's grid either way.
        bias_field: bias field correction of every channel but a Z map; omitted or ``false``: no correction.
        affine, ffd: registration to the atlas or template, for cases whose Z map is made and in template space.
            ``ffd = false``: affine only. ``affine = false``: the centres of both brains are laid on each other, and no
            more. The free-form step needs a template of the same contrast.
        reference: the channel that is registered; omitted: "adc", or the first one of the network where that is none.
        zmap: make the Z map of ADC from an atlas of the healthy group when the data bring none; omitted or ``false``:
            never.
        normalise: one rule a channel; channels that are not named use "auto".
    """

    space: Literal["native", "template"] = "native"
    bias_field: BiasFieldConfig | None = None
    affine: AffineConfig | None = AffineConfig()
    ffd: FfdConfig | None = FfdConfig()
    reference: str | None = None
    zmap: ZmapConfig | None = None
    normalise: dict[str, NormaliseConfig] = {}

    @field_validator("bias_field", "affine", "ffd", "zmap", mode="before")
    @classmethod
    def _false_switches_off(cls, value: Any) -> Any:
        """TOML has no null, so ``false`` stands for a step that is left out."""
        return None if value is False else value


class PrepareSettings(BaseModel, frozen=True, extra="forbid"):
    """What the plan decided for preparation; with :class:`PrepareConfig` it is all that preparation depends on.

    Attributes:
        channels: channels in the order that the network sees them; "zadc" may be one that is made here.
        spacing_mm: the spacing of the network's grid.
        unit: of that spacing; None (plans of old): not known.
        rules: normalisation rule of each channel, none of them "auto".
        statistics: foreground statistics of channels under the rule "dataset".
    """

    channels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    unit: Literal["mm", "px"] | None = None
    rules: dict[str, Rule]
    statistics: dict[str, ChannelStatistics] = {}


def channels_read(config: PrepareConfig, channels: Sequence[str], *, makes_zmap: bool) -> tuple[str, ...]:
    """Return the channels that are read of each case, training case and new scan alike: first those of the network.

    ADC comes with them where a Z map is made of it, and the channel that is registered where something is. Another ADC
    map is not read, since the brain would be told from it in training, but not in a new scan that comes without.

    Args:
        config: the steps.
        channels: those of the network; "zadc" is among the result even where it is made.
        makes_zmap: whether the Z map is made, for one case at least.
    """
    more = [ADC] if makes_zmap else []
    more += [reference_channel(config, channels)] if makes_zmap or config.space == "template" else []
    return tuple(dict.fromkeys((*channels, *more)))


def reference_channel(config: PrepareConfig, channels: Sequence[str]) -> str:
    """Return the channel that is registered to the atlas or template, given the channels of the network."""
    if config.reference is not None:
        return config.reference
    if config.zmap is not None or ADC in channels:
        return ADC
    return next((c for c in channels if c != ZADC), ADC)
