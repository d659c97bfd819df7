"""Normalisation: what each rule promises, whatever the numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from neoseg.errors import ConfigError
from neoseg.plan.intensity import ChannelStatistics, NormaliseConfig, Rule, default_rule
from neoseg.prepare.normalise import normalise

SEEDS = st.integers(0, 2**32 - 1)
LEVELS = st.floats(-2000, 2000)
SPREADS = st.floats(1, 500)
STATS = ChannelStatistics(mean=1400.0, sd=300.0)
WINDOW = ChannelStatistics(mean=60.0, sd=20.0, low=-20.0, high=140.0)
RULES: tuple[tuple[Rule, NormaliseConfig, ChannelStatistics | None], ...] = (
    ("case", NormaliseConfig(rule="case"), None),
    ("dataset", NormaliseConfig(rule="dataset"), STATS),
    ("ct", NormaliseConfig(rule="ct"), WINDOW),
    ("percentile", NormaliseConfig(rule="percentile"), None),
    ("range", NormaliseConfig(rule="range", low=-5.0, high=5.0), None),
    ("none", NormaliseConfig(rule="none"), None),
)


def scan(seed: int, level: float = 1000.0, spread: float = 200.0) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    generator = np.random.default_rng(seed)
    mask = np.zeros((9, 8, 7), dtype=np.bool_)
    mask[1:8, 2:7, 1:6] = True
    values = np.where(mask, generator.normal(level, spread, mask.shape), 0)
    return values.astype(np.float32), mask


def applied(
    rule: Rule,
    values: NDArray[np.float32],
    mask: NDArray[np.bool_],
    config: NormaliseConfig | None = None,
    statistics: ChannelStatistics | None = None,
) -> NDArray[np.float32]:
    return normalise(values, mask, config or NormaliseConfig(rule=rule), rule=rule, statistics=statistics)


@settings(deadline=None)
@given(seed=SEEDS, level=LEVELS, spread=SPREADS, gain=st.floats(0.1, 50), shift=LEVELS)
def test_by_case_gain_and_offset_of_the_scanner_do_not_matter(
    seed: int, level: float, spread: float, gain: float, shift: float
) -> None:
    values, mask = scan(seed, level, spread)
    found = applied("case", values, mask)
    inside = found[mask].astype(np.float64)
    assert inside.mean() == pytest.approx(0, abs=1e-4)
    assert inside.std() == pytest.approx(1, abs=1e-4)
    assert not found[~mask].any()
    other = np.where(mask, gain * values + shift, 0).astype(np.float32)
    # float32 keeps seven digits of the level, which leaves fewer of a small spread
    digits = 1e-5 * (1 + np.abs(other).max() / (gain * spread))
    assert np.abs(applied("case", other, mask) - found).max() < digits


@settings(deadline=None)
@given(seed=SEEDS, level=LEVELS, spread=SPREADS)
def test_the_data_sets_statistics_are_undone_exactly(seed: int, level: float, spread: float) -> None:
    values, mask = scan(seed, level, spread)
    found = applied("dataset", values, mask, statistics=STATS)
    assert found[mask] * STATS.sd + STATS.mean == pytest.approx(values[mask], abs=1e-3)
    assert not found[~mask].any()


@settings(deadline=None)
@given(seed=SEEDS, level=st.floats(-200, 300), spread=SPREADS)
def test_ct_is_clipped_to_the_window_and_keeps_its_order(seed: int, level: float, spread: float) -> None:
    assert WINDOW.low is not None and WINDOW.high is not None
    values, mask = scan(seed, level, spread)
    found = applied("ct", values, mask, statistics=WINDOW)
    back = found * WINDOW.sd + WINDOW.mean
    assert back.min() >= WINDOW.low - 1e-3
    assert back.max() <= WINDOW.high + 1e-3
    within = (values >= WINDOW.low) & (values <= WINDOW.high)
    assert back[within] == pytest.approx(values[within], abs=1e-3)
    # 0 HU is water, so what lies outside the mask is treated like the rest
    assert found[~mask] == pytest.approx((0 - WINDOW.mean) / WINDOW.sd)


@settings(deadline=None)
@given(seed=SEEDS, level=LEVELS, spread=SPREADS)
def test_percentiles_become_0_and_1(seed: int, level: float, spread: float) -> None:
    values, mask = scan(seed, level, spread)
    found = applied("percentile", values, mask)
    low, high = np.percentile(values[mask], (0.5, 99.5))
    assert found.min() >= 0
    assert found.max() <= 1
    between = mask & (values > low) & (values < high)
    assert found[between] == pytest.approx((values[between] - low) / (high - low), abs=1e-4)
    assert (found[mask & (values <= low)] == 0).all()


@given(seed=SEEDS, low=LEVELS, width=SPREADS)
def test_a_fixed_range_is_linear_and_clips_nothing(seed: int, low: float, width: float) -> None:
    values, mask = scan(seed)
    config = NormaliseConfig(rule="range", low=low, high=low + width)
    found = applied("range", values, mask, config)
    assert found.astype(np.float64) * width + low == pytest.approx(values, abs=1e-2)
    ends = applied("range", np.array([[[low, low + width]]], dtype=np.float32), np.ones((1, 1, 2), np.bool_), config)
    assert ends.ravel() == pytest.approx([0, 1], abs=1e-3)


@pytest.mark.parametrize(("rule", "config", "statistics"), RULES)
def test_turning_a_scan_turns_the_result(
    rule: Rule, config: NormaliseConfig, statistics: ChannelStatistics | None
) -> None:
    values, mask = scan(3, 100.0, 80.0)
    found = applied(rule, values, mask, config, statistics)
    assert found.dtype == np.float32
    turned = applied(
        rule, np.flip(values.transpose(2, 0, 1), 0), np.flip(mask.transpose(2, 0, 1), 0), config, statistics
    )
    assert np.flip(turned, 0).transpose(1, 2, 0) == pytest.approx(found, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 3.7, 1e-4, -2e4])
@pytest.mark.parametrize(("rule", "config", "statistics"), RULES)
def test_a_constant_image_stays_constant_and_finite(
    level: float, rule: Rule, config: NormaliseConfig, statistics: ChannelStatistics | None
) -> None:
    values = np.full((6, 5, 4), level, dtype=np.float32)
    for mask in (np.ones(values.shape, np.bool_), np.zeros(values.shape, np.bool_)):
        found = applied(rule, values, mask, config, statistics)
        assert np.isfinite(found).all()
        assert np.ptp(found) == 0
        if rule in ("case", "percentile"):
            assert not found.any()


def test_a_small_spread_at_a_small_level_is_no_constant() -> None:
    values, mask = scan(0, 1e-3, 2e-4)  # ADC in mm2/s
    assert applied("case", values, mask)[mask].std() == pytest.approx(1, abs=1e-3)


def test_what_is_missing_is_named() -> None:
    values, mask = scan(0)
    for rule in ("dataset", "ct"):
        with pytest.raises(ConfigError, match=rule):
            applied(rule, values, mask)
    with pytest.raises(ConfigError, match="low and high"):
        applied("ct", values, mask, statistics=STATS)
    with pytest.raises(ConfigError, match="low and high"):
        applied("range", values, mask, NormaliseConfig(rule="case"))
    with pytest.raises(ConfigError, match="auto"):
        applied("auto", values, mask)


@pytest.mark.parametrize(
    ("channel", "unit", "rule"),
    [
        ("adc", "1e-6 mm2/s", "dataset"),
        ("zadc", "", "dataset"),
        ("ct", "", "ct"),
        ("CT_venous", "", "ct"),
        ("image", "HU", "ct"),
        ("t2map", "ms", "dataset"),
        ("t1", "", "case"),
        ("flair", "a.u.", "case"),
    ],
)
def test_auto_follows_name_and_unit(channel: str, unit: str, rule: Rule) -> None:
    assert default_rule(channel, unit) == rule


@pytest.mark.parametrize(
    "fields", [{"mean": 0.0, "sd": 0.0}, {"mean": float("nan"), "sd": 1.0}, {"mean": 0.0, "sd": 1.0, "low": 2.0}]
)
def test_statistics_that_make_no_sense_are_refused(fields: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        ChannelStatistics.model_validate(fields)
