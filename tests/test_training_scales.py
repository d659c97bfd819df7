"""Patches of several sizes in one training: sizes, order, resuming, budgets, refusals."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.config import load_config
from neoseg.data.patches import PatchSampler
from neoseg.errors import ConfigError, GeometryError, MachineError
from neoseg.networks.configs import MedNeXtConfig, UnetrPPConfig
from neoseg.pipeline.evaluate import read_rows
from neoseg.pipeline.forecast import forecast_training
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.out_of_memory import TrainingStep, training_in_memory
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import open_session
from neoseg.plan.budget import Demand, PlanConfig, StepSettings, fit
from neoseg.plan.candidates import Voxels
from neoseg.plan.scales import PatchScales, scaled_patches
from neoseg.training import time_budget
from neoseg.training.batch import make_batch
from neoseg.training.configs import TrainingConfig
from neoseg.training.data import TrainingData
from neoseg.training.step import StepParts
from test_training_loop import CONFIG, PATCH, StopAfter, Tiny, cross_entropy, make_data
from test_training_loop import fit as train_tiny

SIZES = ((8, 8, 6), PATCH, (16, 12, 10))
FLEX = UnetrPPConfig(dims=(8, 16, 32), depths=(1, 1, 1), proj=(8, 8, 8), stem=(2, 2, 1), size="flex")


def parts_of(data: TrainingData) -> StepParts:
    sampler = PatchSampler([case.label for case in data.train], data.patch)
    augmentation = Augmentation(AugmentConfig())
    return StepParts(cross_entropy, data, sampler, augmentation, CONFIG, torch.device("cpu"), torch.float32, seed=7)


def test_sides_are_the_nearest_multiples_of_what_the_network_takes() -> None:
    assert scaled_patches(FLEX, (32, 48, 16), (0.5, 1, 1.25)) == ((16, 24, 8), (32, 48, 16), (40, 64, 20))
    assert scaled_patches(FLEX, (32, 48, 16), None) == ()


def test_scales_that_make_the_same_size_twice_are_refused() -> None:
    with pytest.raises(GeometryError, match=r"patch_scales = \[0.9, 1\].*\[16, 16, 8\].*further apart"):
        scaled_patches(FLEX, (16, 16, 8), (0.9, 1))


def test_a_size_that_leaves_nothing_to_normalise_is_refused() -> None:
    with pytest.raises(GeometryError, match="single voxel"):
        scaled_patches(MedNeXtConfig(width=8), (32, 32, 32), (0.5, 1))


def test_every_size_comes_once_in_each_round_in_an_order_that_the_seed_sets() -> None:
    data = make_data(patches=SIZES)
    order = [data.patch_at(step, seed=1) for step in range(60)]
    assert all(set(order[i : i + 3]) == set(SIZES) for i in range(0, 60, 3))
    assert len({tuple(order[i : i + 3]) for i in range(0, 60, 3)}) > 2
    assert order != [data.patch_at(step, seed=2) for step in range(60)]
    assert [make_data().patch_at(step, seed=1) for step in range(4)] == [PATCH] * 4


def test_batches_have_the_size_of_their_step_and_hold_what_was_cut() -> None:
    parts = parts_of(make_data(patches=SIZES))
    for step in range(6):
        batch, wanted = make_batch(parts, step), parts.data.patch_at(step, parts.seed)
        assert batch.images.shape == (CONFIG.batch_size, 1, *wanted)
        assert batch.labels.shape == (CONFIG.batch_size, *wanted)
        assert batch.labels.any()


def test_a_training_in_several_sizes_goes_on_with_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Watching(Tiny):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            if self.training:
                seen.append(tuple(x.shape[2:]))
            return super().forward(x)

    monkeypatch.setattr("test_training_loop.make_data", lambda: make_data(patches=SIZES))
    seen: list[tuple[int, ...]] = []
    train_tiny(tmp_path / "whole", network=Watching())
    assert Counter(seen) == dict.fromkeys(SIZES, 4)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "parts", progress=StopAfter(6))
    train_tiny(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "best" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_steps_are_timed_over_whole_rounds_of_the_sizes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    timed: list[tuple[int, ...]] = []
    real = time_budget.train_step

    def watched(network: nn.Module, optimiser: torch.optim.Optimizer, parts: StepParts, step: int, *rest: object):
        timed.append(parts.data.patch_at(step, parts.seed))
        return real(network, optimiser, parts, step, *rest)

    monkeypatch.setattr(time_budget, "train_step", watched)
    assert time_budget.steps_within(0.01, Tiny(), parts_of(make_data(patches=SIZES)), tmp_path) >= 1
    assert Counter(timed) == dict.fromkeys(SIZES, 2)


def test_a_plan_and_a_forecast_count_the_mean_of_the_time_and_the_most_of_the_memory() -> None:
    scales = PatchScales.of((0.5, 1, 1.5), axes=3)
    assert scales == PatchScales(mean=pytest.approx((0.125 + 1 + 3.375) / 3), largest=3.375)
    assert PatchScales.of(None, axes=3) == PatchScales(1.0, 1.0)
    config = PlanConfig(core_minutes=5, patch=(16, 16, 16))
    plain, scaled = (
        fit(
            FLEX,
            Demand(
                Voxels((1.0, 1.0, 1.0), (40, 40, 40)), (40, 40, 40), frozenset({"dims"}), 1, StepSettings(2, scales=s)
            ),
            config,
        )
        for s in (PatchScales(), scales)
    )
    assert scaled.gib == pytest.approx(3.375 * plain.gib)
    assert scaled.seconds == pytest.approx(1.5 * plain.seconds)
    assert plain.steps is not None
    assert scaled.steps == pytest.approx(plain.steps / 1.5, abs=1)


def test_want_of_memory_is_told_of_the_largest_size() -> None:
    plan: Any = SimpleNamespace(network=FLEX, patch=(16, 16, 16), batch=2)

    def told(*patches: tuple[int, ...]) -> tuple[str, list[float]]:
        with pytest.raises(MachineError) as caught, training_in_memory(TrainingStep(plan, patches), "cpu"):
            raise MemoryError
        text = str(caught.value)
        return text, [float(gib) for gib in re.findall(r"(?:takes about|would take) ([\d.]+) GiB", text)]

    (_, one), (text, several) = told(), told((8, 8, 8), (16, 16, 16), (24, 24, 24))
    assert "24 x 24 x 24 voxels" in text
    assert several == pytest.approx([3.375 * gib for gib in one], rel=0.1)


def test_a_network_of_one_size_is_refused(blobs: Callable[[Path, int, int], None], tmp_path: Path) -> None:
    blobs(tmp_path / "data", 4, 0)
    toml = import_folder(tmp_path / "data", tmp_path / "work").config
    with pytest.raises(ConfigError, match=r"patch_scales needs a network.*network.size"):
        load_config(toml, ["training.patch_scales=[0.5, 1]"])
    with pytest.raises(ConfigError, match="patch_scales"):
        load_config(toml, ["training.patch_scales=[1]", 'network.size="flex"'])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["flex", "free"])
def test_unetr_pp_learns_from_patches_of_several_sizes(
    size: str, blobs: Callable[[Path, int, int], None], blob_changes: tuple[str, ...], tmp_path: Path
) -> None:
    blobs(tmp_path / "data", 6, 0)
    toml = import_folder(tmp_path / "data", tmp_path / "work").config
    own = ("training.patch_scales=[0.5, 1, 1.5]", f'network.size="{size}"', "plan.patch=[16, 16, 16]")
    config = load_config(toml, (*blob_changes, *own))
    session = open_session(config)
    for stage in ("check", "plan", "prepare", "train", "predict", "evaluate"):
        run_stage(session, stage)
    dice = [row.value for row in read_rows(session.run.scores) if row.metric == "dice"]
    assert np.mean(dice) > 0.6
    trained = json.loads((session.run.fold(0) / "training.json").read_text())["identity"]
    assert trained["patches"] == [[8, 8, 8], [16, 16, 16], [24, 24, 24]]
    several, one = (
        forecast_training(
            session.plan, TrainingConfig(steps=100_000, patch_scales=scales), folds=1, device="cpu", threads=1
        )
        for scales in ((0.5, 1, 1.5), None)
    )
    assert "`plan.core_minutes" not in one
    short = forecast_training(session.plan, TrainingConfig(time_budget_s=0.6), folds=2, device="cpu", threads=1)
    assert "Only about" in short and "`plan.core_minutes = 0.01`" in short
    long = forecast_training(session.plan, TrainingConfig(steps=10**8), folds=1, device="cpu", threads=1)
    assert "hours: `plan.core_minutes = 60` plans a network" in long
    minutes = [
        int(told.split(" GiB of memory beside the program's own and ")[1].split(" minutes")[0])
        for told in (several, one)
    ]
    assert minutes[0] == pytest.approx(1.5 * minutes[1], abs=1)
