"""How the length of a training is told, so that it can be typed again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from neoseg.cli.options import seconds_in
from neoseg.pipeline.lengths import _how
from neoseg.training.configs import TrainingConfig
from neoseg.training.segments import length_of, length_told


@pytest.mark.parametrize(
    ("length", "told"),
    [
        ({"steps": 1_000_000}, "`--steps 1000000`"),
        ({"steps": None, "epochs": 1234567}, "`--epochs 1234567`"),
        ({"time_budget_s": 1800.0, "steps": 4}, "`--time 1800s`"),
        ({"time_budget_s": 1234567.5}, "`--time 1234567.5s`"),
    ],
)
def test_the_former_length_is_told_in_full(length: dict[str, Any], told: str) -> None:
    assert _how(length, {"epochs": 3}) == told
    if "--time" in told:
        (seconds,) = re.findall(r"--time (\S+)`", told)
        assert seconds_in(seconds) == length["time_budget_s"]


@pytest.mark.parametrize(
    ("before", "now", "told", "remedy"),
    [
        ({"steps": 500}, {"steps": 600}, "steps = 500, but steps = 600", "`--steps 500`"),
        (
            {"steps": 500},
            {"steps": 500, "early_stop_patience": 10},
            "no early_stop_patience, but early_stop_patience = 10",
            "without training.early_stop_patience",
        ),
        (
            {"epochs": 9, "early_stop_patience": 4},
            {"epochs": 9},
            "early_stop_patience = 4, but no early_stop_patience",
            "training.early_stop_patience = 4",
        ),
    ],
)
def test_what_differs_is_named_and_how_to_give_it(
    before: dict[str, Any], now: dict[str, Any], told: str, remedy: str
) -> None:
    first, second = (length_of(TrainingConfig(**given)) for given in (before, now))
    assert f"{length_told(first, second)}, but {length_told(second, first)}" == told
    assert _how(first, second) == remedy


def test_epochs_count_for_nothing_beside_steps_or_a_time() -> None:
    for ruling in ({"steps": 500}, {"time_budget_s": 60.0}):
        assert length_of(TrainingConfig(epochs=3, **ruling)) == length_of(TrainingConfig(epochs=9, **ruling))
    assert length_of(TrainingConfig(epochs=3)) != length_of(TrainingConfig(epochs=9))
