"""Batches made ahead of time are those made in line, and a maker that fails or stands still is heard of."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.data.patches import PatchSampler
from neoseg.errors import InputError, NeosegError
from neoseg.progress import Silent
from neoseg.training import loader as loader_file
from neoseg.training.batch import Batch, StepParts, make_batch
from neoseg.training.loader import Loader, loading
from neoseg.training.loop import FoldRun, train_fold
from neoseg.training.ranks import Ranks
from test_training_loop import CONFIG, PATCH, Tiny, assert_same_bits, cross_entropy, log_lines, make_data


def parts_of(batch_size: int = 4, ranks: Ranks | None = None) -> StepParts:
    data, config = make_data(), CONFIG.model_copy(update={"batch_size": batch_size, "accumulate": 2})
    sampler = PatchSampler([case.label for case in data.train], PATCH)
    augmentation = Augmentation(AugmentConfig())
    parts = StepParts(cross_entropy, data, sampler, augmentation, config, torch.device("cpu"), torch.float32, 3)
    return parts if ranks is None else StepParts(**{**vars(parts), "ranks": ranks})


def nothing(step: int, part: int) -> Batch:
    return Batch(torch.zeros(1), torch.zeros(1), 0)


@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_a_batch_are_its_rows_bit_for_bit(world: int) -> None:
    for step in range(6):
        whole = make_batch(parts_of(), step, 1)
        shares = [make_batch(parts_of(ranks=Ranks(rank, world)), step, 1) for rank in range(world)]
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share.labels for share in shares]), whole.labels)
        assert {share.seed for share in shares} == {whole.seed}


def test_batches_made_ahead_are_those_made_in_line() -> None:
    parts = parts_of()
    ahead = Loader(lambda step, part: make_batch(parts, step, part), 3, 6, 2, ahead=2)
    with loading(parts, 3, 6) as inline:
        for step in range(3, 6):
            for part in range(2):
                one, two = inline.take(step, part), ahead.take(step, part)
                assert torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels)
                assert one.seed == two.seed
    ahead.close()
    assert inline.waited_s > 0 and not [t for t in threading.enumerate() if t.name == "loader"]


def test_only_so_many_are_made_ahead_and_the_thread_ends_when_closed() -> None:
    made: list[int] = []
    loader = Loader(lambda step, part: made.append(step) or nothing(step, part), 0, 1000, 1, ahead=2)
    loader.take(0)
    loader.close()
    assert 1 <= len(made) <= 4
    assert not [t for t in threading.enumerate() if t.name == "loader"]


def test_an_error_in_the_thread_is_shown_as_it_is() -> None:
    def fails(step: int, part: int) -> Batch:
        if step == 2:
            raise InputError("case7: the prepared image is gone.")
        return nothing(step, part)

    loader = Loader(fails, 0, 9, 1, ahead=1)
    loader.take(0)
    loader.take(1)
    with pytest.raises(InputError, match="case7: the prepared image is gone"):
        loader.take(2)
    loader.close()


def test_a_thread_that_is_gone_is_noticed() -> None:
    loader = Loader(nothing, 0, 1, 1, ahead=1)
    loader.take(0)
    with pytest.raises(NeosegError, match=r"ended without a word before step 2; start the same command again"):
        loader.take(1)


def test_a_thread_that_stands_still_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_file, "LIMIT_S", 1.5)
    go_on = threading.Event()
    loader = Loader(lambda step, part: nothing(step, part) if go_on.wait(60) else None, 0, 9, 1, ahead=1)  # type: ignore[arg-type, return-value]
    start = time.monotonic()
    with pytest.raises(NeosegError, match=r"No batch for step 1 came within 2 s"):
        loader.take(0)
    assert time.monotonic() - start < 30
    go_on.set()
    loader.close()


def test_a_training_with_batches_made_ahead_ends_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(folder: Path) -> None:
        run = FoldRun(folder, 7, augmentation=Augmentation(AugmentConfig()))
        train_fold(Tiny(), cross_entropy, data=make_data(), config=CONFIG, run=run, progress=Silent())

    train(tmp_path / "inline")
    init = Loader.__init__
    monkeypatch.setattr(Loader, "__init__", lambda self, *given: init(self, *given[:-1], 2))
    train(tmp_path / "ahead")
    assert_same_bits(tmp_path / "inline", tmp_path / "ahead")
    for line in log_lines(tmp_path / "inline"):
        assert 0 < line["wait_seconds"] < line["step_seconds"] < line["seconds"] and line["peak_gib"] > 0.05
