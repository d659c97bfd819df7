"""Do bias correction, registration and a common space help? The demo's cohort and recipe with each step on or off.

Every configuration is run to its scores (folds, choices, held-out heads) on the same made-up cohorts, one a seed; the
seed also starts the training. "z" means the Z map beside the ADC, its registration by the affine map alone or with the
free-form deformation; "template" means that the network works in the atlas' space. "n4" and "pairs" are bias field
corrections. The atlas of a seed is built once with each correction and serves all configurations with it; its own
building always uses the deformation. Dice is over cases with a lesion, on the scans' grids; differences are to the
plain scan ("native adc"), paired by case, with 95 % bootstrap intervals.

    python benchmarks/space.py FOLDER [--seeds 0 1 2] [--core-minutes 1.5] [--minutes 120] [--only NAME ...] [--tiny]

Writes benchmarks/results/space.json after every run. Killed and started again it goes on where it stood; after
``--minutes`` no further run is started.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.cli.console import RichProgress
from neoseg.cluster.local import run_all
from neoseg.config import load_config
from neoseg.phantom.cohort import write_cohort
from neoseg.phantom.config import CohortConfig
from neoseg.pipeline.evaluate import NETWORK, read_rows
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.prepare import atlas_of
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import open_session
from neoseg.progress import Silent
from neoseg.report.summary import paired_difference

RESULT = Path(__file__).parent / "results" / "space.json"
BASELINE = "native adc"
SPLITS = ("cv", "held_out")
SCORED = ("check", "plan", "prepare", "train", "predict", "evaluate")
ADC_RULE = '{name = "adc", channel = "adc", low = 500, high = 1300, count = 33}'
Z_RULE = '{name = "z", channel = "zadc", low = -6.0, high = -0.5, count = 34}'
BIAS = {"": "false", "n4": '{method = "n4", anatomy_sd = 0.0}', "pairs": '{method = "pairs"}'}
"""The field is taken out as found by N4 (the papers' step), or by neoseg's own estimate with its defaults."""


def changes(space: str, *, zmap: bool, ffd: bool, bias: str = "") -> tuple[str, ...]:
    """Every step said aloud, whatever the recipe has by default."""
    return (
        f"prepare.space={space}",
        f"prepare.bias_field={BIAS[bias]}",
        f"prepare.ffd={'{}' if ffd else 'false'}",
        f"prepare.zmap={'{}' if zmap else 'false'}",
        f"rules=[{', '.join([Z_RULE, ADC_RULE] if zmap else [ADC_RULE])}]",
    )


CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    "native adc": changes("native", zmap=False, ffd=False),
    "native adc z(affine+ffd)": changes("native", zmap=True, ffd=True),
    "template(affine+ffd) adc z": changes("template", zmap=True, ffd=True),
    "native adc, n4": changes("native", zmap=False, ffd=False, bias="n4"),
    "native adc z(affine+ffd), n4": changes("native", zmap=True, ffd=True, bias="n4"),
    "native adc z(affine)": changes("native", zmap=True, ffd=False),
    "template(affine) adc z": changes("template", zmap=True, ffd=False),
    "template(affine+ffd) adc z, n4": changes("template", zmap=True, ffd=True, bias="n4"),
    "native adc z(affine), n4": changes("native", zmap=True, ffd=False, bias="n4"),
    "template(affine) adc z, n4": changes("template", zmap=True, ffd=False, bias="n4"),
    "template(affine+ffd) adc": changes("template", zmap=False, ffd=True),
    "template(affine) adc": changes("template", zmap=False, ffd=False),
    "native adc, pairs": changes("native", zmap=False, ffd=False, bias="pairs"),
    "native adc z(affine+ffd), pairs": changes("native", zmap=True, ffd=True, bias="pairs"),
}
"""The most telling first: a benchmark that is ended early has them."""

STEPS = {
    "Z map by affine": ("native adc z(affine)", "native adc"),
    "deformation after affine": ("native adc z(affine+ffd)", "native adc z(affine)"),
    "N4": ("native adc z(affine+ffd), n4", "native adc z(affine+ffd)"),
    "template in place of native": ("template(affine+ffd) adc z", "native adc z(affine+ffd)"),
}
"""What one step adds: the configuration with it, and the one without."""

TINY = (
    "folds.count=2",
    "training.steps=6",
    "training.steps_per_epoch=3",
    "atlas.rounds=0",
    "evaluate.resamples=200",
    "plan.spacing_mm=[3.0, 3.0, 4.0]",
)


def cohort_of(tiny: bool, seed: int) -> CohortConfig:
    return CohortConfig(healthy=5, patients=6, held_out=2, seed=seed) if tiny else CohortConfig(seed=seed)


def made_cohort(folder: Path, config: CohortConfig, jobs: int) -> Path:
    """Write the heads and the demo's configuration once."""
    toml, stamp = folder / "neoseg.toml", folder / "cohort.json"
    if not stamp.is_file():

        def each(function: Any, items: Any) -> list[Any]:
            return run_all(function, list(items), title="Writing heads", progress=Silent(), jobs=jobs)

        write_cohort(folder / "cohort", config, run_each=each)
        import_folder(folder / "cohort", folder, "bonbid", recipe="demo", overwrite=True)
        write_json(stamp, config.model_dump(mode="json"))
    if read_json(stamp) != config.model_dump(mode="json"):
        raise SystemExit(f"{folder} holds another cohort; give another folder.")
    return toml


def made_atlas(folder: Path, toml: Path, steps: Sequence[str]) -> Path:
    """Build the atlas of a cohort with one bias field correction or none; a finished one is taken as it is."""
    needed = [c for c in steps if c.startswith(("prepare.bias_field", "atlas.", "jobs"))]
    name = next(n for n, value in BIAS.items() if f"prepare.bias_field={value}" in steps)
    place = folder / f"atlas_{name or 'raw'}"
    atlas_of(open_session(load_config(toml, [*needed, "prepare.zmap={}"], workspace=place), RichProgress()))
    return place / "atlas"


def entry_of(folder: Path, name: str, steps: Sequence[str]) -> dict[str, Any]:
    """Run one configuration and return what is kept of it."""
    toml = folder / "neoseg.toml"
    given = []
    if "prepare.space=template" in steps or "prepare.zmap=false" not in steps:
        given = [f'template="{made_atlas(folder, toml, steps).resolve()}"']
    place = folder / name.translate(str.maketrans(" ()+,", "_____"))
    config = load_config(toml, [*steps, *given], workspace=place)
    session = open_session(config, RichProgress())
    for stage in SCORED:
        run_stage(session, stage)
    failed = session.run.need("prepare")["failed"]
    found = [c.case for c in session.used if c.case not in failed]
    full = {case for case in found if sum(session.store.record(case)["label_ml"]) > 0}
    rows = [r for r in read_rows(session.run.scores) if r.metric == "dice" and r.case in full]
    plan = session.plan
    return {
        "dice": {s: {r.case: r.value for r in rows if (r.split, r.method) == (s, NETWORK)} for s in SPLITS},
        "z_rule": {s: {r.case: r.value for r in rows if (r.split, r.method) == (s, "z")} for s in SPLITS},
        "stages": {stage: round(session.run.need(stage)["seconds"], 2) for stage in SCORED},
        "spacing_mm": plan.spacing_mm,
        "patch": plan.patch,
        "steps": plan.steps,
        "failed": failed,
    }


def table(entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a configuration, over the seeds that are there."""
    rows = []
    for name in CONFIGURATIONS:
        mine = {key.partition("/")[0]: e for key, e in entries.items() if key.partition("/")[2] == name}
        if mine:
            row: dict[str, Any] = {"configuration": name, "seeds": sorted(mine)}
            row |= {split: scored(mine, entries, split) for split in SPLITS}
            z = [v for e in mine.values() for v in e["z_rule"]["cv"].values()]
            row["z_rule_cv_dice"] = round(float(np.mean(z)), 4) if z else None
            row["prepare_seconds"] = round(float(np.mean([e["stages"]["prepare"] for e in mine.values()])), 1)
            rows.append(row)
    return rows


def steps_table(entries: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what each step adds, paired by seed and case, with the difference of each seed."""
    rows = []
    for step, (name, other) in STEPS.items():
        seeds = [k.partition("/")[0] for k in entries if k.endswith(f"/{name}")]
        row: dict[str, Any] = {"step": step, "with": name, "without": other, "seeds": seeds}
        for split in SPLITS:
            pairs = {
                seed: [(value, entries[f"{seed}/{other}"]["dice"][split][case]) for case, value in own.items()]
                for seed in seeds
                if f"{seed}/{other}" in entries
                for own in (entries[f"{seed}/{name}"]["dice"][split],)
            }
            every = [pair for found in pairs.values() for pair in found]
            if every:
                gain = paired_difference(*zip(*every, strict=True), np.random.default_rng(0)).to_json()
                each = {seed: round(float(np.mean([a - b for a, b in p])), 4) for seed, p in pairs.items()}
                row[split] = {"gain": gain, "of_each_seed": each}
        rows.append(row)
    return rows


def scored(mine: dict[str, dict[str, Any]], entries: dict[str, dict[str, Any]], split: str) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    values = [v for e in mine.values() for v in e["dice"][split].values()]
    means = [float(np.mean(list(e["dice"][split].values()))) for e in mine.values()]
    pairs = []
    for seed, entry in mine.items():
        plain = entries.get(f"{seed}/{BASELINE}")
        if plain is not None and plain is not entry:
            own, other = entry["dice"][split], plain["dice"][split]
            pairs += [(own[case], other[case]) for case in own if case in other]
    gain = paired_difference([a for a, _ in pairs], [b for _, b in pairs], generator).to_json() if pairs else None
    return {
        "dice": round(float(np.mean(values)), 4),
        "cases": len(values),
        "dice_of_each_seed": [round(m, 4) for m in means],
        "minus_baseline": gain,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--core-minutes", type=float, default=1.5, help="of training a fold")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="no run is started after this long")
    parser.add_argument("--only", nargs="+", default=list(CONFIGURATIONS), choices=list(CONFIGURATIONS))
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tiny", action="store_true", help="a few heads and steps, to see that it works")
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    start = time.monotonic()
    common = [f"jobs={given.jobs}", *(TINY if given.tiny else [f"plan.core_minutes={given.core_minutes}"])]
    told = {"recipe": "demo", "changes": common[1:], "cohort": cohort_of(given.tiny, 0).model_dump(mode="json")}
    kept = read_json(given.result) if given.result.is_file() else {"settings": told, "entries": {}}
    if kept["settings"] != told:
        raise SystemExit(f"{given.result} was made with {kept['settings']}; give another --result.")
    save = partial(write_json, given.result)
    for seed in given.seeds:
        for name in given.only:
            key = f"seed{seed}/{name}"
            if key in kept["entries"]:
                continue
            if time.monotonic() - start > 60 * given.minutes:
                return
            folder = given.folder / f"seed{seed}"
            made_cohort(folder, cohort_of(given.tiny, seed), given.jobs)
            found = kept["entries"]
            found[key] = entry_of(folder, name, [f"seed={seed}", *common, *CONFIGURATIONS[name]])
            save({"what": __doc__, "machine": machine(), **kept, "table": table(found), "steps": steps_table(found)})


if __name__ == "__main__":
    main()
