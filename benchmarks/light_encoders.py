"""U-Net and UNet++ for planes with light encoders, against their plain ones: speed, parameters, multiply-adds.

A forward pass of one image and a training step of a batch of two at 256 x 256, float32, channels last. In each round
every network is timed once, one after the other, so that what else the machine does falls on all of them; the medians
of the rounds count, and of the ratios to the plain network of the same round. Beside them the planner's forecast of
that step in core-seconds.

    python benchmarks/light_encoders.py [--rounds 20] [--threads 2] [--tiny] [--result FILE]

Writes benchmarks/results/light_encoders.json; with --tiny, two rounds at 64 x 64 to see that it runs, nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.inference.heap import kept_heap
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.build import build_network
from neoseg.networks.configs import LIGHT_ENCODERS, NETWORKS, ConvUNet
from neoseg.networks.cost import network_cost
from neoseg.plan.candidates import PLANNERS, Voxels
from neoseg.plan.cost import step_core_seconds, step_gib
from neoseg.training.configs import TrainingConfig
from neoseg.training.optim import make_optimiser

RESULT = Path(__file__).parent / "results" / "light_encoders.json"
KINDS, BATCH, WARM = ("unet", "unet_plus_plus"), 2, 2
SIZE, TINY = 256, 64


def silent(*_: Any) -> None:
    """Take a decision and say nothing."""


def form(kind: str, encoder: str, size: int) -> ConvUNet:
    """Return the network that is planned for such planes without a budget."""
    network = NETWORKS[kind].config.model_validate({"spatial_dims": 2, "encoder": encoder})
    planner = PLANNERS[kind]
    made = planner.sizes(planner.shaped(network, Voxels((1.0, 1.0), (size, size)), frozenset(), silent), frozenset())[0]
    assert isinstance(made, ConvUNet)
    return made


def calls(config: ConvUNet, size: int) -> dict[str, Callable[[], object]]:
    """Return a forward pass in evaluation and a training step."""
    network = build_network(config, in_channels=1, classes=2, patch=(size, size))
    optimiser, loss = make_optimiser(network, TrainingConfig()), build_loss(LossConfig())
    images = torch.randn(BATCH, 1, size, size).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, 2, (BATCH, size, size))

    def forward() -> None:
        network.eval()
        with torch.inference_mode():
            network(images[:1])

    def step() -> None:
        network.train()
        optimiser.zero_grad()
        loss(network(images), target).backward()
        optimiser.step()

    return {"forward": forward, "step": step}


def medians(seconds: dict[str, list[tuple[float, float]]], plain: str) -> dict[str, dict[str, float]]:
    """Return by network the median seconds of wall and core, and of the ratio to the plain one of the same round."""
    return {
        name: {
            "ms": round(1000 * statistics.median(wall for wall, _ in found), 2),
            "core_seconds": round(statistics.median(core for _, core in found), 4),
            "ms_over_plain": round(
                statistics.median(one[0] / base[0] for one, base in zip(found, seconds[plain], strict=True)), 3
            ),
        }
        for name, found in seconds.items()
    }


def compared(kind: str, size: int, rounds: int) -> dict[str, Any]:
    configs = {name: form(kind, name, size) for name in ("plain", *LIGHT_ENCODERS)}
    timed = {name: calls(config, size) for name, config in configs.items()}
    found: dict[str, dict[str, list[tuple[float, float]]]] = {
        what: {name: [] for name in configs} for what in ("forward", "step")
    }
    with kept_heap():
        for number in range(WARM + rounds):
            for what, seconds in found.items():
                for name, both in timed.items():
                    start, core = time.perf_counter(), time.process_time()
                    both[what]()
                    if number >= WARM:
                        seconds[name].append((time.perf_counter() - start, time.process_time() - core))
    rows: dict[str, Any] = {}
    forward, step = medians(found["forward"], "plain"), medians(found["step"], "plain")
    for name, config in configs.items():
        cost = network_cost(config, in_channels=1, classes=2, patch=(size, size))
        forecast = step_core_seconds(config, (size, size), 1, BATCH, bfloat16=False)
        rows[name] = {
            "parameters": cost.parameters,
            "gmacs": round(cost.multiply_adds / 1e9, 3),
            "forward": forward[name],
            "step": step[name],
            "forecast_core_seconds": round(forecast, 4),
            "core_seconds_over_forecast": round(step[name]["core_seconds"] / forecast, 2),
            "forecast_gib": round(step_gib(config, (size, size), BATCH), 3),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="two rounds at 64 x 64; the result is shown, not kept")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    size, rounds = (TINY, 2) if given.tiny else (SIZE, given.rounds)
    result = {
        "what": __doc__,
        "machine": machine(),
        "size": [size, size],
        "batch_of_a_step": BATCH,
        "rounds": rounds,
        "networks": {kind: compared(kind, size, rounds) for kind in KINDS},
    }
    if given.tiny:
        print(json.dumps(result, indent=1))
        return
    write_json(given.result, result)


if __name__ == "__main__":
    main()
