"""What each loss costs: forward and backward of two patches of 64 x 64 x 32 with two foreground classes.

The truth are balls, the logits noise around it. Losses take turns, so that what else slows the machine slows all;
medians of the turns, in seconds of wall time on one thread, and beside them the share of soft Dice's.

    OMP_NUM_THREADS=1 python benchmarks/losses.py        writes benchmarks/results/losses.json; about a minute
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np
import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.losses.registry import TERMS

RESULT = Path(__file__).parent / "results" / "losses.json"
SHAPE, TURNS = (64, 64, 32), 15


def truth() -> torch.Tensor:
    """Return two volumes with two balls of two classes each."""
    generator, result = np.random.default_rng(0), np.zeros((2, *SHAPE), dtype=np.int64)
    places = np.indices(SHAPE)
    for sample in result:
        for label in (1, 2, 1, 2):
            middle = [generator.uniform(0.2, 0.8) * side for side in SHAPE]
            sample[sum((p - m) ** 2 for p, m in zip(places, middle, strict=True)) < generator.uniform(4, 8) ** 2] = (
                label
            )
    return torch.from_numpy(result)


def main() -> None:
    torch.set_num_threads(1)
    target = truth()
    noise = torch.randn((2, 3, *SHAPE), generator=torch.Generator().manual_seed(0))
    logits = noise + 2 * torch.nn.functional.one_hot(target, 3).movedim(-1, 1)
    configs = {
        "soft Dice": LossConfig(cross_entropy_weight=0),
        "cross-entropy": LossConfig(dice_weight=0),
        **{
            kind: LossConfig.model_validate(
                {"dice_weight": 0, "cross_entropy_weight": 0, "terms": [{"kind": kind, "weight": 1.0}]}
            )
            for kind in TERMS
        },
    }
    losses = {name: build_loss(config) for name, config in configs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(TURNS + 1):
        for name, loss in losses.items():
            given = logits.clone().requires_grad_()
            start = time.perf_counter()
            loss([given], target).backward()
            if turn:  # the first one imports and warms up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(own) for name, own in seconds.items()}
    rows = {
        name: {"seconds": round(value, 5), "of_soft_dice": round(value / medians["soft Dice"], 2)}
        for name, value in medians.items()
    }
    what = f"forward and backward, 2 x 3 x {' x '.join(map(str, SHAPE))}, median of {TURNS} turns, one thread"
    write_json(RESULT, {"what": what, "machine": machine(), "losses": rows})


if __name__ == "__main__":
    main()
