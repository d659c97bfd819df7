"""Progress on the screen: one bar for each piece of work under way, in whatever order they end."""

from __future__ import annotations

import io

from rich.console import Console

from neoseg.cli.console import RichProgress


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
