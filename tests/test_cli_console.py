"""Progress on the screen: one bar for each piece of work under way, in whatever order they end."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from neoseg.cli.console import RichProgress
from neoseg.cli.results import show_summary


def test_bars_side_by_side_end_in_any_order() -> None:
    progress = RichProgress()
    progress.console = Console(file=io.StringIO(), force_terminal=True, width=100, color_system=None)
    first, second = progress.track("Fold 0, epoch 1", 4), progress.track("Fold 1, epoch 1", 4)
    advance, beside = first.__enter__(), second.__enter__()
    assert progress.bars is not None and len(progress.bars.tasks) == 2
    advance(4, "loss 0.5")
    beside(1, "loss 0.7")
    first.__exit__(None, None, None)
    assert [task.description for task in progress.bars.tasks] == ["Fold 1, epoch 1"]
    with progress.track("Fold 0, epoch 2", 4) as again:
        again(2, "")
        assert len(progress.bars.tasks) == 2
    second.__exit__(None, None, None)
    assert progress.bars is None
    with progress.track("Predicting", 3) as alone:
        alone(3, "case7")
    text = progress.console.file.getvalue()
    assert "Fold 0, epoch 1: 4/4 in" in text and "loss 0.5" in text
    assert "Fold 0, epoch 2: 2/4 in" in text
    assert "Fold 1, epoch 1" in text and "Predicting" in text and "case7" in text


def numbers(mean: float | None) -> dict[str, Any]:
    interval = None if mean is None else [mean - 0.1, mean + 0.1]
    return {"mean": mean, "interval": interval, "n": 0 if mean is None else 4}


def test_a_summary_is_told_as_it_is_and_also_where_no_case_holds_anything(capsys: pytest.CaptureFixture[str]) -> None:
    def part(mean: float | None, gap: float | None) -> dict[str, Any]:
        rules = {"z": {"dice": numbers(mean), "network_minus_this": numbers(gap)}}
        return {"dice": numbers(mean), "rules": rules, "empty_cases": {"n_false": 1, "n": 3}}

    summary = {"cv": part(0.5, -0.05), "held_out": part(None, None), "failed": {}}
    show_summary(summary, Path("run"), False)
    assert capsys.readouterr().out.splitlines() == [
        "Cross-validation: network Dice 0.500 [0.400, 0.600] on 4 cases",
        "  rule z: Dice 0.500 [0.400, 0.600] on 4 cases; network minus rule -0.050 [-0.150, 0.050]",
        "  false alarms on 1 of 3 cases with nothing to find",
        "Held-out: network Dice undefined (no scored case holds any of the classes)",
        "  rule z: Dice undefined (no scored case holds any of the classes); network and rule cannot be compared",
        "  false alarms on 1 of 3 cases with nothing to find",
        "Report: run/report.html",
    ]
