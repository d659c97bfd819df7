"""Networks trained for the same wall time on one split: what each reaches on cases that no training saw.

Three tables. "forms": UNETR++ as published ("legacy"), with tokens in their places ("aligned"), for any size ("flex",
"free"), and as the paper prints it; one patch, batch and width for all. With one size of patch "flex" computes what
"aligned" computes, so it is trained with three; the forms that take any size are scored once more with every volume in
one piece, "aligned" by its weights in the form "flex". "planes" and "volumes": kinds of networks, each
with the width and patch that the planner gives it for the budget. Every run has one thread, two run side by side. How
many steps fit into the time is told before all runs, by timing each network twice at once on an idle machine.
The same number then stands for every seed, so that other programs change no score later, only "training_seconds".
Seeds change the weights' start and which training cases are set aside. The scored cases are every fifth subject of the
hippocampus in the order of their names, and the held-out heads of a made-up cohort, whatever the seed. Pictures are few
and unlike each other, so each of three seeds scores another third, and every picture is scored once: every third
subject in the order of kind, size and name, all pictures of a subject together. Of the others a tenth is left out and
a fifth of the rest chooses the epoch. No threshold is chosen: a voxel gets its most probable class.

Pictures go in as their recipe says, whole, nuclei mirrored along both axes, and once more by windows. Their table has
the intersection over union beside Dice, where a subject has several pictures also the Dice of all their pixels
together, and for nuclei a row of Otsu's threshold on the mean of the colours, with the smaller part as foreground.

    python benchmarks/equal_time.py TABLE DATASET SOURCE FOLDER [--minutes 12] [--seeds 0 1 2] [--only NAME ...]
                                    [--set KEY=VALUE ... --result FILE]

DATASET: "hippocampus", "nuclei" or "ventricle" with SOURCE the folder of the data, or "heads" with SOURCE a folder to
make the cohort in. Writes benchmarks/results/equal_time_TABLE_DATASET.json after every run. Killed and started again
it goes on where it stood, with an empty FOLDER too: the result keeps the steps of each network and what each run
reached, so a table can be made in parts ("machine" is the one of the timing). After --hours no further run is started.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray
from skimage.filters import threshold_otsu

from machine import machine
from neoseg.atomic import read_json, replacing, write_json
from neoseg.config import RunConfig, load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.data.layouts.imported import ImportOptions
from neoseg.inference.ensemble import Ensemble
from neoseg.metrics import score_case
from neoseg.phantom.config import CohortConfig
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.predict import load_networks
from neoseg.pipeline.prepare import atlas_of
from neoseg.pipeline.prepared import PreparedCase
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import Session, open_session
from neoseg.progress import Advance, Progress, Silent
from neoseg.report.summary import paired_difference, summarise
from space import made_cohort

RESULTS = Path(__file__).parent / "results"
UNETR_PP = 'kind = "unetr_pp", layer_scale_init = 0.1, norm = "instance", full_norm = "instance"'

TABLES: dict[str, dict[str, str]] = {
    "forms": {
        "aligned": "",
        "legacy": 'layout = "legacy"',
        "flex": 'size = "flex"',
        "free": 'size = "free"',
        "as_printed": 'as_printed = true, heads = 1, fusion = "sum", conv_blocks = 1',
    },
    "planes": {
        "unet": 'kind = "unet"',
        "unetr_pp": f'{UNETR_PP}, size = "flex"',
        "wide_unet": 'kind = "wide_unet"',
        "unet_plus_plus": 'kind = "unet_plus_plus", deep_supervision = false',
        "unet_plus_plus, supervised": 'kind = "unet_plus_plus", deep_supervision = true',
        "attention_unet": 'kind = "attention_unet"',
    },
    "volumes": {
        "unetr_pp": UNETR_PP,
        "unet": 'kind = "unet"',
        "unet, residual": 'kind = "unet", encoder = "residual"',
        "unetr": 'kind = "unetr"',
        "unetr, rate 1e-4": 'kind = "unetr"',
        "swin_unetr": 'kind = "swin_unetr"',
        "swin_unetr, rate 1e-4": 'kind = "swin_unetr"',
        "segresnet": 'kind = "segresnet"',
    },
}
"""The first of each table is what the others are compared with, and the one whose patch all forms share."""

CHANGES = {
    "flex": ("training.patch_scales=[0.75, 1, 1.25]",),
    "unetr, rate 1e-4": ("training.learning_rate=1e-4",),
    "swin_unetr, rate 1e-4": ("training.learning_rate=1e-4",),
}
"""Changes to the training; the lower rate, a tenth of the default, is what UNETR was published with."""

OTSU, NOT_TRAINED = "Otsu's threshold", {"steps": 0, "training_seconds": 0.0}
IN_ONE_PIECE, BY_WINDOWS = ", volumes in one piece", ", by windows, not mirrored"
AGAIN: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "forms": (("aligned", "flex", "free"), IN_ONE_PIECE, {"whole": True}),
    "planes": (tuple(TABLES["planes"]), BY_WINDOWS, {"whole": False, "mirror_axes": ()}),
}
"""Which networks of a table are scored once more, the end of that row's name, and what changes in the window."""

SHARED = ("dims", "depths", "proj", "decoder_proj", "stem", "feature_size", "norm", "full_norm", "layer_scale_init")
"""Fields that the forms take over from the plan of the first one."""

LESION_MM3 = (0, 200, 1000, np.inf)
NOT_LABELS = ("subject", "lesions", "voxels")
"""What the entry of a case holds beside the Dice of each label."""

TINY_MINUTES = 2 / 3


@dataclass(frozen=True)
class Dataset:
    """Where cases come from, and which are scored.

    Attributes:
        recipe, layout, subject_pattern: of the import.
        every: every so many-th subject is scored; 0: the data say which.
        by_seed: whether each seed scores another of these parts.
        mask_of_instances: labels lie in the folder of this name, an index an instance.
    """

    recipe: str
    layout: str
    every: int = 0
    by_seed: bool = False
    subject_pattern: str | None = None
    masks: str | None = None


DATASETS = {
    "hippocampus": Dataset("hippocampus", "folders", every=5),
    "nuclei": Dataset("microscopy", "planar_folders", every=3, by_seed=True, masks="instances"),
    "ventricle": Dataset("planar", "planar_folders", every=3, by_seed=True, subject_pattern=r"^(SC-.*-\d+)-IM"),
    "heads": Dataset("demo", "bonbid"),
}


def made_data(dataset: str, source: Path, work: Path, seed: int, *, tiny: bool) -> tuple[Path, tuple[str, ...]]:
    """Import the data into a workspace and return its configuration, with the changes that it needs."""
    about, toml = DATASETS[dataset], work / "neoseg.toml"
    if dataset == "heads":
        made_cohort(source, CohortConfig(healthy=5, patients=6, held_out=3) if tiny else CohortConfig(), jobs=2)
        atlas_of(open_session(load_config(source / "neoseg.toml", workspace=source / "atlas")))
        source = source / "cohort"
    if not toml.is_file():
        options = ImportOptions(subject_pattern=about.subject_pattern, masks=about.masks)
        import_folder(source, work, about.layout, recipe=about.recipe, options=options, overwrite=True)
        if about.every:
            cases = read_cases(work / "cases.csv")
            kinds = kinds_and_sizes(source)
            subjects = sorted({case.subject for case in cases}, key=lambda name: (kinds.get(name, ""), name))
            scored = subjects[seed % about.every if about.by_seed else about.every // 2 :: about.every]
            parts = [replace(c, split="test" if c.subject in scored else "train") for c in cases]
            write_cases(parts, work / "cases.csv")
    template = source.parent / "atlas" / "atlas"
    return toml, ((f'template="{template.resolve()}"',) if dataset == "heads" else ())


def configured(table: str, name: str, given: argparse.Namespace, work: Path, *more: str) -> RunConfig:
    """Return the configuration of one run, in a workspace of its own."""
    toml, needed = made_data(given.dataset, given.source, work, given.seeds[0], tiny=given.tiny)
    length = {"steps": given.steps} if given.steps else {"time_budget_s": 60 * given.minutes}
    budget = ["training.steps_per_epoch=5"] if given.tiny else []
    common = ["jobs=1", "fold_jobs=1", "threads=1", "rules=[]", f"plan.core_minutes={given.minutes}", *budget, *needed]
    if table != "forms":
        common.append(f"network={{{TABLES[table][name]}}}")
    if table == "planes":  # of few pictures most are learned from
        common.append("folds.count=10")
    common.extend((*CHANGES.get(name, ()), *given.set))
    return load_config(toml, [*common, *more], length=length)


def planned(given: argparse.Namespace, *stages: str) -> Session:
    """Return the session whose plan all forms share, after these stages with both cores."""
    session = open_session(configured("forms", "aligned", given, plan_folder(given), "seed=0", "jobs=2"))
    for stage in stages:
        run_stage(session, stage)
    return session


def shared_plan(given: argparse.Namespace) -> tuple[str, ...]:
    """Return the patch, batch and network that the first form is planned with, as changes for every form."""
    plan = planned(given).plan
    # The printed block has no gain, so nothing that could start it.
    taken = [field for field in SHARED if (given.one, field) != ("as_printed", "layer_scale_init")]
    fields = {field: getattr(plan.network, field) for field in taken}
    shown = {
        f: f'"{v}"' if isinstance(v, str) else str(list(v) if isinstance(v, tuple) else v) for f, v in fields.items()
    }
    common = ", ".join(f"{field} = {value}" for field, value in shown.items())
    special = TABLES["forms"][given.one]
    return (
        f'network={{kind = "unetr_pp", {common}{", " if special else ""}{special}}}',
        f"plan.patch={list(plan.patch)}",
        f"training.batch_size={plan.batch}",
    )


def lesions(truth: NDArray[np.bool_], found: NDArray[np.bool_], voxel_mm3: float) -> list[tuple[float, bool]]:
    """Return size in mm3 of each true lesion (26 neighbours), and whether any of its voxels was found."""
    parts = cc3d.connected_components(truth, connectivity=26)
    hit = set(np.unique(parts[found]))
    return [(round(float(n) * voxel_mm3, 1), i in hit) for i, n in enumerate(np.bincount(parts.ravel())) if i and n]


def scores(session: Session, dataset: str, change: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Predict the held-out cases by the network of fold 0, with changes to the window, and score them."""
    plan, labels = session.plan, session.labels
    window = session.config.window.model_copy(update=change)
    if window.whole and not plan.network.any_size:
        plan = plan.model_copy(update={"network": plan.network.model_copy(update={"size": "flex"})})
    networks = load_networks(session.run, plan, session.targets, [0], "cpu")
    ensemble = Ensemble(networks, plan, session.targets, window, "cpu")
    cases: dict[str, Any] = {}
    start = time.monotonic()
    for case in session.held_out:
        prepared = PreparedCase(session.store, case.case)
        found = ensemble.probabilities(np.asarray(prepared.image), prepared.space, prepared.box).argmax(axis=0)
        mask, truth = prepared.on_native(found.astype(np.uint8)), np.asarray(prepared.truth)
        entry: dict[str, Any] = {"subject": case.subject}
        for index, label in enumerate(labels.names, start=1):
            pair = truth == index, mask == index
            # every network is scored on the same cases: what is rightly left empty counts as found
            somewhere = pair[0].any() or pair[1].any()
            entry[label] = score_case(*pair, prepared.native.spacing, metrics=["dice"])["dice"] if somewhere else 1.0
        if plan.network.spatial_dims == 2:
            pair = truth > 0, mask > 0
            entry["voxels"] = [int(n) for n in (pair[0].sum(), pair[1].sum(), (pair[0] & pair[1]).sum())]
        if dataset == "heads":
            entry["lesions"] = lesions(truth > 0, mask > 0, prepared.native.voxel_volume)
        cases[case.case] = entry
    return {
        "seconds_per_case": round((time.monotonic() - start) / len(cases), 3),
        "parameters": sum(p.numel() for p in networks[0].parameters()),
        "cases": cases,
    }


def scored_again(session: Session, given: argparse.Namespace) -> dict[str, Any]:
    """Return the scores of the same network with another window, by the end of the row's name, where there are any."""
    names, end, change = AGAIN.get(given.table, ((), "", {}))
    return {end: scores(session, given.dataset, change)} if given.one in names else {}


def scores_of_otsu(session: Session) -> dict[str, Any]:
    """Score a threshold for each held-out picture that parts its mean over channels best (Otsu 1979)."""
    cases, start = {}, time.monotonic()
    for case in session.held_out:
        prepared = PreparedCase(session.store, case.case)
        grey, truth = np.asarray(prepared.physical).mean(axis=0), np.asarray(prepared.truth) > 0
        found = grey > threshold_otsu(grey)
        mask = prepared.on_native((found if found.mean() <= 0.5 else ~found).astype(np.uint8)) > 0
        dice = score_case(truth, mask, prepared.native.spacing, metrics=["dice"])["dice"]
        cases[case.case] = {"subject": case.subject, session.labels.names[0]: dice}
    return {"seconds_per_case": round((time.monotonic() - start) / len(cases), 3), "parameters": 0, "cases": cases}


def prepared(given: argparse.Namespace, work: Path, progress: Progress) -> Session:
    """Return the session of one network with one seed, ready to be trained."""
    (seed,) = given.seeds
    more = shared_plan(given) if given.table == "forms" else ()
    if more and not (store := work / "prepared").exists():  # one plan, so one preparation
        work.mkdir(parents=True, exist_ok=True)
        store.symlink_to(plan_folder(given).resolve() / "prepared")
    session = open_session(configured(given.table, given.one, given, work, *more, f"seed={seed}"), progress)
    for stage in ("check", "plan", "prepare"):
        run_stage(session, stage)
    return session


class UntilEpoch(Silent):
    """Ends a training when its first epoch begins: its length is known then."""

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        if "epoch" in title:
            raise KeyboardInterrupt
        with super().track(title, total) as advance:
            yield advance


def pace(given: argparse.Namespace) -> None:
    """Write how many steps of one network fit into the time, as the product tells it when it is given a time."""
    work = folder_of(given, given.one, given.pace)
    session = prepared(given, work, UntilEpoch())
    try:
        run_stage(session, "train", folds=[0])
    except KeyboardInterrupt:
        segments = read_json(session.run.fold(0) / "training.json")["segments"]
        write_json(work / "pace.json", {"steps": segments[-1]["last"]})


def paced(given: argparse.Namespace, name: str) -> int:
    """Return the steps of one network: the mean of two timings side by side."""
    two = [called(given, name, 0, "--pace", f"pace{i}", wait=False) for i in range(2)]
    ended = [process.wait() for process in two]
    if any(ended):
        raise SystemExit(f"{name} could not be timed; see {folder_of(given, name, 'pace0')}/log.txt")
    own = [read_json(folder_of(given, name, f"pace{i}") / "pace.json")["steps"] for i in range(2)]
    return round(sum(own) / 2)


def called(given: argparse.Namespace, name: str, seed: int, *more: str, wait: bool = True) -> subprocess.Popen[bytes]:
    """Start this file for one network in a process of its own, with a log in its folder."""
    place = folder_of(given, name, more[1] if "--pace" in more else f"seed{seed}")
    place.mkdir(parents=True, exist_ok=True)
    own = [sys.executable, __file__, given.table, given.dataset, given.source, given.folder]
    own += ["--minutes", given.minutes, "--seeds", seed, "--one", name, *more, *(["--tiny"] if given.tiny else [])]
    own += ["--set", *given.set] if given.set else []
    with (place / "log.txt").open("a", encoding="utf-8") as log:
        process = subprocess.Popen([str(part) for part in own], stdout=log, stderr=log)
    if wait and process.wait():
        raise SystemExit(f"{name}, seed {seed}: ended with {process.returncode}; see {place}/log.txt")
    return process


def one_run(given: argparse.Namespace) -> None:
    """Train and score one network with one seed, in this process; write its entry."""
    work = folder_of(given, given.one, f"seed{given.seeds[0]}")
    session = prepared(given, work, Silent())
    run_stage(session, "train", folds=[0])
    plan, done = session.plan, read_json(session.run.fold(0) / "finished.json")
    write_json(
        work / "entry.json",
        {
            "patch": plan.patch,
            "batch": plan.batch,
            "network": plan.network.model_dump(mode="json"),
            "steps": done["steps"],
            "training_seconds": round(done["seconds"], 1),
            **scores(session, given.dataset),
            "again": scored_again(session, given),
            **({"otsu": scores_of_otsu(session)} if given.dataset == "nuclei" else {}),
        },
    )


def folder_of(given: argparse.Namespace, name: str, run: str) -> Path:
    place: Path = given.folder / given.table / given.dataset / name.replace(", ", "_") / run
    return place


def plan_folder(given: argparse.Namespace) -> Path:
    place: Path = given.folder / given.table / given.dataset / "plan"
    return place


def as_iou(dice: float) -> float:
    """Return the intersection over union of two masks with this Dice."""
    return dice / (2 - dice)


def by_subject(entry: Mapping[str, Any], measure: Callable[[float], float] = float) -> dict[str, float]:
    """Return the mean over labels and cases of each subject: a patient with many pictures counts once."""
    values: dict[str, list[float]] = {}
    for case in entry["cases"].values():
        own = [measure(v) for k, v in case.items() if k not in NOT_LABELS]
        if own:
            values.setdefault(case["subject"], []).append(float(np.mean(own)))
    return {subject: float(np.mean(v)) for subject, v in values.items()}


def by_subject_pooled(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return one Dice of all pixels of each subject's pictures together: a slice counts as much as it has in it."""
    sums: dict[str, NDArray[np.int64]] = {}
    for case in entry["cases"].values():
        if "voxels" in case:
            sums[case["subject"]] = sums.get(case["subject"], 0) + np.array(case["voxels"])
    return {subject: float(2 * both / (true + found)) for subject, (true, found, both) in sums.items()}


def mean_of_seeds(values: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the mean over seeds of each subject that one of them has a value of."""
    subjects = dict.fromkeys(subject for own in values.values() for subject in own)
    return {s: float(np.mean([own[s] for own in values.values() if s in own])) for s in subjects}


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write JSON with one line a case: a table of slices has thousands of them."""
    text = json.dumps(result, indent=1, allow_nan=False, ensure_ascii=False)
    # A string of JSON holds no line break, so none of its characters is touched.
    for innermost in (r"\[[^\[\]{}]*\]", r"\{[^{}]*\}"):
        text = re.sub(innermost, lambda found: re.sub(r"\n\s*", " ", found.group()), text)
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def recalls(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the share of true lesions that are hit, by their size."""
    every = [tuple(lesion) for e in entries for case in e["cases"].values() for lesion in case.get("lesions", ())]
    rows = {}
    for low, high in pairwise(LESION_MM3):
        hits = [hit for size, hit in every if low < size <= high]
        if hits:
            rows[f"{low:g} to {high:g} mm3"] = {"recall": round(float(np.mean(hits)), 3), "lesions": len(hits)}
    return rows


def with_lesion(entry: Mapping[str, Any]) -> dict[str, float]:
    """Return the Dice of each subject with a lesion; of the others it says only whether anything was found."""
    return by_subject({**entry, "cases": {name: case for name, case in entry["cases"].items() if case["lesions"]}})


def table_of(
    names: Sequence[str], entries: Mapping[str, Any], kinds: Mapping[str, str], *, flat: bool
) -> list[dict[str, Any]]:
    """One row a network; scores are means over the seeds that are there, intervals are over subjects.

    Args:
        names: of the rows, the first one being what the others are compared with.
        entries: "seedN/NAME": what a run reached.
        kinds: of pictures, where the data have several.
        flat: whether the cases are pictures, of which papers tell the intersection over union.
    """
    rows, first = [], names[0]
    for name in names:
        mine = {key.split("/")[0]: e for key, e in entries.items() if key.split("/", 1)[1] == name}
        if not mine:
            continue
        dice = {seed: by_subject(e) for seed, e in mine.items()}
        seeds = [seed for seed in dice if name != first and f"{seed}/{first}" in entries]
        mean, others = mean_of_seeds(dice), {s: by_subject(entries[f"{s}/{first}"]) for s in seeds}
        same, against = mean_of_seeds({s: dice[s] for s in seeds}), mean_of_seeds(others)
        pairs = [(value, against[subject]) for subject, value in same.items() if subject in against]
        generator = np.random.default_rng(0)
        row: dict[str, Any] = {
            "name": name,
            "seeds": len(mine),
            "dice": summarise(list(mean.values()), [0.0] * len(mean), generator=generator).to_json(),
            "dice_of_each_seed": [round(float(np.mean(list(d.values()))), 4) for d in dice.values()],
            "minus_first": paired_difference(*zip(*pairs, strict=True), generator).to_json() if pairs else None,
        }
        if flat:
            iou = mean_of_seeds({seed: by_subject(e, as_iou) for seed, e in mine.items()})
            row["iou"] = summarise(list(iou.values()), [0.0] * len(iou), generator=generator).to_json()
            pooled = mean_of_seeds({seed: by_subject_pooled(e) for seed, e in mine.items()})
            if pooled and len(pooled) < sum(len(e["cases"]) for e in mine.values()):
                known = [0.0] * len(pooled)
                row["dice_pooled"] = summarise(list(pooled.values()), known, generator=generator).to_json()
        for key in ("steps", "training_seconds", "seconds_per_case", "parameters"):
            row[key] = float(np.median([e[key] for e in mine.values()]))
        if found := recalls(list(mine.values())):
            row["lesions"] = found
            scored = {seed: with_lesion(e) for seed, e in mine.items()}
            of_first = mean_of_seeds({seed: with_lesion(entries[f"{seed}/{first}"]) for seed in seeds})
            means = mean_of_seeds(scored)
            both = [(value, of_first[subject]) for subject, value in means.items() if subject in of_first]
            row["with_lesion"] = {
                "dice": summarise(list(means.values()), [0.0] * len(means), generator=generator).to_json(),
                "dice_of_each_seed": [round(float(np.mean(list(d.values()))), 4) for d in scored.values()],
                "minus_first": paired_difference(*zip(*both, strict=True), generator).to_json() if both else None,
            }
        if kinds:
            row["kinds"] = by_kind(list(mine.values()), kinds)
        rows.append(row)
    return rows


def by_kind(entries: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return mean Dice and intersection over union of each kind of picture, and of all; seeds are averaged first."""
    dice: dict[str, list[float]] = {}
    for entry in entries:
        for name, case in entry["cases"].items():
            dice.setdefault(name, []).extend(v for k, v in case.items() if k not in NOT_LABELS)
    groups = {"all": list(dice), **{kind: [n for n in dice if kinds[n] == kind] for kind in set(kinds.values())}}
    return {
        kind: {
            "pictures": len(names),
            "dice": round(float(np.mean([np.mean(dice[n]) for n in names])), 4),
            "iou": round(float(np.mean([np.mean([as_iou(d) for d in dice[n]]) for n in names])), 4),
        }
        for kind, names in sorted(groups.items())
        if names
    }


def kinds_and_sizes(source: Path) -> dict[str, str]:
    """Return the kind and size of each picture where the data have a list of them, such as "colour_256x320"."""
    path = source / "index.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["image_id"]: row["kind_and_size"] for row in csv.DictReader(stream)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("dataset", choices=list(DATASETS))
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=12.0, help="of training, wall time")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--hours", type=float, default=float("inf"), help="no run is started after this long")
    parser.add_argument("--set", nargs="+", default=[], help="changes of the configuration, for every run")
    parser.add_argument("--tiny", action="store_true", help="40 seconds a run, to see that it works")
    parser.add_argument("--result", type=Path)
    for hidden, kind in (("--one", str), ("--pace", str), ("--steps", int)):
        parser.add_argument(hidden, type=kind, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.minutes = TINY_MINUTES if given.tiny else given.minutes
    if given.one:
        (pace if given.pace else one_run)(given)
        return
    names = [name for name in TABLES[given.table] if name in (given.only or TABLES[given.table])]
    result = given.result or RESULTS / f"equal_time_{given.table}_{given.dataset}.json"
    start, runs = time.monotonic(), [(seed, name) for seed in given.seeds for name in names]
    # Once, so that runs side by side find the data, the shared plan and its prepared cases made.
    made_data(given.dataset, given.source, plan_folder(given), given.seeds[0], tiny=given.tiny)
    if given.table == "forms":
        planned(given, "check", "plan", "prepare")
    alike = {"minutes": given.minutes, "dataset": given.dataset, "changes": given.set}
    before = read_json(result) if result.is_file() else {**alike, "steps": {}, "entries": {}}
    if other := [key for key in alike if before.get(key, []) != alike[key]]:
        raise SystemExit(f"{result} has runs with other {' and '.join(other)}: name another --result")
    entries, steps, timed_on, lock = before["entries"], before["steps"], before.get("machine", machine()), Lock()

    def save() -> None:
        found = {key: entries[key] for seed, name in runs if (key := f"seed{seed}/{name}") in entries}
        pieces = {key + end: {**e, **more} for key, e in found.items() for end, more in e["again"].items()}
        pieces |= {
            f"{key.split('/')[0]}/{OTSU}": {**e, **NOT_TRAINED, **e["otsu"]} for key, e in found.items() if "otsu" in e
        }
        rows = [*(row for name in names for row in (name, name + IN_ONE_PIECE, name + BY_WINDOWS)), OTSU]
        about = {"what": __doc__, "machine": timed_on, **alike}
        kinds = {name: kind.split("_")[0] for name, kind in kinds_and_sizes(given.source).items()}
        table = table_of(rows, found | pieces, kinds, flat=given.table == "planes")
        write_result(result, {**about, "table": table, "steps": steps, "entries": entries})

    def work(run: tuple[int, str]) -> None:
        seed, name = run
        if f"seed{seed}/{name}" not in entries and time.monotonic() - start <= 3600 * given.hours:
            called(given, name, seed, "--steps", str(steps[name]))
            with lock:
                entries[f"seed{seed}/{name}"] = read_json(folder_of(given, name, f"seed{seed}") / "entry.json")
                save()

    for name in names:
        if name not in steps:
            steps[name] = paced(given, name)
            save()
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(work, run) for run in runs]:
            done.result()


if __name__ == "__main__":
    main()
