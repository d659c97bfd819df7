"""The fixed models behind the forecasts agree with what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neoseg.pipeline import forecast

MEASURED = json.loads((Path(__file__).parents[1] / "benchmarks" / "results" / "forecast.json").read_text())


@pytest.mark.parametrize("size", ["1.0", "1.5"])
@pytest.mark.parametrize("step", ["bias_field", "affine", "ffd", "zmap", "kept", "atlas_head", "atlas_round"])
def test_the_constants_are_those_of_the_measurement(step: str, size: str) -> None:
    row = MEASURED["preparation"]["means"][size]
    cost: forecast.StepCost = getattr(forecast, step.upper())
    assert cost.seconds(row["litres"]) == pytest.approx(row[step], rel=0.3)


def test_a_window_costs_about_a_third_of_a_training_step() -> None:
    for row in MEASURED["windows"].values():
        assert 0.5 < row["a_third_of_a_training_step_s"] / row["measured_s"] < 2


def test_no_step_costs_less_than_nothing() -> None:
    assert forecast.StepCost(-1.0, 0.5).seconds(0.5) == 0
    assert forecast.StepCost(1.0, 0.5).seconds(2.0) == 2.0
