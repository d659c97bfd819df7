"""Bias field correction on 20 procedural heads that nothing was chosen on, and what it does to ADC without a field.

python benchmarks/bias_field.py DATA   writes benchmarks/results/bias_field.json; about 4 minutes of one core

DATA holds real heads (ISLES 2022, a template of the Baby Connectome Project), which get a field of our own on top of
whatever they have.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from machine import machine
from neoseg.atomic import write_json
from neoseg.io import read_volume
from neoseg.phantom.anatomy import TISSUES
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.prepare.bias_field import BiasFieldConfig, correct_bias_field

RESULT = Path(__file__).parent / "results" / "bias_field.json"
SEEDS = range(7000, 7020)
"""The method was chosen on seeds 100 to 111."""

FIELDS = {0.0: (0.0, 0.09, 0.12, 0.15), 15.0: (0.0, 0.09), 50.0: (0.0, 0.09, 0.15)}
"""Standard deviations of the log field in the brain, for each lesion burden in percent of the brain."""

METHODS = {
    "pairs": BiasFieldConfig(),
    "pairs, anatomy_sd 0": BiasFieldConfig(anatomy_sd=0),
    "n4, anatomy_sd 0": BiasFieldConfig(method="n4", anatomy_sd=0),
    "n4, anatomy_sd 0, convergence 2e-3": BiasFieldConfig(method="n4", anatomy_sd=0, convergence=2e-3),
}

N4_TOO = {(0.0, 0.0), (0.0, 0.09), (50.0, 0.0), (50.0, 0.09)}
"""Where N4 is measured as well; it takes most of the time."""

REAL = {
    "adult ADC with a stroke (ISLES 2022)": "isles22_case0001_unlabelled/sub-strokecase0001_ses-0001_adc.nii.gz",
    "adult FLAIR with multiple sclerosis": "ms_mni/patient19/FLAIR.nii.gz",
    "newborn T2 template (BCP)": "template_neonate_bcp_0mo/tpl-UNCBCP4DInfant_cohort-00_desc-brain_T2w.nii.gz",
}


def ratio(head: Head, adc: np.ndarray, brain: np.ndarray) -> float:
    """Lesion over the rest of the brain; in a head without lesion, thalamus over white matter."""
    lesion = (head.label.array[0] != 0) & brain
    if lesion.any():
        return float(adc[lesion].mean() / adc[brain & ~lesion].mean())
    share = head.tissues.array
    thalamus, white = (share[TISSUES.index(name)] > 0.9 for name in ("thalamus", "white_matter"))
    return float(adc[thalamus].mean() / adc[white].mean())


def measure(head: Head, field_sd: float, config: BiasFieldConfig) -> dict[str, float]:
    brain = head.brain.array[0] != 0
    truth = np.log(head.field.array[0].astype(np.float64))
    truth = (truth - truth[brain].mean()) * (field_sd / truth[brain].std())
    without = np.where(brain, head.adc.array[0] / head.field.array[0], 0)
    scan = np.where(brain, without * np.exp(truth), 0).astype(np.float32)
    start = time.process_time()
    found = correct_bias_field(head.adc.with_array(scan[None]), brain, config)
    seconds = time.process_time() - start
    field = found.log_field[brain].astype(np.float64)
    field -= field.mean()
    corrected = found.corrected.array[0]
    true_ratio = ratio(head, without, brain)
    facts = {
        "field_sd": float(field.std()),
        "found_sd": found.found_sd,
        "left_sd": float((field - truth[brain]).std()),
        "ratio_change_percent": 100 * abs(ratio(head, corrected, brain) / true_ratio - 1),
        "ratio_change_uncorrected_percent": 100 * abs(ratio(head, scan, brain) / true_ratio - 1),
        "mean_change_percent": 100
        * abs(float(corrected[brain].mean(dtype=np.float64) / scan[brain].mean(dtype=np.float64)) - 1),
        "cpu_s": seconds,
    }
    if field_sd > 0:
        moved = field.std() > 0
        facts["correlation"] = float(np.corrcoef(field, truth[brain])[0, 1]) if moved else 0.0
    return facts


def summary(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median, and the worst of the heads."""
    return {
        name: {
            "median": float(f"{np.median([row[name] for row in rows]):.4g}"),
            "worst": float(f"{(min if name == 'correlation' else max)(row[name] for row in rows):.4g}"),
        }
        for name in rows[0]
    }


def real_heads(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """A known field on top of real heads: what is found, and how far what is found changes with it."""
    results: dict[str, list[dict[str, Any]]] = {}
    for head, file in REAL.items():
        volume = read_volume(folder / file)
        brain = volume.array[0] > 0
        place = volume.grid.to_world(np.argwhere(brain))
        x, y, z = ((place - place.mean(axis=0)) / 50).T
        truth = 0.5 * x + 0.3 * y - 0.2 * z + 0.4 * x * y - 0.3 * y * y + 0.3 * z * z
        truth = (truth - truth.mean()) / truth.std()
        for name in ("pairs, anatomy_sd 0", "n4, anatomy_sd 0"):
            for field_sd in (0.0, 0.09, 0.15):
                array = volume.array[0].astype(np.float32)
                array[brain] *= np.exp(field_sd * truth).astype(np.float32)
                start = time.process_time()
                found = correct_bias_field(volume.with_array(array[None]), brain, METHODS[name]).log_field[brain]
                row = {"method": name, "put_in_sd": field_sd, "found_sd": float(f"{found.std():.4g}")}
                if field_sd == 0:
                    before = found
                else:
                    row["correlation"] = float(f"{np.corrcoef(found, truth)[0, 1]:.4g}")
                    row["slope_of_the_change"] = float(f"{((found - before) * truth).mean() / field_sd:.4g}")
                row["cpu_s"] = float(f"{time.process_time() - start:.3g}")
                results.setdefault(head, []).append(row)
    return results


def main(real: Path) -> None:
    known = real_heads(real)
    rows: dict[tuple[str, float, float], list[dict[str, float]]] = {}
    for seed in SEEDS:
        for burden, fields in FIELDS.items():
            head = make_head(np.random.default_rng(seed), HeadConfig(), lesion_burden=burden)
            for field_sd in fields:
                for name, config in METHODS.items():
                    if config.method == "n4" and (burden, field_sd) not in N4_TOO:
                        continue
                    rows.setdefault((name, burden, field_sd), []).append(measure(head, field_sd, config))
    results: dict[str, list[dict[str, Any]]] = {}
    for (name, burden, field_sd), found in rows.items():
        results.setdefault(name, []).append({"burden_percent": burden, "true_field_sd": field_sd, **summary(found)})
    write_json(
        RESULT,
        {
            "what": f"{len(SEEDS)} procedural heads, seeds {SEEDS.start} to {SEEDS.stop - 1}; log fields in the brain; "
            "ratio: lesion over the rest of the brain, in heads without lesion thalamus over white matter, "
            "against the scan without a field; left_sd: of estimate minus truth; correlation 0 where nothing is taken "
            "out",
            "machine": machine(),
            "configs": {name: config.model_dump() for name, config in METHODS.items()},
            "results": results,
            "real_heads": known,
        },
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
