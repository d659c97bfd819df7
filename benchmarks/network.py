"""UNETR++ against a plain transcription of the published code: seconds and peak memory, and cost against tokens.

python benchmarks/network.py                writes benchmarks/results/network.json
python benchmarks/network.py --parts step   only this part, beside what the file holds
python benchmarks/network.py --one KEY      one configuration, in this process; prints JSON

Each configuration runs in a process of its own, and the configurations alternate round by round, so that what else the
machine does falls on all of them. The median of the rounds' ratios to the plain form is what counts. On a machine that
others use, seconds of wall time say little; core-seconds of one thread (--threads 1) say more.

Training steps of ours, both kinds of attention, and the forward pass "as_predicted" keep freed memory, as a training
and a prediction do (inference/heap.py); the other forward passes do not, as in a program of one's own.
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
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.inference.heap import kept_heap
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.build import build_network
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.weights import load_published
from plain_unetr_pp import VARIANTS, PlainUnetrPP

RESULT = Path(__file__).parent / "results" / "network.json"
THREADS, BATCH = 2, 2
PRESET = PUBLISHED["synapse"]

# key: fields of our network; None is the plain form
FORWARD: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "ours_legacy": {"layout": "legacy"},
    "ours_aligned": {"layout": "aligned"},
    "ours_aligned_as_predicted": {"layout": "aligned"},
    "ours_free": {"layout": "aligned", "size": "free"},
}
STEP: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "ours": {"layout": "aligned", "attention_dropout": 0.0},
    "ours_checkpointing_full_size": {"layout": "aligned", "attention_dropout": 0.0, "checkpointing": "full_size"},
    "ours_checkpointing_all": {"layout": "aligned", "attention_dropout": 0.0, "checkpointing": "all"},
}
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
    network, before = build(FORWARD[key]).eval(), peak_gib()
    x = torch.randn(1, 1, *PRESET.patch)
    if key != "plain":
        x = x.to(memory_format=torch.channels_last_3d)
    with torch.inference_mode(), kept_heap() if key.endswith("as_predicted") else nullcontext():
        return {**timed(lambda: network(x), repeats), "gib": peak_gib() - before}


def step(key: str, repeats: int) -> dict[str, float]:
    network = build(STEP[key]).train()
    loss, before, kept = build_loss(LossConfig()), peak_gib(), key != "plain"
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.99, nesterov=True)
    x = torch.randn(BATCH, 1, *PRESET.patch)
    if key != "plain":
        x = x.to(memory_format=torch.channels_last_3d)
    target = torch.randint(0, PRESET.classes, (BATCH, *PRESET.patch))

    def train() -> None:
        optimiser.zero_grad()
        loss(network(x), target).backward()
        optimiser.step()

    with kept_heap() if kept else nullcontext():
        return {**timed(train, repeats), "gib": peak_gib() - before}


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


def one(key: str, threads: int, repeats: int) -> dict[str, float]:
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
        case _:
            return equality()


def process(key: str, given: argparse.Namespace) -> dict[str, Any]:
    options = ["--threads", str(given.threads), "--repeats", str(given.repeats)]
    command = [sys.executable, __file__, "--one", key, *options]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    result = json.loads(found.stdout.splitlines()[-1])
    print(f"{key}: {result}, load {os.getloadavg()[0]:.1f}", flush=True)
    return {**result, "load": round(os.getloadavg()[0], 1)}


def table(what: str, keys: list[str], given: argparse.Namespace) -> dict[str, Any]:
    """Return medians of the rounds, and of the ratios within each round."""
    found: dict[str, list[dict[str, Any]]] = {key: [] for key in keys}
    for _ in range(given.rounds):
        for key in keys:
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


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "equality": lambda given: process("equality:", given),
    "forward": lambda given: table("forward", list(FORWARD), given),
    "step": lambda given: table("step", list(STEP), given),
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
    native = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    write_json(
        RESULT,
        {
            **(read_json(RESULT) if RESULT.is_file() else {}),
            "what": f"synapse variant, {given.threads} threads, float32; forward of 1 patch, steps and tokens of "
            f"{BATCH}; median of {given.rounds} alternating rounds, a process each",
            "machine": machine(),
            "note": given.note,
            "bfloat16": "measured nowhere here: this CPU does not compute with it natively" if not native else "native",
            **{part: PARTS[part](given) for part in given.parts},
        },
    )


if __name__ == "__main__":
    main()
