"""The settings of all preparation steps."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, field_validator

from ..plan.intensity import ChannelStatistics, NormaliseConfig, Rule
from ..register.configs import AffineConfig, FfdConfig
from .bias_field import BiasFieldConfig
from .zmap import ZmapConfig

__all__ = ["ADC", "ZADC", "PrepareConfig", "PrepareSettings"]

ADC, ZADC = "adc", "zadc"


class PrepareConfig(BaseModel, frozen=True, extra="forbid"):
    """Which steps run.

    Attributes:
        bias_field: N4 on every channel but a Z map; omitted or ``false``: no correction.
        affine, ffd: registration of the ADC to the atlas, for cases whose Z map is made; ``ffd = false``: affine only.
        zmap: make the Z map of ADC from an atlas of the healthy group when the data bring none; omitted or ``false``:
            never.
        normalise: one rule a channel; channels that are not named use "auto".
    """

    bias_field: BiasFieldConfig | None = None
    affine: AffineConfig = AffineConfig()
    ffd: FfdConfig | None = FfdConfig()
    zmap: ZmapConfig | None = None
    normalise: dict[str, NormaliseConfig] = {}

    @field_validator("bias_field", "ffd", "zmap", mode="before")
    @classmethod
    def _false_switches_off(cls, value: Any) -> Any:
        """TOML has no null, so ``false`` stands for a step that is left out."""
        return None if value is False else value


class PrepareSettings(BaseModel, frozen=True, extra="forbid"):
    """What the plan decided for preparation; with :class:`PrepareConfig` it is all that preparation depends on.

    Attributes:
        channels: channels in the order that the network sees them; "zadc" may be one that is made here.
        spacing_mm: the spacing of the network's grid.
        rules: normalisation rule of each channel, none of them "auto".
        statistics: foreground statistics of channels under the rule "dataset".
    """

    channels: tuple[str, ...]
    spacing_mm: tuple[float, ...]
    rules: dict[str, Rule]
    statistics: dict[str, ChannelStatistics] = {}
