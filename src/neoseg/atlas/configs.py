"""What the building of an atlas can be asked to do."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from ..data.units import MICRO, channel_kind
from ..register.configs import AffineConfig, FfdConfig

__all__ = ["AtlasConfig"]


class AtlasConfig(BaseModel, frozen=True, extra="forbid"):
    """How an atlas is built.

    Attributes:
        spacing_mm: voxel side of the isotropic template in mm.
        margin_mm: empty border around the mean brain in mm.
        rounds: deformable rounds, each against the mean of the round before; 0: affine only.
        estimator: what the mean and the sd of a voxel are over the heads. "mean": arithmetic mean, root mean square.
            "trimmed": both without the share ``trim`` of the most extreme values. "median": median, and 1.4826 times
            the median absolute deviation. The last two are for a group in which a few heads may not be healthy.
        trim: share of the values left out at each end by "trimmed".
        fewest_heads: heads that have to cover a voxel for it to be in the atlas.
        fewest_share: share of the heads that has to cover a voxel for it to be in the atlas.
        smooth_mm: full width at half maximum in mm of the Gaussian over the variance inside the mask; it borrows
            strength from neighbours where the group is small. 0: none.
        channel: what the scans show. A name of ADC, such as "adc": they are converted to 1e-6 mm2/s when they are read.
            A run makes Z maps and templates of "adc" only.
        unit: unit of the scans of another channel, which are taken as they are; omitted: "as stored". That of ADC is
            always 1e-6 mm2/s.
        affine: the affine registration.
        ffd: the deformable registration.
    """

    spacing_mm: float = Field(default=2.0, gt=0, le=10)
    margin_mm: float = Field(default=12.0, ge=0, le=100)
    rounds: int = Field(default=2, ge=0, le=20)
    estimator: Literal["mean", "trimmed", "median"] = "mean"
    trim: float = Field(default=0.1, gt=0, lt=0.5)
    fewest_heads: int = Field(default=3, ge=2)
    fewest_share: float = Field(default=0.5, gt=0, le=1)
    smooth_mm: float = Field(default=3.0, ge=0, le=50)
    channel: str = "adc"
    unit: str = MICRO
    affine: AffineConfig = AffineConfig()
    ffd: FfdConfig = FfdConfig()

    @model_validator(mode="before")
    @classmethod
    def _unit_of_others(cls, data: Any) -> Any:
        """Scans that are not ADC are in no unit that is known here."""
        if isinstance(data, dict) and "unit" not in data and _is_other(data.get("channel")):
            return {**data, "unit": "as stored"}
        return data

    @model_validator(mode="after")
    def _unit_of_adc(self) -> Self:
        if not _is_other(self.channel) and self.unit != MICRO:
            raise ValueError(f"unit is {self.unit!r}, but ADC is converted to {MICRO} when it is read; leave unit out")
        return self


def _is_other(channel: Any) -> bool:
    """Tell whether a channel is named and is not ADC."""
    return isinstance(channel, str) and channel_kind(channel) != "adc"
