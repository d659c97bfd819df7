"""What the numbers of a channel mean, and units of ADC maps: told from the numbers, and turned into 1e-6 mm2/s."""

from __future__ import annotations

import re

from ..errors import InputError

__all__ = ["MICRO", "UNITS_OF_ADC", "adc_unit", "channel_kind", "factor_to_micro", "is_physical"]

MICRO = "1e-6 mm2/s"
"""The unit that neoseg works in."""

_FACTORS: dict[str, float] = {MICRO: 1.0, "um2/s": 1.0, "1e-3 mm2/s": 1e3, "mm2/s": 1e6}
UNITS_OF_ADC: tuple[str, ...] = tuple(_FACTORS)
"""Every unit of an ADC map that can be converted."""

_PLAUSIBLE = (200.0, 4000.0)
"""Medians over a head, in 1e-6 mm2/s: infarcted tissue has about 300, free water at 37 degrees C about 3000."""


def adc_unit(median: float) -> str:
    """Return the unit in which a median over the brain is plausible for an ADC map, or "" when none is.

    The three scales lie a factor of 1000 apart and the plausible range spans a factor of 20, so at most one fits.

    Args:
        median: median over the voxels of the brain, in the file's own numbers.
    """
    for unit in (MICRO, "1e-3 mm2/s", "mm2/s"):
        if _PLAUSIBLE[0] <= median * _FACTORS[unit] <= _PLAUSIBLE[1]:
            return unit
    return ""


def factor_to_micro(unit: str) -> float:
    """Return the number to multiply with, from ``unit`` to 1e-6 mm2/s.

    Raises:
        InputError: the unit is not one of an ADC map.
    """
    if unit not in _FACTORS:
        raise InputError(
            f"The unit {unit!r} is not one of an ADC map ({', '.join(UNITS_OF_ADC)}); correct the unit_ column of "
            "cases.csv."
        )
    return _FACTORS[unit]


_NO_UNITS = {"", "-", "1", "au", "arb", "arbitrary", "arbitrary units", "none", "n/a", "na", "unknown", "unitless"}


def is_physical(unit: str) -> bool:
    """Tell whether a unit makes the numbers of images comparable: not where it says that they have none ("a.u.")."""
    plain = unit.strip().lower().replace(".", "")
    return plain.removesuffix(" units") not in _NO_UNITS and plain not in _NO_UNITS


_ADC = re.compile(r"(?<![a-z])(?P<z>z?)adc|adc(?![a-z])")
"""ADC at the begin or end of a word, and not within one, as in "broadcast"."""


def channel_kind(name: str) -> str:
    """Return what the numbers of a channel mean, told from its name.

    "adc": a diffusion coefficient; "z": a Z map of one ("zadc"); "ct": Hounsfield units; "mr": arbitrary units.
    """
    plain = name.lower()
    if (found := _ADC.search(plain)) is not None:
        return "z" if plain.startswith("z") or found["z"] else "adc"
    return "ct" if plain == "ct" or plain.startswith("ct_") else "mr"
