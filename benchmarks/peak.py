"""What two threads of this CPU compute at most, as far as torch reaches it: matrix products, and the convolutions of
UNETR++'s Synapse variant at each of its resolutions, in float32 and bfloat16.

    python benchmarks/peak.py

Writes benchmarks/results/peak.json: GFLOP/s (a multiply-add counts twice), medians of 15 calls, on an idle machine.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from machine import machine
from neoseg.atomic import write_json

RESULT = Path(__file__).parent / "results" / "peak.json"
SIDE, CALLS = 4096, 15
CONVOLUTIONS = {16: (64, 128, 128), 32: (32, 32, 32), 64: (16, 16, 16), 128: (8, 8, 8)}
"""Voxels by the channels of its 3 x 3 x 3 convolutions."""


def gflops(work: Callable[[], Any], operations: int) -> float:
    """Return 10^9 operations a second, of the median of several calls after one that does not count."""
    seconds = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(operations / statistics.median(seconds[1:]) / 1e9, 1)


def matrix_product(dtype: torch.dtype) -> float:
    one, other = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    return gflops(lambda: one @ other, 2 * SIDE**3)


def convolution(channels: int, shape: tuple[int, int, int], dtype: torch.dtype) -> float:
    last = {"memory_format": torch.channels_last_3d, "dtype": dtype}
    weight, x = torch.randn(channels, channels, 3, 3, 3).to(**last), torch.randn(1, channels, *shape).to(**last)
    operations = 2 * 27 * channels**2 * x[0, 0].numel()
    return gflops(lambda: torch.mkldnn_convolution(x, weight, None, [1] * 3, [1] * 3, [1] * 3, 1), operations)


def main() -> None:
    torch.set_num_threads(2)
    found = {
        str(dtype).removeprefix("torch."): {
            f"matrix product, {SIDE} x {SIDE}": matrix_product(dtype),
            **{
                f"convolution, {channels} channels, {' x '.join(map(str, shape))}": convolution(channels, shape, dtype)
                for channels, shape in CONVOLUTIONS.items()
            },
        }
        for dtype in (torch.float32, torch.bfloat16)
    }
    write_json(RESULT, {"what": __doc__, "machine": machine(), "threads": 2, "gflops": found})


if __name__ == "__main__":
    with torch.inference_mode():
        main()
