"""Trainings with a time budget: how near the actual time comes, and where it goes.

The clock runs around the whole call, so validation, checkpoints and pictures count. The budgets are short: what happens
once (loading libraries, timing some steps) weighs more than in a real training.

python benchmarks/time_budget.py   writes benchmarks/results/time_budget.json
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrPPConfig
from neoseg.progress import Silent
from neoseg.targets import Targets
from neoseg.training.configs import TrainingConfig
from neoseg.training.data import TrainingCase, TrainingData
from neoseg.training.loop import FoldRun, train_fold

RESULT = Path(__file__).parent / "results" / "time_budget.json"
RUNS: dict[str, dict[str, Any]] = {
    "steps weigh most": {"time_budget_s": 120.0, "steps_per_epoch": 25, "validation": 2},
    "validations weigh most": {"time_budget_s": 120.0, "steps_per_epoch": 5, "validation": 8},
    "small patches, moving average": {
        "time_budget_s": 60.0, "steps_per_epoch": 25, "validation": 4, "ema_decay": 0.99, "patch": (32, 32, 16),
    },
}  # fmt: skip


def make_case(name: str, seed: int) -> TrainingCase:
    generator = np.random.default_rng(seed)
    label = np.zeros((72, 88, 32), dtype=np.uint8)
    x, y, z = generator.integers(10, 20, 3)
    label[x : x + 20, y : y + 20, z : z + 8] = 1
    image = (generator.normal(size=(2, *label.shape)) + label).astype(np.float32)
    return TrainingCase(name, image, label)


def trained(settings: dict[str, Any]) -> dict[str, Any]:
    settings = dict(settings)
    patch, validation = settings.pop("patch", (64, 64, 32)), settings.pop("validation")
    data = TrainingData(
        train=[make_case(f"t{i}", i) for i in range(8)],
        validation=[make_case(f"v{i}", 100 + i) for i in range(validation)],
        spacing_mm=(1.4, 1.4, 2.6),
        targets=Targets.of_classes(2),
        patch=patch,
    )
    network = build_network(
        UnetrPPConfig(stem=(2, 2, 2)), in_channels=2, classes=2, patch=patch, generator=torch.Generator().manual_seed(0)
    )
    config = TrainingConfig.model_validate(settings)
    with tempfile.TemporaryDirectory() as folder:
        run = FoldRun(Path(folder), 1, augmentation=Augmentation(AugmentConfig()))
        start = time.perf_counter()
        result = train_fold(network, build_loss(LossConfig()), data=data, config=config, run=run, progress=Silent())
        actual = time.perf_counter() - start
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    steps, waits = (sum(line[key] for line in lines) for key in ("step_seconds", "wait_seconds"))
    return {
        "budget_s": config.time_budget_s,
        "actual_s": round(actual, 1),
        "actual_over_budget": round(actual / (config.time_budget_s or 1), 3),
        "steps": result.steps,
        "epochs": result.epochs,
        "share_of_steps": round(steps / actual, 3),
        "waiting_share_of_steps": round(waits / steps, 4),
        "precision": result.precision,
    }


def main() -> None:
    write_json(
        RESULT,
        {
            "what": "seconds of a whole call of train_fold with a time budget, default network, batch 2; a step waits "
            "while its batch is read, cut and augmented, in line with the step",
            "machine": machine(),
            "runs": {name: trained(settings) for name, settings in RUNS.items()},
        },
    )


if __name__ == "__main__":
    main()
