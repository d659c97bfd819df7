"""The brain mask of procedural heads, stripped and unstripped, against the truth.

python benchmarks/brain_mask.py   writes benchmarks/results/brain_mask.json
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import numpy as np

from machine import machine
from neoseg.atomic import write_json
from neoseg.data.brain_mask import brain_mask
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.shell import unstripped
from neoseg.volume import Volume

RESULT = Path(__file__).parent / "results" / "brain_mask.json"
BURDENS = (None, None, None, 0.0, 0.3, 1.0, 4.0, 10.0, 25.0, 40.0, 60.0, 78.0)


def scans(head: Head) -> dict[str, Volume]:
    brain, adc = head.brain.array[0] != 0, head.adc.array[0]
    made = {f"stripped, background {v:g}": np.where(brain, adc, v) for v in (0, -1000, 500, 1200)}
    uniform = np.random.default_rng(2).uniform(0, 4095, brain.shape)
    made["stripped, background uniform noise 0..4095"] = np.where(brain, adc, uniform)
    found = {name: head.adc.with_array(values.astype(np.float32)) for name, values in made.items()}
    for air in ("zero", "noise", "clipped"):
        for bone in (2.6, 1.5):
            found[f"unstripped, air {air}, bone {bone} mm"] = unstripped(
                head, np.random.default_rng(1), air=air, bone_mm=bone
            )
    return found


def main() -> None:
    rows: dict[str, list[dict[str, object]]] = {}
    for seed, burden in enumerate(BURDENS):
        head = make_head(np.random.default_rng([77, seed]), HeadConfig(), lesion_burden=burden)
        truth, lesion = head.brain.array[0] != 0, head.label.array[0] != 0
        for name, scan in scans(head).items():
            start = time.process_time()
            found = brain_mask(scan, "adc")
            seconds = time.process_time() - start
            both = float((found.mask & truth).sum())
            rows.setdefault(name, []).append(
                {
                    "burden_percent": burden,
                    "slice_mm": round(head.adc.spacing[2], 2),
                    "origin": found.origin,
                    "dice": round(2 * both / float(found.mask.sum() + truth.sum()), 4),
                    "brain_kept": round(both / float(truth.sum()), 4),
                    "lesion_kept": round(float(lesion[found.mask].sum() / lesion.sum()), 4) if lesion.any() else None,
                    "cpu_s": round(seconds, 3),
                }
            )
    summary = {
        name: {
            "origins": sorted({str(r["origin"]) for r in some}),
            "dice_median": round(statistics.median(float(str(r["dice"])) for r in some), 4),
            "dice_worst": min(float(str(r["dice"])) for r in some),
            "brain_kept_worst": min(float(str(r["brain_kept"])) for r in some),
            "lesion_kept_worst": min(float(str(r["lesion_kept"])) for r in some if r["lesion_kept"] is not None),
            "cpu_s_median": round(statistics.median(float(str(r["cpu_s"])) for r in some), 3),
        }
        for name, some in rows.items()
    }
    what = f"{len(BURDENS)} procedural heads; Dice of the brain mask with the truth"
    write_json(RESULT, {"what": what, "machine": machine(), "summary": summary, "heads": rows})


if __name__ == "__main__":
    main()
