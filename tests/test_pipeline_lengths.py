"""How the length of a training is told, so that it can be typed again."""

from __future__ import annotations

import re
from typing import Any

import pytest

from neoseg.cli.options import seconds_in
from neoseg.pipeline.lengths import _how


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
    assert _how(length) == told
    if "--time" in told:
        (seconds,) = re.findall(r"--time (\S+)`", told)
        assert seconds_in(seconds) == length["time_budget_s"]
