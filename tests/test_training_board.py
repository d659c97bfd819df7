"""What TensorBoard would show: each epoch once, also after a training that was interrupted and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from neoseg.training.board import TAGS, score_board
from test_training_loop import StopAfter, fit, log_lines

events = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = events.EventAccumulator(str(folder))
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_a_resumed_training_shows_each_epoch_once(tmp_path: Path) -> None:
    for steps in (6, 3):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path, progress=StopAfter(steps))
    fit(tmp_path)
    shown, lines = scalars(tmp_path / "tensorboard"), log_lines(tmp_path)
    assert set(shown) == set(TAGS.values())
    for key, tag in TAGS.items():
        assert [step for step, _ in shown[tag]] == [4, 8, 12], tag
        assert [value for _, value in shown[tag]] == pytest.approx([line[key] for line in lines], rel=1e-6), tag


def test_an_epoch_without_a_loss_shows_its_other_numbers(tmp_path: Path) -> None:
    with score_board(tmp_path, [{"step": 2, "loss": None, "undone_steps": 2}]) as add:
        add({"step": 4, "loss": 0.5, "undone_steps": 2})
    assert scalars(tmp_path) == {TAGS["loss"]: [(4, 0.5)], TAGS["undone_steps"]: [(2, 2.0), (4, 2.0)]}
