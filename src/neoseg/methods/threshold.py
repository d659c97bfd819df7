"""Rules that mark every voxel on one side of a threshold, such as Z < -2 or ADC < 800 (1e-6 mm2/s)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..inference.postprocess import remove_small
from .choice import Choice, best_choice, dice_table
from .configs import RuleConfig

__all__ = ["apply_rule", "choose_rule", "rule_table", "rule_thresholds"]


def rule_thresholds(rule: RuleConfig) -> list[float]:
    """Return the thresholds that are tried."""
    return [float(t) for t in np.linspace(rule.low, rule.high, rule.count)]


def rule_table(
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    truth: NDArray[np.uint8],
    *,
    rule: RuleConfig,
    volumes_mm3: Sequence[float],
    voxel_mm3: float,
) -> NDArray[np.float64]:
    """Return the Dice of one case for every threshold and smallest lesion, see :func:`dice_table`.

    Args:
        values: the rule's channel ``(x, y, z)`` in its unit.
        mask: the brain; nothing outside is marked.
        truth: class indices ``(x, y, z)``.
        rule: channel and thresholds.
        volumes_mm3: smallest lesions that are tried.
        voxel_mm3: volume of a voxel.
    """
    return dice_table(
        lambda threshold: _marked(values, mask, rule, threshold),
        truth,
        thresholds=rule_thresholds(rule),
        volumes_mm3=volumes_mm3,
        voxel_mm3=voxel_mm3,
    )


def choose_rule(tables: Sequence[NDArray[np.float64]], rule: RuleConfig, volumes_mm3: Sequence[float]) -> Choice:
    """Return the threshold and smallest lesion with the highest mean Dice over the cases of the tables."""
    return best_choice(tables, thresholds=rule_thresholds(rule), volumes_mm3=volumes_mm3)


def apply_rule(
    values: NDArray[np.float32], mask: NDArray[np.bool_], *, rule: RuleConfig, choice: Choice, voxel_mm3: float
) -> NDArray[np.uint8]:
    """Return the mask (0/1) that the rule gives with a chosen threshold, small components removed."""
    return remove_small(_marked(values, mask, rule, choice.threshold), choice.minimum_lesion_mm3 / voxel_mm3)


def _marked(
    values: NDArray[np.float32], mask: NDArray[np.bool_], rule: RuleConfig, threshold: float
) -> NDArray[np.uint8]:
    hit = values < threshold if rule.side == "below" else values > threshold
    return (hit & mask).astype(np.uint8)
