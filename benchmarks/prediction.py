"""Memory of prediction: the peak with and without a limit on it, and what stays resident over 100 scans in a row.

    python benchmarks/prediction.py RUN [SCANS]    writes benchmarks/results/prediction.json

RUN is a finished run whose scans have one channel. Each measurement of a peak is a process of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from machine import machine
from neoseg.atomic import write_json
from neoseg.data.foreground import foreground_mask
from neoseg.inference.memory import resident_bytes
from neoseg.inference.predictor import Steps
from neoseg.io import write_volume
from neoseg.machine import peak_bytes
from neoseg.prepare.bias_field import BiasFieldConfig
from neoseg.prepare.configs import PrepareConfig, PrepareSettings
from neoseg.prepare.standardise import Template
from neoseg.register.configs import FfdConfig
from neoseg.volume import Grid, Volume

RESULT = Path(__file__).parent / "results" / "prediction.json"
SIDES, LIMITS = (160, 224), ("none", "1000M", "700M")
WAYS = ("same grid", "finer grid", "bias field", "template affine", "template free-form")
SCANS = 100


def scan(side: int, seed: int, unit: float = 100.0) -> Volume:
    """Noise in two opposite corners of a volume of zeros, so that there are few windows and large arrays."""
    generator, values = np.random.default_rng(seed), np.zeros((side,) * 3, dtype=np.float32)
    for corner in (slice(2, 26), slice(-26, -2)):
        values[(corner,) * 3] = generator.normal(unit, unit / 5, (24,) * 3)
    return Volume(values[None], Grid.of_spacing(values.shape, (1.0,) * 3))


def head(side: int) -> Volume:
    """A ball of noise of a newborn head's size and values."""
    axis = np.linspace(-1, 1, side)
    inside = sum(a**2 for a in np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)) < 0.9
    values = np.where(inside, np.random.default_rng(0).normal(1000, 100, inside.shape), 0)
    return Volume(values[None].astype(np.float32), Grid.of_spacing(inside.shape, (128 / side,) * 3))


def prepared(way: str) -> dict[str, float]:
    """Bytes a voxel of the scan that preparing it takes at its peak."""
    config, spacing, template = PrepareConfig(), (1.0,) * 3, None
    if way == "bias field":
        config = PrepareConfig(bias_field=BiasFieldConfig(method="n4"))
    if way.startswith("template"):
        small = head(64)
        template = Template(small, foreground_mask(small.array))
        config = PrepareConfig(space="template", ffd=FfdConfig() if way.endswith("free-form") else None)
    side = 128
    settings = PrepareSettings(
        channels=("adc",), spacing_mm=(0.8,) * 3 if way == "finer grid" else spacing, rules={"adc": "case"}
    )
    steps = Steps(config, settings, None, template)
    steps.ready(head(48), ("adc",))
    image = head(side)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = resident_bytes()
    steps.ready(image, ("adc",))
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return {"side": side, "bytes_a_voxel": (peak - before) / side**3}


class Watching:
    """A listener that notes the resident memory after each scan."""

    def __init__(self) -> None:
        self.seen: list[float] = []
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def track(self, title: str, total: int) -> Any:
        from contextlib import contextmanager

        @contextmanager
        def bar() -> Any:
            yield lambda count=1, name="": self.seen.append(resident_bytes() / 2**20)

        return bar()


def once(run: Path, folder: Path, limit: str, more: str) -> dict[str, Any]:
    from neoseg.pipeline.new_scans import PredictOptions, predict_scans

    # what is there would be kept
    (folder / "out" / "predictions.json").unlink(missing_ok=True)
    watching, start = Watching(), time.perf_counter()
    options = PredictOptions(uncertainty="uncertainty" in more, max_memory=None if limit == "none" else limit)
    found = predict_scans(
        run, folder / "in", folder / "out", device="cpu", probabilities="probabilities" in more, options=options,
        progress=watching,
    )  # fmt: skip
    assert not any(one.error for one in found), found
    return {
        "seconds": time.perf_counter() - start,
        "peak_mib": (peak_bytes() or 0) / 2**20,
        "resident_mib": watching.seen,
        "said": watching.said,
    }


def preparation() -> dict[str, Any]:
    return {way: fresh("--prepare", way) for way in WAYS}


def fresh(*arguments: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def limits(run: Path) -> list[dict[str, Any]]:
    rows = []
    for side in SIDES:
        with TemporaryDirectory() as name:
            folder = Path(name)
            write_volume(scan(side, 0), folder / "in" / "scan.nii.gz")
            for limit in LIMITS:
                try:
                    found = fresh("--once", str(run), str(folder), limit, "probabilities uncertainty")
                    row = {k: found[k] for k in ("seconds", "peak_mib")}
                except RuntimeError as error:
                    row = {"refused": str(error).strip().splitlines()[-1]}
                rows.append({"side": side, "limit": limit, **row})
                print(rows[-1], flush=True)
    return rows


def stream(run: Path, count: int) -> dict[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        for index in range(count):
            write_volume(scan(64, index), folder / "in" / f"scan{index:03d}.nii.gz")
        found = fresh("--once", str(run), str(folder), "none", "")
    seen = found["resident_mib"]
    return {
        "scans": count,
        "side": 64,
        "seconds": found["seconds"],
        "resident_mib_after": {str(i + 1): seen[i] for i in (0, 4, 9, 24, 49, count - 1) if i < count},
        "growth_from_5th_to_last_mib": seen[-1] - seen[4],
        "most_after_5th_mib": max(seen[5:]) - seen[4],
    }


def main(run: Path, count: int) -> None:
    result: dict[str, Any] = {
        "what": "resident memory of neoseg predict with maps of probability, entropy and spread, on made-up scans; the "
        "machine may do other work",
        "machine": machine(),
        "load_before": os.getloadavg()[0],
    }
    parts = {"stream": lambda: stream(run, count), "preparation": preparation, "limits": lambda: limits(run)}
    # written after each part, since all of them take long on a machine that does other work
    for part, work in parts.items():
        result[part] = work()
        write_json(RESULT, result)


if __name__ == "__main__":
    if sys.argv[1] == "--once":
        print(json.dumps(once(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], sys.argv[5])))
    elif sys.argv[1] == "--prepare":
        print(json.dumps(prepared(sys.argv[2])))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else SCANS)
