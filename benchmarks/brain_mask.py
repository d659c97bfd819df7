"""The brain mask of procedural heads, stripped and unstripped, against the truth.

python benchmarks/brain_mask.py         writes benchmarks/results/brain_mask.json
python benchmarks/brain_mask.py thick   only measures slices of 5 and 6 mm, and adds them to it
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

import numpy as np

from label_loss import head as head_in_slices
from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.data.brain_mask import brain_mask
from neoseg.phantom.anatomy import TISSUES
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.shell import unstripped
from neoseg.volume import Volume

RESULT = Path(__file__).parent / "results" / "brain_mask.json"
BURDENS = (None, None, None, 0.0, 0.3, 1.0, 4.0, 10.0, 25.0, 40.0, 60.0, 78.0)


THICK, THICK_BURDENS = (5.0, 6.0), (None, 0.3, 4.0, 25.0, 60.0)
FLUID = [TISSUES.index(name) for name in ("csf", "ventricle")]


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


def measured(head: Head, scan: Volume, burden: float | None) -> dict[str, object]:
    truth, lesion = head.brain.array[0] != 0, head.label.array[0] != 0
    fluid = truth & np.isin(head.tissues.array.argmax(0), FLUID)
    start = time.process_time()
    found = brain_mask(scan, "adc")
    seconds = time.process_time() - start
    both = float((found.mask & truth).sum())
    return {
        "burden_percent": burden,
        "slice_mm": round(head.adc.spacing[2], 2),
        "origin": found.origin,
        "dice": round(2 * both / float(found.mask.sum() + truth.sum()), 4),
        "brain_kept": round(both / float(truth.sum()), 4),
        "lesion_kept": round(float(lesion[found.mask].sum() / lesion.sum()), 4) if lesion.any() else None,
        "fluid_kept": round(float(fluid[found.mask].sum() / fluid.sum()), 4),
        "size": round(float(found.mask.sum() / truth.sum()), 4),
        "cpu_s": round(seconds, 3),
    }


def summary_of(rows: dict[str, list[dict[str, object]]]) -> dict[str, dict[str, object]]:
    def numbers(some: list[dict[str, object]], key: str) -> list[float]:
        return [float(str(r[key])) for r in some if r[key] is not None]

    return {
        name: {
            "origins": sorted({str(r["origin"]) for r in some}),
            "dice_median": round(statistics.median(numbers(some, "dice")), 4),
            "dice_worst": min(numbers(some, "dice")),
            "brain_kept_worst": min(numbers(some, "brain_kept")),
            "lesion_kept_worst": min(numbers(some, "lesion_kept")),
            "fluid_kept_worst": min(numbers(some, "fluid_kept")),
            "size_largest": max(numbers(some, "size")),
            "cpu_s_median": round(statistics.median(numbers(some, "cpu_s")), 3),
        }
        for name, some in rows.items()
    }


def thick_slices() -> dict[str, object]:
    """The same in slices of 5 and 6 mm, which the generator does not draw by itself."""
    found: dict[str, object] = {}
    for thick in THICK:
        rows: dict[str, list[dict[str, object]]] = {}
        for seed, burden in enumerate(THICK_BURDENS):
            head = head_in_slices(900 + seed, thick, burden)
            for name, scan in scans(head).items():
                rows.setdefault(name, []).append(measured(head, scan, burden))
        found[f"{thick:g} mm"] = summary_of(rows)
    return found


def main() -> None:
    if sys.argv[1:] == ["thick"]:
        write_json(RESULT, read_json(RESULT) | {"thick_slices": thick_slices()})
        return
    rows: dict[str, list[dict[str, object]]] = {}
    for seed, burden in enumerate(BURDENS):
        head = make_head(np.random.default_rng([77, seed]), HeadConfig(), lesion_burden=burden)
        for name, scan in scans(head).items():
            rows.setdefault(name, []).append(measured(head, scan, burden))
    what = f"{len(BURDENS)} procedural heads; Dice of the brain mask with the truth"
    record = {"what": what, "machine": machine(), "summary": summary_of(rows), "heads": rows}
    write_json(RESULT, record | {"thick_slices": thick_slices()})


if __name__ == "__main__":
    main()
