"""What a training step of each kind of network costs, against the planner's forecast: CPU seconds and peak memory.

Each network in a fresh process on one thread, in the number format that the CPU computes fastest, batch of two; the
median of three steps after a first one. Memory is the growth of the process' peak over what it held before the step.

    python benchmarks/step_cost.py [--only NAME ...]

Writes benchmarks/results/step_cost.json after every network.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.losses.configs import LossConfig
from neoseg.networks.configs import LIGHT_ENCODERS, NETWORKS, NetworkBase
from neoseg.plan.candidates import PLANNERS, Voxels
from neoseg.plan.cost import step_core_seconds, step_flops, step_gib

RESULT = Path(__file__).parent / "results" / "step_cost.json"
SPACING, PATCH, PLANE = (1.4, 1.4, 2.4), (64, 64, 32), (256, 256)
BATCH, CHANNELS, STEPS = 2, 2, 3


def silent(*_: Any) -> None:
    """Take a decision and say nothing."""


def forms() -> dict[str, tuple[NetworkBase, tuple[int, ...]]]:
    """The largest and the smallest size of each kind for volumes, the largest for planes, and light encoders there."""
    found: dict[str, tuple[NetworkBase, tuple[int, ...]]] = {}
    for kind, entry in NETWORKS.items():
        for axes, patch, spacing in ((3, PATCH, SPACING), (2, PLANE, (1.0, 1.0))):
            network = entry.config.model_validate({"spatial_dims": axes})
            planner = PLANNERS[kind]
            sizes = planner.sizes(planner.shaped(network, Voxels(spacing, patch), frozenset(), silent), frozenset())
            places = sorted({0, len(sizes) - 1}) if axes == 3 else [0]
            found |= {f"{kind} {axes}-D, size {i + 1} of {len(sizes)}": (sizes[i], patch) for i in places}
    for kind in ("unet", "unet_plus_plus"):
        for encoder in LIGHT_ENCODERS:
            light = NETWORKS[kind].config.model_validate({"spatial_dims": 2, "encoder": encoder})
            found[f"{kind} 2-D, {encoder}"] = (light, PLANE)
    return found


def measured(name: str) -> dict[str, Any]:
    import torch

    from neoseg.inference.heap import kept_heap
    from neoseg.losses.build import build_loss
    from neoseg.networks.build import build_network
    from neoseg.training.configs import TrainingConfig
    from neoseg.training.optim import make_optimiser

    torch.set_num_threads(1)
    config, patch = forms()[name]
    reduced = torch.ops.mkldnn._is_mkldnn_bf16_supported() if hasattr(torch.ops, "mkldnn") else False
    network = build_network(config, in_channels=CHANNELS, classes=2, patch=patch).train()
    optimiser = make_optimiser(network, TrainingConfig())
    last = torch.channels_last if len(patch) == 2 else torch.channels_last_3d
    image = torch.randn(BATCH, CHANNELS, *patch).contiguous(memory_format=last)
    target = torch.randint(0, 2, (BATCH, *patch))
    loss = build_loss(LossConfig())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    with kept_heap():
        for _ in range(1 + STEPS):
            start = time.process_time()
            optimiser.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=bool(reduced)):
                outputs = network(image)
            loss(outputs, target).backward()
            optimiser.step()
            seconds.append(time.process_time() - start)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
    forecast = step_core_seconds(config, patch, CHANNELS, BATCH, bfloat16=bool(reduced))
    spent = float(np.median(seconds[1:]))
    return {
        "bfloat16": bool(reduced),
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflop": step_flops(config, patch, CHANNELS) * BATCH / 1e9,
        "seconds": spent,
        "forecast_seconds": forecast,
        "seconds_ratio": spent / forecast,
        "gib": grown,
        "forecast_gib": step_gib(config, patch, BATCH),
        "gib_ratio": grown / step_gib(config, patch, BATCH),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", default=list(forms()))
    parser.add_argument("--child")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(measured(given.child)))
        return
    kept = read_json(given.result)["networks"] if given.result.is_file() else {}
    for name in given.only:
        done = subprocess.run([sys.executable, __file__, "--child", name], capture_output=True, text=True, check=False)
        if done.returncode:
            print(name, done.stderr[-800:])
            continue
        kept[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, {k: round(v, 2) for k, v in kept[name].items()}, flush=True)
        write_json(
            given.result, {"what": __doc__, "machine": machine(), "patch": PATCH, "plane": PLANE, "networks": kept}
        )


if __name__ == "__main__":
    main()
