"""Atlas and Z map on made-up heads: is a healthy head that the atlas never saw standard normal, and are lesions found?

Of each cohort 20 healthy heads make an atlas; 8 more are left out. The file is written anew after each cohort.

python benchmarks/zmap.py          writes benchmarks/results/zmap.json (about 10 minutes on one core)
python benchmarks/zmap.py levels   only adds to it what the heads' own levels explain
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.stats import rankdata

from machine import machine
from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.atomic import read_json, write_json
from neoseg.phantom.anatomy import TISSUES
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.lesions import stratified
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.bias_field import BiasFieldConfig, correct_bias_field
from neoseg.prepare.zmap import ZmapConfig, deviation, masked_smoothing, t_to_normal, zmap_with_coverage
from neoseg.register.chain import register_heads
from neoseg.register.transforms import Transform
from neoseg.volume import Volume, upright

RESULT = Path(__file__).parent / "results" / "zmap.json"
SEEDS = (1, 2, 3)
IN_ATLAS, LEFT_OUT, PATIENTS = 20, 8, 6
CONFIG = AtlasConfig()


@dataclass
class Scan:
    """One head, as far as it is needed here; ``adc`` is the one under study of ``raw`` and ``corrected``."""

    adc: Volume
    raw: Volume
    corrected: Volume
    mask: np.ndarray
    tissues: np.ndarray
    lesion: np.ndarray
    canonical: np.ndarray
    n4_seconds: float


def scan(entropy: list[int], burden: float | None) -> Scan:
    head: Head = make_head(np.random.default_rng(entropy), HeadConfig(), lesion_burden=burden)
    mask = head.brain.array[0] > 0
    values = np.where(mask, np.maximum(np.rint(head.adc.array), 1), 0).astype(np.float32)
    raw = Volume(values, upright(head.adc.grid))
    start = time.process_time()
    corrected = correct_bias_field(raw, mask, BiasFieldConfig()).corrected
    seconds = time.process_time() - start
    world = head.adc.grid.to_world(np.argwhere(mask))
    return Scan(
        raw,
        raw,
        corrected,
        mask,
        head.tissues.array.argmax(0)[mask],
        head.label.array[0][mask] > 0,
        head.deformation.to_canonical(world).astype(np.float64),
        seconds,
    )


def nearest(points: Sequence[np.ndarray], values: Sequence[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Value of each head's nearest voxel at places, NaN where none is within 3 mm."""
    rows = []
    for mapped, image in zip(points, values, strict=True):
        distance, index = cKDTree(mapped).query(places, distance_upper_bound=3.0)
        seen = np.isfinite(distance)
        rows.append(np.where(seen, image[np.where(seen, index, 0)], np.nan))
    return np.stack(rows)


def left_out_rms(rows: np.ndarray) -> float:
    """Root mean square of each head less the mean of the others, over places that most heads cover."""
    rows = rows[:, np.isfinite(rows).mean(axis=0) >= 0.9]
    count = np.isfinite(rows).sum(axis=0)
    others = (np.nansum(rows, axis=0) - np.nan_to_num(rows)) / np.maximum(count - 1, 1)
    return float(np.sqrt(np.nanmean((rows - others) ** 2)))


def build(scans: Sequence[Scan]) -> tuple[Atlas, dict[str, Any]]:
    """Build an atlas; also what registration costs in spread, and the sd that warped heads would have given."""
    kept: dict[str, Any] = {}

    def each(function: Callable[[Any], Any], jobs: Sequence[Any]) -> list[Any]:
        results = [function(job) for job in jobs]
        name = getattr(function, "__name__", "registration")
        kept[name] = (jobs, results)
        return results

    start = time.process_time()
    atlas = build_atlas([s.adc for s in scans], CONFIG, run_each=each)
    seconds = time.process_time() - start
    warped = np.stack([np.where(known, image, np.nan) for image, known, _ in kept["read_at"][1]])
    warped = warped[:, atlas.inside.ravel()]
    between = float(np.sqrt(np.nanmean(np.nanvar(warped, axis=0, ddof=1))))
    jobs = kept["residuals_at"][0]
    registered = [
        transform.points(head.image.grid.to_world(np.argwhere(head.mask))) for head, _, _, transform, _ in jobs
    ]
    own = [head.image.array[0][head.mask] for head, *_ in jobs]
    by_registration = left_out_rms(nearest(registered, own, jobs[0][4]))
    truth = [s.canonical for s in scans]
    low, high = np.percentile(np.concatenate(truth), (1, 99), axis=0)
    axes = [np.arange(a, b, CONFIG.spacing_mm) for a, b in zip(low, high, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    by_truth = left_out_rms(nearest(truth, [s.adc.array[0][s.mask] for s in scans], places))
    return atlas, {
        "cpu_seconds_a_head": round(seconds / len(scans), 2),
        "rms_sd_left_out": round(float(np.sqrt(np.mean(atlas.sd.array[0][atlas.inside] ** 2))), 1),
        "rms_sd_between_warped_heads": round(between, 1),
        "left_out_rms_aligned_by_registration": round(by_registration, 1),
        "left_out_rms_aligned_by_truth": round(by_truth, 1),
        "calibration": atlas.calibration.model_dump() if atlas.calibration else None,
        "heads_of_the_atlas": list(atlas.provenance["heads"]),
        "warnings": atlas.warnings,
    }


def aligned(atlas: Atlas, one: Scan) -> tuple[Transform, float]:
    start = time.process_time()
    found = register_heads(
        one.adc, atlas.mean, affine=CONFIG.affine, ffd=CONFIG.ffd, fixed_mask=one.mask, moving_mask=atlas.inside
    )
    return found.transform, time.process_time() - start


def maps(atlas: Atlas, one: Scan, transform: Transform) -> dict[str, np.ndarray]:
    """Z of the brain's voxels under each definition, NaN where the atlas says nothing; as the Z map makes them."""
    found = deviation(one.adc, one.mask, atlas, transform, sd_floor=ZmapConfig().sd_floor)
    covered = np.zeros(one.mask.shape, bool)
    covered[one.mask] = found.known
    made = {}
    for small in (False, True):
        z = np.zeros(one.mask.shape, np.float32)
        z[one.mask] = t_to_normal(found.t, found.count) if small else found.t
        for width in (0.0, 2.0):
            smooth = masked_smoothing(z, covered, one.adc.spacing, width)[one.mask]
            name = f"{width:g} mm" + (", small sample" if small else "")
            spread = atlas.calibration.spread(width, small_sample=small)
            for calibrated in (False, True):
                values = np.clip(smooth / (spread if calibrated else 1), -10, 10)
                made[name + (", calibrated" if calibrated else "")] = np.where(found.known, values, np.nan)
    return made


def pooled(found: Sequence[tuple[Scan, dict[str, np.ndarray]]], kind: str) -> dict[str, Any]:
    each = [z[kind] for _, z in found]
    mean = float(np.mean([np.nanmean(z) for z in each]))
    sd = float(np.sqrt(np.mean([np.nanmean(z**2) for z in each]) - mean**2))
    every = np.concatenate(each)
    every = every[np.isfinite(every)]
    return {
        "heads": len(each),
        "mean": round(mean, 3),
        "sd": round(sd, 3),
        "sd_of_the_heads_means": round(float(np.std([np.nanmean(z) for z in each], ddof=1)), 3),
        "share_below_-2": round(float((every < -2).mean()), 4),
        "share_below_-3": round(float((every < -3).mean()), 5),
        "share_above_2": round(float((every > 2).mean()), 4),
    }


def own_level(seed: int, index: int) -> float:
    """Factor that a healthy head of a cohort has on all its tissue values; it opens the stream of these values."""
    stream = np.random.default_rng([seed, 7, index]).spawn(7)[3]
    return float(np.exp(stream.normal(0, HeadConfig().maturity_sd)))


def level_effect(atlases: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How much of a mean of Z is the chance by which the left-out heads lie above or below their atlas' heads.

    The slope of mean Z over a head's own level is taken from the atlases' heads, each against the others; what the
    left-out heads have beyond it is what the method adds.
    """
    away, mean, cohorts = [], [], []
    for one in atlases:
        levels = np.array([own_level(one["seed"], i) for i in range(IN_ATLAS + LEFT_OUT)])
        inside = levels[:IN_ATLAS]
        away += list(inside - (inside.sum() - inside) / (IN_ATLAS - 1))
        mean += [head["left_out_mean"] for head in one["heads_of_the_atlas"]]
        cohorts.append((one["seed"], float(levels[IN_ATLAS:].mean() - inside.mean()), one["left_out"]["mean"]))
    x, y = np.array(away), np.array(mean)
    slope = float(x @ y / (x @ x))
    spread = float((y - slope * x).std(ddof=1))
    rest = float(np.mean([found - slope * gap for _, gap, found in cohorts]))
    count = LEFT_OUT * len(cohorts)
    return {
        "correlation_of_level_and_mean_z": round(float(np.corrcoef(x, y)[0, 1]), 3),
        "z_a_percent_of_level": round(slope / 100, 4),
        "cohorts": [
            {"seed": seed, "percent_of_level": round(100 * gap, 2), "expected": round(slope * gap, 3), "found": found}
            for seed, gap, found in cohorts
        ],
        "mean_at_the_level_of_the_atlas": round(rest, 3),
        "standard_error": round(spread * float(np.sqrt(1 / count + 1 / len(x))), 3),
        "standard_error_with_chance_of_level": round(float(y.std(ddof=1) * np.sqrt(1 / count + 1 / len(x))), 3),
    }


def by_tissue(found: Sequence[tuple[Scan, dict[str, np.ndarray]]], kind: str) -> dict[str, Any]:
    tissue = np.concatenate([s.tissues for s, _ in found])
    z = np.concatenate([m[kind] for _, m in found])
    table = {}
    for index, name in enumerate(TISSUES):
        here = z[(tissue == index) & np.isfinite(z)]
        if index and len(here):
            table[name] = {"mean": round(float(here.mean()), 2), "sd": round(float(here.std()), 2)}
    return table


def auc(score: np.ndarray, lesion: np.ndarray) -> float:
    ranks = rankdata(score)
    n = int(lesion.sum())
    return float((ranks[lesion].sum() - n * (n + 1) / 2) / (n * (len(lesion) - n)))


def lesions(found: Sequence[tuple[Scan, dict[str, np.ndarray]]]) -> dict[str, Any]:
    """AUC of each map, and how far from the lesion the lowest Z lies."""
    scores: dict[str, list[float]] = {}
    away, best = [], "2 mm, calibrated"
    for one, z in found:
        if one.lesion.sum() < 50:
            continue
        smooth = masked_smoothing(one.adc.array[0], one.mask, one.adc.spacing, 2.0)[one.mask]
        rows = {"ADC": one.adc.array[0][one.mask], "ADC, smoothed 2 mm": smooth, **z}
        for kind, values in rows.items():
            scores.setdefault(kind, []).append(auc(-np.nan_to_num(values), one.lesion))
        where = np.zeros(one.mask.shape, bool)
        where[one.mask] = one.lesion
        distance = ndimage.distance_transform_edt(~where, sampling=one.adc.spacing)[one.mask]
        away.append(float(distance[int(np.nanargmin(z[best]))]))
    return {
        "patients": len(away),
        "auc_mean": {kind: round(float(np.mean(values)), 4) for kind, values in scores.items()},
        "auc_lowest": {kind: round(float(np.min(values)), 4) for kind, values in scores.items()},
        "z_beats_adc_in": sum(a > b for a, b in zip(scores[best], scores["ADC, smoothed 2 mm"], strict=True)),
        "mm_from_lowest_z_to_lesion": [round(d, 1) for d in away],
    }


def z_of(atlas: Atlas, scans: Sequence[Scan]) -> tuple[list[tuple[Scan, dict[str, np.ndarray]]], list[float]]:
    found, seconds = [], []
    for one in scans:
        transform, cost = aligned(atlas, one)
        start = time.process_time()
        made = zmap_with_coverage(one.adc, one.mask, atlas, transform).volume.array[0][one.mask]
        seconds.append(cost + time.process_time() - start)
        rows = maps(atlas, one, transform)
        assert np.allclose(np.nan_to_num(rows["2 mm, calibrated"]), made, atol=1e-3)
        found.append((one, rows))
    return found, seconds


def summary(parts: Sequence[tuple[dict[str, Any], list[Any], list[Any], list[float]]]) -> dict[str, Any]:
    healthy = [pair for _, own, _, _ in parts for pair in own]
    ill = [pair for _, _, sick, _ in parts for pair in sick]
    inside = [h["left_out_mean"] for facts, _, _, _ in parts for h in facts["heads_of_the_atlas"]]
    return {
        "atlases": [facts for facts, _, _, _ in parts],
        "left_out": {kind: pooled(healthy, kind) for kind in healthy[0][1]},
        "level": level_effect([facts for facts, *_ in parts]),
        "mean_of_the_heads_of_the_atlases_left_out_in_turn": round(float(np.mean(inside)), 3),
        "by_tissue": by_tissue(healthy, "2 mm, calibrated"),
        "lesions": lesions(ill),
        "cpu_seconds_a_scan_without_n4": round(float(np.median([s for *_, times in parts for s in times])), 2),
        "cpu_seconds_n4": round(float(np.median([s.n4_seconds for s, _ in healthy + ill])), 2),
    }


def cohort_study(seed: int, cohort: dict[str, list[Scan]], n4: bool) -> tuple[Any, ...]:
    for scans in cohort.values():
        for one in scans:
            one.adc = one.corrected if n4 else one.raw
    atlas, facts = build(cohort["atlas"])
    own, some = z_of(atlas, cohort["left out"])
    sick, more = z_of(atlas, cohort["patients"])
    facts = {"seed": seed, **facts, "left_out": pooled(own, "2 mm, calibrated")}
    print(facts, flush=True)
    return facts, own, sick, some + more


def main() -> None:
    begin = time.process_time()
    parts: dict[str, list[Any]] = {"with_n4": [], "without_n4": []}
    for seed in SEEDS:
        burdens = stratified(np.random.default_rng([seed, 1]), PATIENTS)
        healthy = [scan([seed, 7, i], None) for i in range(IN_ATLAS + LEFT_OUT)]
        cohort = {
            "atlas": healthy[:IN_ATLAS],
            "left out": healthy[IN_ATLAS:],
            "patients": [scan([seed, 8, i], burden) for i, burden in enumerate(burdens)],
        }
        for name in parts if seed == SEEDS[0] else ["with_n4"]:
            parts[name].append(cohort_study(seed, cohort, n4=name == "with_n4"))
            write_json(
                RESULT,
                {
                    "what": f"phantoms; a cohort has {IN_ATLAS} healthy heads in the atlas, {LEFT_OUT} left out and "
                    f"{PATIENTS} patients; without N4 for the first cohort only",
                    "machine": machine(),
                    "cpu_seconds": round(time.process_time() - begin),
                    **{name: summary(done) for name, done in parts.items() if done},
                    "with_n4_first_cohort": summary(parts["with_n4"][:1]),
                },
            )


def add_levels() -> None:
    """Add what the heads' own levels explain to the record that is there."""
    record = read_json(RESULT)
    record["with_n4"]["level"] = level_effect(record["with_n4"]["atlases"])
    write_json(RESULT, record)


if __name__ == "__main__":
    add_levels() if sys.argv[1:] == ["levels"] else main()
