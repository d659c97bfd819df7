"""The lesions are hard enough: no threshold on the ADC, not even one chosen on the truth, finds them well."""

from __future__ import annotations

import numpy as np
import pytest

from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.phantom.lesions import stratified

THRESHOLDS = np.arange(500, 1300, 20)


def dice_by_threshold(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice of ``values < threshold`` for every threshold, by counting once."""
    edges = np.concatenate([[-np.inf], THRESHOLDS])
    found = np.cumsum(np.histogram(values, edges)[0])
    right = np.cumsum(np.histogram(values[truth], edges)[0])
    return np.asarray(2 * right / (found + truth.sum()))


def test_dice_by_threshold_equals_the_definition() -> None:
    generator = np.random.default_rng(0)
    values, truth = generator.uniform(400, 1400, 500), generator.random(500) < 0.3
    for place in (0, 17, len(THRESHOLDS) - 1):
        mask = values < THRESHOLDS[place]
        expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert dice_by_threshold(values, truth)[place] == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_the_best_threshold_on_the_adc_is_no_solution_and_no_failure(seed: int) -> None:
    """One threshold for the whole set, chosen on its own truth, with and without the receive field."""
    config = HeadConfig(point_mm=(1.6, 3.0))
    rows: dict[str, list[np.ndarray]] = {"measured": [], "field removed": []}
    for place, burden in enumerate(stratified(np.random.default_rng([17, seed]), 16)):
        if burden == 0:
            continue
        one = make_head(np.random.default_rng([18, seed, place]), config, lesion_burden=burden)
        mask, truth = one.brain.array > 0, one.label.array > 0
        assert truth.any()
        rows["measured"].append(dice_by_threshold(one.adc.array[mask], truth[mask]))
        rows["field removed"].append(dice_by_threshold((one.adc.array / one.field.array)[mask], truth[mask]))
    best = {name: float(np.mean(dice, axis=0).max()) for name, dice in rows.items()}
    assert 0.20 <= best["measured"] <= 0.50, best
    assert 0.25 <= best["field removed"] <= 0.50, best
    assert best["field removed"] > best["measured"]
