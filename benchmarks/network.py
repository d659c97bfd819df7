"""UNETR++ against a plain transcription of the published code: seconds and peak memory, and cost against tokens.

python benchmarks/network.py                writes benchmarks/results/network_CPU.json (CPU: avx2, avx512)
python benchmarks/network.py --parts step   only this part, beside what the file holds
python benchmarks/network.py --one KEY      one configuration, in this process; prints JSON

Each configuration runs in a process of its own, and the configurations alternate round by round, so that what else the
machine does falls on all of them. The median of the rounds' ratios to the plain form is what counts. On a machine that
others use, seconds of wall time say little; core-seconds of one thread (--threads 1) say more.

"kept" stands for passes that keep freed memory (inference/heap.py), as our training and prediction do; the others do
not, as in a program of one's own. Both kinds of attention keep it. bfloat16 is measured on CPUs that compute with it.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.inference.heap import kept_heap
from neoseg.inference.precision import FORMATS, autocast, is_reduced
from neoseg.losses.build import Loss, build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.build import build_network
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.weights import load_published
from plain_unetr_pp import VARIANTS, PlainUnetrPP

RESULT = Path(__file__).parent / "results" / f"network_{torch.backends.cpu.get_cpu_capability().lower()}.json"
HAS_BFLOAT16 = is_reduced("auto", "cpu")
THREADS, BATCH = 2, 2
PRESET = PUBLISHED["synapse"]


@dataclass(frozen=True)
class Measured:
    """What is measured: the plain form (``fields`` is ``None``) or our network with these fields, and how."""

    fields: dict[str, Any] | None
    kept: bool = False
    dtype: torch.dtype = torch.float32


ALIGNED: dict[str, Any] = {"layout": "aligned"}
TRAINED = {**ALIGNED, "attention_dropout": 0.0}
FULL_SIZE = {**TRAINED, "checkpointing": "full_size"}

FORWARD = {
    "plain": Measured(None),
    "plain, kept": Measured(None, kept=True),
    "legacy": Measured({"layout": "legacy"}),
    "aligned": Measured(ALIGNED),
    "aligned, kept": Measured(ALIGNED, kept=True),
    "free": Measured({**ALIGNED, "size": "free"}),
    "plain, bfloat16": Measured(None, dtype=torch.bfloat16),
    "aligned, bfloat16": Measured(ALIGNED, dtype=torch.bfloat16),
    "aligned, kept, bfloat16": Measured(ALIGNED, kept=True, dtype=torch.bfloat16),
}
STEP = {
    "plain": Measured(None),
    "plain, kept": Measured(None, kept=True),
    "aligned, kept": Measured(TRAINED, kept=True),
    "aligned, checkpointing full_size, kept": Measured(FULL_SIZE, kept=True),
    "aligned, checkpointing all, kept": Measured({**TRAINED, "checkpointing": "all"}, kept=True),
    "plain, bfloat16": Measured(None, dtype=torch.bfloat16),
    "aligned, kept, bfloat16": Measured(TRAINED, kept=True, dtype=torch.bfloat16),
    "aligned, checkpointing full_size, kept, bfloat16": Measured(FULL_SIZE, kept=True, dtype=torch.bfloat16),
}
LOSS_STEPS, COMPARED_STEPS = 50, 10
TOKENS = {4096: (16, 16, 16), 8192: (32, 16, 16), 16384: (32, 32, 16), 32768: (32, 32, 32), 65536: (64, 32, 32),
          131072: (64, 64, 32), 262144: (64, 64, 64)}  # fmt: skip
SELF_ATTENTION_GIB = 12.0


def build(fields: dict[str, Any] | None) -> nn.Module:
    if fields is None:
        return PlainUnetrPP(VARIANTS["synapse"])
    config = UnetrPPConfig.model_validate({**PRESET.config.model_dump(), **fields})
    return build_network(config, in_channels=1, classes=PRESET.classes, patch=PRESET.patch)


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def timed(call: Callable[[], object], repeats: int) -> dict[str, float]:
    call()
    found = []
    for _ in range(repeats):
        start, worked = time.perf_counter(), time.process_time()
        call()
        found.append((time.perf_counter() - start, time.process_time() - worked))
    return {
        "seconds": statistics.median(wall for wall, _ in found),
        "core_seconds": statistics.median(cpu for _, cpu in found),
    }


def forward(key: str, repeats: int) -> dict[str, float]:
    how = FORWARD[key]
    network, before = build(how.fields).eval(), peak_gib()
    x = laid_out(torch.randn(1, 1, *PRESET.patch), how)
    with torch.inference_mode(), heap(how), autocast(how.dtype, x.device):
        return {**timed(lambda: network(x), repeats), "gib": peak_gib() - before}


def laid_out(x: Tensor, how: Measured) -> Tensor:
    return x if how.fields is None else x.to(memory_format=torch.channels_last_3d)


def heap(how: Measured) -> AbstractContextManager[None]:
    return kept_heap() if how.kept else nullcontext()


def step(key: str, repeats: int) -> dict[str, float]:
    how = STEP[key]
    network = build(how.fields).train()
    loss, before = build_loss(LossConfig()), peak_gib()
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    x = laid_out(torch.randn(BATCH, 1, *PRESET.patch), how)
    target = torch.randint(0, PRESET.classes, (BATCH, *PRESET.patch))
    with heap(how):
        return {
            **timed(lambda: train(network, loss, optimiser, x, target, how.dtype), repeats),
            "gib": peak_gib() - before,
        }


def train(
    network: nn.Module, loss: Loss, optimiser: torch.optim.Optimizer, x: Tensor, target: Tensor, dtype: torch.dtype
) -> float:
    optimiser.zero_grad()
    with autocast(dtype, x.device):
        logits = network(x)
    value = loss(tuple(head.float() for head in logits), target)
    value.backward()
    optimiser.step()
    return value.item()


def losses(dtype: str) -> list[float]:
    """Train our network on made-up patches, noise that was smoothed and its levels as classes; return each loss."""
    how = Measured(TRAINED, dtype=FORMATS[dtype])
    network, loss = build(how.fields).train(), build_loss(LossConfig())
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-2, momentum=0.99, nesterov=True)
    generator, found = torch.Generator().manual_seed(0), []
    with kept_heap():
        for _ in range(LOSS_STEPS):
            coarse = torch.randn(BATCH, 1, *(side // 8 for side in PRESET.patch), generator=generator)
            smooth = nn.functional.interpolate(coarse, size=PRESET.patch, mode="trilinear")
            levels = torch.linspace(-1.5, 1.5, PRESET.classes - 1)
            x = laid_out(smooth + 0.1 * torch.randn(smooth.shape, generator=generator), how)
            found.append(train(network, loss, optimiser, x, torch.bucketize(smooth[:, 0], levels), how.dtype))
    return found


class SelfAttention(nn.Module):
    """Full attention of tokens to tokens, with the map in memory, as many heads and the same width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(((q @ k.mT * q.shape[-1] ** -0.5).softmax(dim=-1) @ v).transpose(1, 2).flatten(2))


def tokens(kind: str, count: int) -> dict[str, float]:
    grid, dim = TOKENS[count], PRESET.config.dims[0]
    config = UnetrPPConfig(stem=PRESET.config.stem)
    if kind == "paired_block":
        module: nn.Module = PairedAttentionBlock(dim, grid, config.proj[0], config)
        module.to(memory_format=torch.channels_last_3d)
        x = torch.randn(BATCH, dim, *grid).to(memory_format=torch.channels_last_3d)
    else:
        module, x = SelfAttention(dim, config.heads), torch.randn(BATCH, count, dim)
    gc.collect()
    before = peak_gib()

    def pass_both() -> None:
        module.zero_grad()
        module(x).square().mean().backward()

    with kept_heap():
        return {**timed(pass_both, 3), "gib": peak_gib() - before}


def equality() -> dict[str, float]:
    """Return how far both forms are apart with the same random weights, float32: largest relative RMS of the heads."""
    torch.manual_seed(0)
    plain = build(None).eval()
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if name.endswith(("gamma", "pos_embed")):
                parameter.normal_(std=0.1)
    ours = build({"layout": "legacy"}).eval()
    load_published(ours, plain.state_dict())
    x = torch.randn(1, 1, *PRESET.patch)
    with torch.inference_mode():
        pairs = list(zip(plain(x), ours(x), strict=True))
    return {"relative_rms": max(float((a - b).square().mean().sqrt() / a.square().mean().sqrt()) for a, b in pairs)}


def one(key: str, threads: int, repeats: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    what, _, name = key.partition(":")
    match what:
        case "forward":
            return forward(name, repeats)
        case "step":
            return step(name, repeats)
        case "tokens":
            kind, _, count = name.partition(":")
            return tokens(kind, int(count))
        case "losses":
            return {"losses": losses(name)}
        case _:
            return equality()


def process(key: str, given: argparse.Namespace) -> dict[str, Any]:
    options = ["--threads", str(given.threads), "--repeats", str(given.repeats)]
    command = [sys.executable, __file__, "--one", key, *options]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(found.stdout.splitlines()[-1])
    print(f"{key}: {result}, load {os.getloadavg()[0]:.1f}", flush=True)
    return {**result, "load": round(os.getloadavg()[0], 1)}


def table(what: str, rows_of: dict[str, Measured], given: argparse.Namespace) -> dict[str, Any]:
    """Return medians of the rounds, and of the ratios within each round."""
    dtypes = (torch.float32, torch.bfloat16) if HAS_BFLOAT16 else (torch.float32,)
    found: dict[str, list[dict[str, Any]]] = {key: [] for key, how in rows_of.items() if how.dtype in dtypes}
    for _ in range(given.rounds):
        for key in found:
            found[key].append(process(f"{what}:{key}", given))
    rows = {}
    for key, runs in found.items():
        ratios = {
            field: [run[field] / base[field] for run, base in zip(runs, found["plain"], strict=True)]
            for field in ("seconds", "core_seconds", "gib")
        }
        rows[key] = {
            "seconds": round(statistics.median(run["seconds"] for run in runs), 3),
            "core_seconds": round(statistics.median(run["core_seconds"] for run in runs), 3),
            "gib_beyond_weights": round(statistics.median(run["gib"] for run in runs), 3),
            "seconds_over_plain": round(statistics.median(ratios["seconds"]), 3),
            "core_seconds_over_plain": round(statistics.median(ratios["core_seconds"]), 3),
            "gib_over_plain": round(statistics.median(ratios["gib"]), 3),
            "each_seconds": [round(run["seconds"], 3) for run in runs],
            "load": [run["load"] for run in runs],
        }
    return rows


def slope(counts: list[int], values: list[float]) -> float:
    return round(float(np.polyfit(np.log(counts), np.log(values), 1)[0]), 3)


def against_tokens(given: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for kind in ("paired_block", "self_attention"):
        rows = {}
        for count in TOKENS:
            heads = PRESET.config.heads
            # products, softmax and their gradients: four maps of N x N a head
            if kind == "self_attention" and BATCH * 4 * heads * count**2 * 4 / 2**30 > SELF_ATTENTION_GIB:
                rows[str(count)] = None
                continue
            rows[str(count)] = {k: round(v, 4) for k, v in process(f"tokens:{kind}:{count}", given).items()}
        there = {int(count): row for count, row in rows.items() if row is not None}
        result[kind] = {"by_tokens": rows}
        if len(there) > 1:
            result[kind]["slope_core_seconds"] = slope(list(there), [row["core_seconds"] for row in there.values()])
            result[kind]["slope_seconds"] = slope(list(there), [row["seconds"] for row in there.values()])
            result[kind]["slope_gib"] = slope(list(there), [max(row["gib"], 1e-3) for row in there.values()])
    return result


def against_float32(given: argparse.Namespace) -> dict[str, Any] | None:
    """Return the losses of one training in both formats, and their mean relative difference over the last steps."""
    if not HAS_BFLOAT16:
        return None
    found = {dtype: process(f"losses:{dtype}", given)["losses"] for dtype in ("float32", "bfloat16")}
    pairs = list(zip(found["float32"], found["bfloat16"], strict=True))[-COMPARED_STEPS:]
    difference = statistics.mean(abs(b - a) / abs(a) for a, b in pairs)
    return {f"relative_difference_of_last_{COMPARED_STEPS}": difference, **found}


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any] | None]] = {
    "equality": lambda given: process("equality:", given),
    "forward": lambda given: table("forward", FORWARD, given),
    "step": lambda given: table("step", STEP, given),
    "losses": against_float32,
    "tokens": against_tokens,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", metavar="KEY")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=THREADS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--note", default="", help="what else the machine did")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.threads, given.repeats)))
        return
    torch.set_num_threads(given.threads)
    write_json(
        RESULT,
        {
            **(read_json(RESULT) if RESULT.is_file() else {}),
            "what": f"synapse variant, {given.threads} threads, float32 unless said otherwise; forward of 1 patch, "
            f"steps and tokens of {BATCH}; median of {given.rounds} alternating rounds, a process each",
            "machine": machine(),
            "note": given.note,
            **{part: PARTS[part](given) for part in given.parts},
        },
    )


if __name__ == "__main__":
    main()
