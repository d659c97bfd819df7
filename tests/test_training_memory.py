"""What a training holds besides its steps: the forecast against the tensors of a real one."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from neoseg import machine
from neoseg.inference.memory import resident_bytes
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrConfig
from neoseg.pipeline.forecast import forecast_training, held_gib
from neoseg.training.configs import TrainingConfig
from neoseg.training.memory import PeakMemory, state_gib
from neoseg.training.optim import MovingAverage, make_optimiser


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
@pytest.mark.parametrize("decay", [None, 0.9])
def test_weights_gradients_moments_and_the_average_are_counted(optimiser: Any, decay: float | None) -> None:
    config = TrainingConfig(optimiser=optimiser, ema_decay=decay)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 40, 5), torch.nn.InstanceNorm2d(40, affine=True))
    steps = make_optimiser(network, config)
    network(torch.ones(2, 3, 9, 9)).square().sum().backward()
    steps.step()
    held = [t for p in network.parameters() for t in (p, p.grad, *steps.state[p].values())]
    if decay is not None:
        held += [*MovingAverage(network, decay).state.values(), *copy.deepcopy(network).parameters()]
    count = sum(p.numel() for p in network.parameters())
    taken = sum(t.numel() * t.element_size() for t in held if isinstance(t, torch.Tensor) and t.ndim)
    assert state_gib(count, config) * 2**30 == pytest.approx(taken)


def test_the_forecast_counts_the_weights_of_a_large_network() -> None:
    network = UnetrConfig(spatial_dims=3, patch_size=(16, 16, 16))
    plan: Any = SimpleNamespace(network=network, patch=(32, 32, 32), batch=1, channels=("t1",), steps=5)
    settings = TrainingConfig(steps=5, ema_decay=0.9, batch_size=1)
    built = build_network(network, in_channels=1, classes=2, patch=(32, 32, 32))
    six = 6 * 4 * sum(p.numel() for p in built.parameters()) / 2**30
    assert held_gib(plan, settings, 2) == pytest.approx(six)
    told = forecast_training(plan, settings, folds=1, device="cpu", threads=1)
    assert six > 1.9
    assert float(told.split("about ")[1].split(" GiB")[0]) > six


def _allocated_before(gib: float) -> PeakMemory:
    """Return what a training counts that begins after so much was taken and given back."""
    large = torch.ones(int(gib * 2**28))
    del large
    return PeakMemory(torch.device("cpu"))


def test_the_peak_of_a_training_is_not_that_of_what_was_done_before() -> None:
    told = _allocated_before(0.5).gib()
    assert told is None or told < resident_bytes() / 2**30 + 0.25


def test_a_peak_that_the_system_does_not_forget_is_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_FORGETS", tmp_path / "none" / "clear_refs")
    taken = (machine.peak_bytes() or 0) - resident_bytes()
    peak = _allocated_before(0.5 + taken / 2**30)
    assert peak.gib() is None
    more = torch.ones(int(1.2 * 2**28) + taken // 4)
    told = peak.gib()
    assert more.numel() and told is not None and told > 1
