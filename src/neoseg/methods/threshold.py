"""Rules that mark every voxel on one side of a threshold, such as Z < -2 or ADC < 800 (1e-6 mm2/s)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from ..inference.configs import PostprocessSearch
from ..inference.postprocess import kept_components
from .choice import Choice, best_choice, score_table
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
    search: PostprocessSearch,
    voxel_mm3: float,
) -> NDArray[np.float64]:
    """Return the scores of one case for every threshold and post-processing, see :func:`.choice.score_table`.

    Args:
        values: the rule's channel ``(x, y, z)`` in its unit.
        mask: the brain; nothing outside is marked.
        truth: class indices ``(x, y, z)``.
        rule: channel and thresholds.
        search: the post-processings that are tried, those of the network.
        voxel_mm3: volume of a voxel.
    """
    return score_table(
        lambda threshold: _marked(values, mask, rule, threshold),
        truth,
        thresholds=rule_thresholds(rule),
        search=search,
        voxel_mm3=voxel_mm3,
    )


def choose_rule(tables: Mapping[str, NDArray[np.float64]], rule: RuleConfig, search: PostprocessSearch) -> Choice:
    """Return the threshold and post-processing with the highest mean score over the cases whose tables are given.

    A rule has no usual threshold that could stand where several are about as good.
    """
    return best_choice(list(tables.values()), thresholds=rule_thresholds(rule), search=search)


def apply_rule(
    values: NDArray[np.float32], mask: NDArray[np.bool_], *, rule: RuleConfig, choice: Choice, voxel_mm3: float
) -> NDArray[np.uint8]:
    """Return the mask (0/1) that the rule gives with a chosen threshold and post-processing."""
    marked = _marked(values, mask, rule, choice.threshold)
    return kept_components(marked, choice.minimum_lesion_mm3 / voxel_mm3, choice.keep_largest)


def _marked(
    values: NDArray[np.float32], mask: NDArray[np.bool_], rule: RuleConfig, threshold: float
) -> NDArray[np.uint8]:
    hit = values < threshold if rule.side == "below" else values > threshold
    return (hit & mask).astype(np.uint8)
