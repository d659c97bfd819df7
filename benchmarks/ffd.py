"""Free-form registration methods on procedural heads: tissue overlap, correlation, folding, processor seconds.

python benchmarks/ffd.py   writes benchmarks/results/ffd.json (about 8 minutes on one core)

The fixed head is a patient, as in the preparation, and the moving head is healthy. Every fixed head is registered
twice: as it is and with an injury of 20 to 70 percent of its brain (the same head otherwise), so the difference is what
the injury does to the alignment. Overlap is the mean Dice over the ten tissues of the truth, injured voxels left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.phantom.anatomy import TISSUES
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.prepare.bias_field import BiasFieldConfig, correct_bias_field
from neoseg.register.affine import register_affine
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.ffd import register_ffd
from neoseg.register.itk import affine_to_itk, bspline_from_itk, image_to_itk
from neoseg.register.transforms import Affine, Chain, Transform, resample
from neoseg.volume import Grid, Volume

RESULT = Path(__file__).parent / "results" / "ffd.json"
FIXED_SEEDS, MOVING_SEEDS = range(52001, 52007), range(53001, 53007)
BURDENS = (20.0, 30.0, 40.0, 50.0, 60.0, 70.0)
SLOW_PAIRS = (0, 3, 5)
"""Pairs that the SimpleITK methods run on as well; the ratios compare on these."""

OURS = {
    "lbfgs": FfdConfig(),
    "lbfgs, global correlation": FfdConfig(similarity="global"),
    "lbfgs, global correlation, no bending": FfdConfig(similarity="global", bending=0, stiffer=0),
    "torch on the cpu": FfdConfig(method="torch"),
}
COARSE: dict[str, Any] = {"grid_mm": (40.0,), "image_mm": (2.5,), "mask_margin_mm": 15.0, "iterations": 25}
"""The best of 6 settings tried for SimpleITK on other heads; finer lattices folded or made the overlap worse."""

SIMPLEITK = {
    "itk_lbfgsb": FfdConfig(method="itk_lbfgsb", **COARSE),
    "gradient_descent": FfdConfig(method="gradient_descent", **COARSE),
}
Register = Callable[[Head, Head, Affine], dict[str, Any]]


def main() -> None:
    report(measured())


def measured() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    rows: list[dict[str, Any]] = []
    for place, (one, other) in enumerate(zip(FIXED_SEEDS, MOVING_SEEDS, strict=True)):
        moving = make_head(np.random.default_rng(other), HeadConfig())
        healthy = make_head(np.random.default_rng(one), HeadConfig())
        injured = make_head(np.random.default_rng(one), HeadConfig(), lesion_burden=BURDENS[place])
        left_out = injured.label.array[0] != 0
        for kind, fixed in (("healthy", healthy), ("injured", injured)):
            affine = register_affine(fixed.adc, moving.adc, config=AffineConfig()).transform
            methods: dict[str, Register] = {name: with_config(config) for name, config in OURS.items()}
            if place in SLOW_PAIRS:
                methods |= {name: with_config(config) for name, config in SIMPLEITK.items()}
                methods["SimpleITK recipe"] = recipe
            about = {"pair": place, "fixed": kind, "burden_percent": fixed.parameters["lesion_burden_percent"]}
            rows.append({**about, "method": "affine", **scores(fixed, moving, affine, left_out), "cpu_s": 0.0})
            for name, method in methods.items():
                begin = time.process_time()
                found = method(fixed, moving, affine)
                seconds = time.process_time() - begin
                transform = found.pop("transform")
                rows.append(
                    {
                        **about,
                        "method": name,
                        **scores(fixed, moving, transform, left_out),
                        **found,
                        "cpu_s": round(seconds, 2),
                    }
                )
                print(rows[-1], flush=True)
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    everyone = ["affine", *OURS]
    same = [*everyone, *SIMPLEITK, "SimpleITK recipe"]
    few = [row for row in rows if row["pair"] in SLOW_PAIRS]
    table, small = [summary(rows, name) for name in everyone], [summary(few, name) for name in same]
    ours, itk = ({row["method"]: row for row in small}[name] for name in ("lbfgs", "itk_lbfgsb"))
    write_json(
        RESULT,
        {
            "what": __doc__.strip().splitlines()[0],
            "machine": machine(),
            "pairs": f"{len(FIXED_SEEDS)} pairs of heads, each fixed head healthy and injured; unseen in tuning",
            "all_pairs": table,
            "pairs_with_simpleitk": small,
            "ratios": {
                "dice_gain_over_affine": round(table[1]["dice"] - table[0]["dice"], 4),
                "dice_over_itk_lbfgsb": round(ours["dice"] - itk["dice"], 4),
                "cpu_itk_lbfgsb_over_lbfgs": round(itk["cpu_s"] / ours["cpu_s"], 1),
                "cpu_recipe_over_lbfgs": round(small[-1]["cpu_s"] / ours["cpu_s"], 1),
            },
            "injury": [injury(rows, name) for name in everyone],
            "chain": whole_chain(),
            "rows": rows,
        },
    )


def with_config(config: FfdConfig) -> Register:
    def register(fixed: Head, moving: Head, affine: Affine) -> dict[str, Any]:
        found = register_ffd(fixed.adc, moving.adc, affine, config=config)
        return {
            "transform": found.transform,
            "accepted": found.accepted,
            "smallest_jacobian": round(found.smallest_jacobian, 3),
        }

    return register


def recipe(fixed: Head, moving: Head, affine: Affine) -> dict[str, Any]:
    """SimpleITK as its examples have it: mesh 5 x 5 x 4 over the image, one level, a fifth of the voxels, LBFGSB."""
    images = [sitk.Cast(image_to_itk(head.adc), sitk.sitkFloat32) for head in (fixed, moving)]
    transform = sitk.BSplineTransformInitializer(images[0], [5, 5, 4], 3)
    method = sitk.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([1.0])
    method.SetOptimizerAsLBFGSB(1e-6, 25, costFunctionConvergenceFactor=1e5)
    method.SetMovingInitialTransform(affine_to_itk(affine, np.zeros(3)))
    method.SetInitialTransform(transform, inPlace=True)
    method.Execute(*images)
    found = bspline_from_itk(transform)
    brain = fixed.adc.grid.to_world(np.argwhere(fixed.brain.array[0] != 0))
    smallest = float(np.linalg.det(found.jacobians(brain)).min())
    return {"transform": Chain([found, affine]), "accepted": smallest > 0, "smallest_jacobian": round(smallest, 3)}


def scores(fixed: Head, moving: Head, transform: Transform, left_out: np.ndarray) -> dict[str, float]:
    """Mean Dice over the tissues and the correlation inside the fixed brain, injured voxels left out."""
    truth = fixed.tissues.array.argmax(axis=0)
    labels = Volume(moving.tissues.array.argmax(axis=0)[None].astype(np.uint8), moving.adc.grid)
    moved = resample(labels, fixed.adc.grid, transform, order=0).array[0]
    dice = []
    for tissue in range(1, len(TISSUES)):
        a, b = (truth == tissue) & ~left_out, (moved == tissue) & ~left_out
        if a.sum() >= 100:
            dice.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    image = resample(moving.clean, fixed.adc.grid, transform).array[0]
    inside = (fixed.brain.array[0] != 0) & (image > 0) & ~left_out
    ncc = float(np.corrcoef(image[inside], fixed.clean.array[0][inside])[0, 1])
    return {"dice": round(statistics.fmean(dice), 4), "ncc_inside": round(ncc, 4)}


def summary(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    own = [row for row in rows if row["method"] == name]

    def mean(key: str, kind: str | None = None) -> float:
        return round(statistics.fmean(row[key] for row in own if kind in (None, row["fixed"])), 4)

    result = {"method": name, "registrations": len(own), "cpu_s": round(mean("cpu_s"), 2), "dice": mean("dice")}
    result |= {f"dice_{kind}": mean("dice", kind) for kind in ("healthy", "injured")}
    result |= {"ncc_inside": mean("ncc_inside")}
    if name != "affine":
        result["smallest_jacobian"] = min(row["smallest_jacobian"] for row in own)
        result["accepted"] = sum(row["accepted"] for row in own)
    return result


def injury(rows: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Dice outside the injury with it less Dice of the same voxels without it, by pair."""
    dice = {(row["pair"], row["fixed"]): row["dice"] for row in rows if row["method"] == name}
    change = [round(dice[place, "injured"] - dice[place, "healthy"], 4) for place in range(len(BURDENS))]
    return {
        "method": name,
        "burdens_percent": BURDENS,
        "dice_change": change,
        "mean": round(statistics.fmean(change), 4),
    }


def whole_chain() -> dict[str, Any]:
    """Processor seconds of N4, affine and free-form registration of heads of 128 x 128 x 40 voxels."""
    steps: dict[str, list[float]] = {"n4": [], "affine": [], "ffd": []}
    for one, other in zip(FIXED_SEEDS[:3], MOVING_SEEDS[:3], strict=True):
        head, moving = (make_head(np.random.default_rng(seed), HeadConfig()) for seed in (one, other))
        grid = head.adc.grid
        affine = grid.affine.copy()
        affine[:3, :3] = grid.directions @ np.diag([1.4, 1.4, 2.6])
        affine[:3, 3] = grid.centre - affine[:3, :3] @ [63.5, 63.5, 19.5]
        fixed = resample(head.adc, Grid((128, 128, 40), affine))
        marks = [time.process_time()]
        corrected = correct_bias_field(fixed, fixed.array[0] != 0, BiasFieldConfig(method="n4")).corrected
        marks.append(time.process_time())
        first = register_affine(corrected, moving.adc, config=AffineConfig()).transform
        marks.append(time.process_time())
        register_ffd(corrected, moving.adc, first, config=FfdConfig())
        marks.append(time.process_time())
        for name, seconds in zip(steps, np.diff(marks), strict=True):
            steps[name].append(float(seconds))
    medians = {name: round(statistics.median(values), 2) for name, values in steps.items()}
    return {"shape": (128, 128, 40), "heads": 3, "median_cpu_s": {**medians, "sum": round(sum(medians.values()), 2)}}


if __name__ == "__main__":
    main()
