"""Training steps and predicted volumes with glibc's memory settings as they are, and with freed memory kept.

Each measurement is a process of its own; the two settings alternate. CPU seconds are those of the process and of the
system for it; the weights after the steps are compared bit by bit.

python benchmarks/allocator.py   writes benchmarks/results/allocator.json
"""

from __future__ import annotations

import hashlib
import json
import resource
import statistics
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.data.patches import PatchSampler
from neoseg.inference.configs import WindowConfig
from neoseg.inference.heap import kept_heap
from neoseg.inference.sliding_window import predict_probabilities
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrPPConfig
from neoseg.targets import Targets
from neoseg.training.batch import StepParts
from neoseg.training.configs import TrainingConfig
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.guard import Guard
from neoseg.training.optim import make_optimiser
from neoseg.training.precision import training_precision
from neoseg.training.step import train_step

RESULT = Path(__file__).parent / "results" / "allocator.json"
PATCHES = {"48x48x32": (48, 48, 32)}
TARGETS = Targets.of_classes(2)
SETTINGS = ("as it is", "kept")
STEPS, ROUNDS = 4, 2


def used() -> tuple[float, float, int, float]:
    facts = resource.getrusage(resource.RUSAGE_SELF)
    return facts.ru_utime, facts.ru_stime, facts.ru_minflt, time.perf_counter()


def measured(patch: tuple[int, ...]) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    label = np.zeros((64, 64, 40), dtype=np.uint8)
    label[20:40, 20:40, 10:30] = 1
    image = generator.normal(size=(2, *label.shape)).astype(np.float32)
    cases = [TrainingCase(str(i), image, label) for i in range(2)]
    data = TrainingData(train=cases, validation=[], spacing_mm=(1.0, 1.0, 2.0), targets=TARGETS, patch=patch)
    network = build_network(
        UnetrPPConfig(stem=(2, 2, 2)), in_channels=2, classes=2, patch=patch, generator=torch.Generator().manual_seed(0)
    ).to(memory_format=torch.channels_last_3d)
    config = TrainingConfig()
    device = torch.device("cpu")
    dtype, _ = training_precision(network, data, config, device)
    sampler = PatchSampler([case.label for case in cases], patch)
    parts = StepParts(
        build_loss(LossConfig()), data, sampler, Augmentation(AugmentConfig()), config, device, dtype, seed=1
    )
    optimiser, guard = make_optimiser(network, config), Guard.for_format(dtype)

    def per(work: int, before: tuple[float, float, int, float]) -> dict[str, float]:
        names = ("user_s", "system_s", "page_faults", "wall_s")
        return {name: (b - a) / work for name, a, b in zip(names, before, used(), strict=True)}

    network.train()
    for step in range(2):
        train_step(network, optimiser, parts, step, guard)
    before = used()
    for step in range(2, 2 + STEPS):
        train_step(network, optimiser, parts, step, guard)
    result: dict[str, Any] = {"step": per(STEPS, before)}
    values = b"".join(value.contiguous().numpy().tobytes() for value in network.state_dict().values())
    result["bits"] = hashlib.sha256(values).hexdigest()
    network.eval()
    before = used()
    for _ in range(2):
        predict_probabilities(network, image, patch=patch, targets=TARGETS, config=WindowConfig())
    result["volume"] = per(2, before)
    network.train()
    for step in range(2 + STEPS, 4 + STEPS):
        train_step(network, optimiser, parts, step, guard)
    result["peak_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    result["dtype"] = str(dtype).removeprefix("torch.")
    return result


def main() -> None:
    found: dict[str, Any] = {}
    for name in PATCHES:
        runs: dict[str, list[dict[str, Any]]] = {setting: [] for setting in SETTINGS}
        for _ in range(ROUNDS):
            for setting in SETTINGS:
                command = [sys.executable, __file__, name, setting]
                told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                runs[setting].append(json.loads(told.splitlines()[-1]))
        found[name] = {setting: summary(runs[setting]) for setting in SETTINGS}
        found[name]["same_bits"] = len({run["bits"] for some in runs.values() for run in some}) == 1
    write_json(
        RESULT,
        {
            "what": f"default network, batch 2, medians of {ROUNDS} processes of {STEPS} steps after 2, and of 2 "
            "volumes of 64 x 64 x 40; CPU seconds of all threads; peak of all, with 2 more steps at the end",
            "machine": machine(),
            "patches": found,
        },
    )


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {"peak_gib": round(statistics.median(run["peak_gib"] for run in runs), 2)}
    for what in ("step", "volume"):
        result[what] = {key: round(statistics.median(run[what][key] for run in runs), 3) for key in runs[0][what]}
        result[what]["cpu_s"] = round(result[what]["user_s"] + result[what]["system_s"], 3)
    return result | {"dtype": runs[0]["dtype"]}


if __name__ == "__main__":
    if len(sys.argv) == 3:
        with kept_heap() if sys.argv[2] == "kept" else nullcontext():
            print(json.dumps(measured(PATCHES[sys.argv[1]])))
    else:
        main()
