"""Logits of 5 classes on 200^3 voxels to a mask of 400^3: seconds, and growth of the resident peak in label maps.

Each run is a process of its own. Beside it stands the same by way of the native logits of the whole volume.

    python benchmarks/export.py     writes benchmarks/results/export.json
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from machine import machine
from neoseg.atomic import write_json
from neoseg.inference.restore import restore, restored_classes
from neoseg.volume import Grid

RESULT = Path(__file__).parent / "results" / "export.json"
CLASSES, SIDE, RUNS = 5, 200, 3


def status(field: str) -> int:
    """A line of /proc/self/status in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def once(way: str) -> dict[str, Any]:
    prepared = Grid.of_spacing((SIDE,) * 3, (2.0,) * 3)
    native = prepared.with_spacing((1.0,) * 3)
    logits = np.random.default_rng(0).standard_normal((CLASSES, *prepared.shape), dtype=np.float32)
    corner = Grid.of_spacing((8,) * 3, (2.0,) * 3)
    restored_classes(logits[:, :8, :8, :8].copy(), corner, corner.with_spacing((1.0,) * 3))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak starts anew
    before, start, worked = status("VmRSS"), time.perf_counter(), time.process_time()
    if way == "slabs":
        mask = restored_classes(logits, prepared, native)
    else:
        mask = restore(logits, prepared, native).argmax(axis=0).astype(np.uint8)
    seconds = time.perf_counter() - start
    growth = status("VmHWM") - before
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - worked,
        "peak_growth_mib": growth / 2**20,
        "peak_growth_label_maps": growth / mask.nbytes,
        "classes_found": np.bincount(mask[::8].ravel(), minlength=CLASSES).tolist(),
    }


def fresh(way: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, way], capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    runs = []
    for _ in range(RUNS):
        load = os.getloadavg()[0]
        runs.append(fresh("slabs") | {"load_before": load})
    whole = fresh("whole")
    assert whole["classes_found"] == runs[0]["classes_found"]
    best = min(runs, key=lambda run: run["seconds"])
    write_json(
        RESULT,
        {
            "what": f"logits {CLASSES} x {SIDE}^3 to a uint8 mask of {2 * SIDE}^3, trilinear; best of {RUNS} runs, "
            "each a process of its own; the machine may do other work, see load_before",
            "machine": machine(),
            "label_map_mib": (2 * SIDE) ** 3 / 2**20,
            "best": best,
            "most_label_maps": max(run["peak_growth_label_maps"] for run in runs),
            "runs": runs,
            "by_whole_native_logits": whole,
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(once(sys.argv[1])))
    else:
        main()
