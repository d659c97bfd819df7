"""Scores exactly as named benchmarks compute them, with their rules for label values, spacings and empty masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, GeometryError, nearest
from .surface import masd, nsd, surface_distances

__all__ = ["PRESETS", "Preset", "bonbid", "bonbid_aggregates", "preset_named"]

_TOLERANCE_MM = 2.0

_SPACING_ORDERS: Mapping[str, tuple[int, int, int]] = MappingProxyType({"current": (2, 0, 1), "2023": (0, 1, 2)})
"""Which of (sx, sy, sz) the scorer hands to the axes (z, y, x) of its arrays."""


@dataclass(frozen=True, slots=True)
class Preset:
    """A benchmark's own scores.

    Attributes:
        name: key on command lines and in files.
        function: (truth, prediction, spacing_mm) as read from file -> values by metric.
        units: unit of each metric, by name.
        text: the rules in words, for reports.
    """

    name: str
    function: Callable[[NDArray[Any], NDArray[Any], Sequence[float]], dict[str, float]]
    units: Mapping[str, str]
    text: str


def bonbid(
    truth: NDArray[Any], prediction: NDArray[Any], spacing_mm: Sequence[float], spacing_order: str = "current"
) -> dict[str, float]:
    """Score a case as the official BONBID-HIE scorer does.

    Values become uint8 as ITK casts them: toward zero, and modulo 256, so probabilities below 1 vanish and -1 becomes
    255. Dice is over label values, so 255 does not match 1; the distances are between the masks of non-zero values.
    MASD and NSD (2 mm, inclusive) are those of :mod:`neoseg.metrics.surface`. Both masks empty: 1, 0, 1. One empty:
    0, nan, 0.

    Args:
        truth: (x, y, z), any number type, as read from file.
        prediction: (x, y, z), of the same shape.
        spacing_mm: (sx, sy, sz) as read from file, in mm.
        spacing_order: how the scorer hands the spacings to its arrays, which are (z, y, x). "current": (sz, sx, sy),
            since September 2024. "2023": (sx, sy, sz), in the version that was public during the 2023 challenge, which
            measures z with the spacing of x and so gives other distances for thick slices.

    Returns:
        "dice" (ratio), "masd" (mm, nan when undefined), "nsd" (ratio).

    Raises:
        ConfigError: an unknown spacing order.
        GeometryError: the shapes differ, an array is not 3-D, or a spacing is missing or not positive.

    Source: Bao et al., BONBID-HIE, Scientific Data 12:53 (2025), and the organisers' evaluation code, to whose results
        on the cases in tests/references this is equal.
    """
    if spacing_order not in _SPACING_ORDERS:
        raise ConfigError(
            f"spacing_order is {spacing_order!r}, but one of {', '.join(map(repr, _SPACING_ORDERS))} is wanted"
            f"{nearest(spacing_order, _SPACING_ORDERS)}."
        )
    if truth.shape != prediction.shape:
        raise GeometryError(
            f"The truth has the shape {truth.shape} and the prediction {prediction.shape}, but the scorer compares "
            "masks of one shape only; write the prediction on the grid of the truth."
        )
    if truth.ndim != 3 or len(spacing_mm) != 3:
        raise GeometryError(
            f"The masks have the shape {truth.shape} and the spacing is {tuple(spacing_mm)}, but arrays (x, y, z) and "
            "three spacings are wanted."
        )
    spacing = [spacing_mm[axis] for axis in _SPACING_ORDERS[spacing_order]]
    labels = [_as_uint8(array).transpose(2, 1, 0) for array in (truth, prediction)]
    masks = [array != 0 for array in labels]
    # Before the empty cases, so that an unfit spacing is refused there too.
    distances = surface_distances(masks[0], masks[1], spacing)
    if not masks[0].any() or not masks[1].any():
        both = float(not masks[0].any() and not masks[1].any())
        return {"dice": both, "masd": 0.0 if both else float("nan"), "nsd": both}
    common = np.count_nonzero((labels[0] == labels[1]) & masks[0])
    return {
        "dice": float(2 * common / (np.count_nonzero(masks[0]) + np.count_nonzero(masks[1]))),
        "masd": masd(distances),
        "nsd": nsd(distances, _TOLERANCE_MM, rounding=0.0),
    }


def _as_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Cast as ITK does on the usual processors: floats by way of int32, in which NaN and what does not fit end as 0."""
    if array.dtype.kind == "f":
        whole = np.trunc(array.astype(np.float64))
        array = np.where(np.abs(whole) < 2.0**31, whole, 0.0).astype(np.int64)
    return array.astype(np.uint8)


def bonbid_aggregates(rows: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Summarise the cases as the official BONBID-HIE scorer does.

    Undefined values are left out, so a case whose lesion was missed completely does not count in the mean MASD.

    Args:
        rows: the result of :func:`bonbid` for each case; all with the same keys.

    Returns:
        For each key "mean", "std" (of the sample, n - 1), "min", "max", "25pc", "50pc", "75pc" (linear interpolation)
        and "count" of the defined values; nan where there are too few.
    """
    result: dict[str, dict[str, float]] = {}
    for name in rows[0] if rows else ():
        values = np.array([row[name] for row in rows], dtype=np.float64)
        values = values[~np.isnan(values)]
        nan = float("nan")
        some = values if values.size else np.array([nan])
        quartiles = np.quantile(some, [0.25, 0.5, 0.75])
        result[name] = {
            "mean": float(some.mean()),
            "std": float(values.std(ddof=1)) if values.size > 1 else nan,
            "min": float(some.min()),
            "max": float(some.max()),
            "25pc": float(quartiles[0]),
            "50pc": float(quartiles[1]),
            "75pc": float(quartiles[2]),
            "count": float(values.size),
        }
    return result


_BONBID_UNITS: Mapping[str, str] = MappingProxyType({"dice": "ratio", "masd": "mm", "nsd": "ratio"})

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "bonbid": Preset(
            "bonbid",
            bonbid,
            _BONBID_UNITS,
            "BONBID-HIE, current official scorer: spacings handed over as (sz, sx, sy), NSD at 2 mm",
        ),
        "bonbid-2023": Preset(
            "bonbid-2023",
            partial(bonbid, spacing_order="2023"),
            _BONBID_UNITS,
            "BONBID-HIE, scorer of the 2023 challenge: spacings handed over as (sx, sy, sz), NSD at 2 mm",
        ),
    }
)
"""All presets by name."""


def preset_named(name: str) -> Preset:
    """Return the preset of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}{nearest(name, PRESETS)}.")
    return PRESETS[name]
