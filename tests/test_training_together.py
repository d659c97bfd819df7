"""Two processes on shares of every batch against one process on the whole batch."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.errors import ConfigError, NeosegError
from neoseg.networks.blocks.normalisation import InstanceNorm
from neoseg.training.launch import Launch, launched
from neoseg.training.ranks import ALONE, Ranks
from neoseg.training.whole_batch import WholeBatch
from test_training_loop import assert_same_bits, fit, log_lines
from training_together import as_rank, fit_mixed, free_port

CURVES = ("loss", "validation_loss", "validation_dice", "smoothed_dice", "learning_rate")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def together(folder: Path, signal_to: tuple[int, int, int] | None = None) -> list[int | None]:
    """Let two processes train in a folder, and return their exit codes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training_together"])
    port = free_port()
    processes = [context.Process(target=as_rank, args=(rank, port, folder, signal_to)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def said_by(folder: Path, rank: int) -> Any:
    return json.loads((folder.parent / f"rank{rank}.json").read_text())


@pytest.mark.slow
def test_two_processes_train_as_one_does_and_go_on_after_a_signal_to_one_of_them(tmp_path: Path) -> None:
    fit_mixed(tmp_path / "alone" / "fold")
    whole, parts = tmp_path / "whole" / "fold", tmp_path / "parts" / "fold"
    assert together(whole) == [0, 0]
    first, second = said_by(whole, 0), said_by(whole, 1)
    assert first == second and len(first) == len(set(first[::2])) * 2 == 24
    for one, two in zip(log_lines(tmp_path / "alone" / "fold"), log_lines(whole), strict=True):
        for key in CURVES:
            assert one[key] == pytest.approx(two[key], abs=1e-5), key
    assert not list(whole.glob(".*"))

    assert together(parts, (1, 6, signal.SIGTERM)) == [0, 0]
    for rank in range(2):
        assert "SIGTERM after step 6 of 12, which is kept" in said_by(parts, rank)
    assert together(parts) == [0, 0]
    assert_same_bits(whole, parts)


@pytest.mark.slow
def test_a_process_whose_partner_dies_ends_in_words_and_one_process_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "fold"
    assert together(folder, (1, 6, signal.SIGKILL)) == [0, -signal.SIGKILL]
    assert "lost each other while" in said_by(folder, 0) and "the same command goes on from there" in said_by(folder, 0)
    fit_mixed(folder)
    assert [line["step"] for line in log_lines(folder)] == [4, 8, 12]


def test_a_batch_that_cannot_be_shared_is_refused_before_the_start(tmp_path: Path) -> None:
    assert [Ranks(rank, 3).rows(6) for rank in range(3)] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    with pytest.raises(ConfigError, match=r"batch_size = 2: 3 processes cannot share a batch"):
        fit(tmp_path, ranks=Ranks(0, 3))
    assert not list(tmp_path.iterdir())


def test_what_torchrun_sets_is_read_and_what_it_never_sets_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == Launch(0, 1, 0)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(ConfigError, match=r"WORLD_SIZE=4.*torchrun"):
        launched()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert launched() == Launch(3, 4, 1)
    monkeypatch.setenv("RANK", "4")
    with pytest.raises(ConfigError, match="RANK=4"):
        launched()


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: torch.rand(2, 1), "rand in its forward pass"),
        (lambda: torch.empty(2).bernoulli_(0.5), "bernoulli_ in its"),
        (lambda: functional.instance_norm(torch.ones(1, 2, 4), torch.zeros(2), torch.ones(2)), "running means"),
    ],
)
def test_draws_that_cannot_be_shared_are_refused_by_name(call: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=f"{told}.*one process"), WholeBatch(Ranks(0, 2)):
        call()


def test_batch_norm_over_one_share_is_that_of_torch_with_its_gradients() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 2, 4, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    bias = torch.tensor([1.0, -1.0], dtype=torch.float64, requires_grad=True)

    def normalised() -> list[torch.Tensor]:
        mean, variance = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
        result = functional.batch_norm(x, mean, variance, weight, bias, True, 0.3, 1e-3)
        return [result, *torch.autograd.grad((result**3).sum(), (x, weight, bias)), mean, variance]

    wanted = normalised()
    with WholeBatch(ALONE):
        found = normalised()
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@dataclass(frozen=True)
class Threads(Ranks):
    """Ranks that are threads of this process and meet at a barrier."""

    barrier: Barrier = field(default_factory=lambda: Barrier(2, timeout=20))
    given: dict[int, Tensor] = field(default_factory=dict)

    def gather(self, own: Tensor) -> list[Tensor]:
        self.given[self.rank] = own.detach().clone()
        self.barrier.wait()
        found = [self.given[rank] for rank in range(self.world)]
        self.barrier.wait()
        return found

    def total(self, own: Tensor) -> Tensor:
        return torch.stack(self.gather(own)).sum(0)


NORMS: dict[str, Callable[[], nn.Module]] = {
    "instance": lambda: InstanceNorm(3, affine=True),
    "plain instance": lambda: InstanceNorm(3, affine=False),
    "batch": lambda: nn.BatchNorm3d(3),
    "batch without running means": lambda: nn.BatchNorm3d(3, track_running_stats=False),
    "torch's instance": lambda: nn.InstanceNorm3d(3, affine=True),
}


@pytest.mark.parametrize("batch", [2, 4])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("kind", NORMS)
def test_norms_over_the_shares_of_two_ranks_are_those_of_one_process(
    kind: str, channels_last: bool, batch: int
) -> None:
    generator = torch.Generator().manual_seed(3)
    # samples of different mean and spread, so that one normalised with another would be seen
    whole = torch.randn(batch, 3, 4, 3, 2, dtype=torch.float64, generator=generator)
    whole = whole * torch.arange(1, batch + 1).view(-1, 1, 1, 1, 1) + torch.arange(batch).view(-1, 1, 1, 1, 1)
    if channels_last:
        whole = whole.contiguous(memory_format=torch.channels_last_3d)

    def normalised(ranks: Ranks) -> list[Tensor]:
        norm, x = NORMS[kind]().double(), whole[ranks.rows(batch)].detach().requires_grad_()
        assert x.is_contiguous() != channels_last
        with WholeBatch(ranks):
            y = norm(x)
            (y**3).sum().backward()
        assert x.grad is not None
        gradients = [p.grad for p in norm.parameters() if p.grad is not None]
        return [y.detach(), x.grad, *gradients, *(b.double() for b in norm.buffers())]

    plain = NORMS[kind]().double()
    shared = Threads(0, 2)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(normalised, (shared, Threads(1, 2, shared.barrier, shared.given)))
    x = whole.detach().requires_grad_()
    y = plain(x)
    (y**3).sum().backward()
    assert x.grad is not None
    weights = len(list(plain.parameters()))
    assert torch.allclose(torch.cat([first[0], second[0]]), y, rtol=1e-10, atol=1e-10)
    assert torch.allclose(torch.cat([first[1], second[1]]), x.grad, rtol=1e-8, atol=1e-8)
    for parameter, one, two in zip(plain.parameters(), first[2:], second[2:], strict=False):
        assert parameter.grad is not None
        assert torch.allclose(one + two, parameter.grad, rtol=1e-10, atol=1e-10)
    for buffer, one, two in zip(plain.buffers(), first[2 + weights :], second[2 + weights :], strict=True):
        assert torch.allclose(one, buffer.double()) and torch.equal(one, two)


def test_weights_that_differ_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "largest", lambda self, number: number)
    Ranks(0, 2).require_equal({"a": torch.ones(3)})
    monkeypatch.setattr(Ranks, "largest", lambda self, number: abs(number))
    with pytest.raises(NeosegError, match="2 processes are no longer equal"):
        Ranks(0, 2).require_equal({"a": torch.ones(3)})
