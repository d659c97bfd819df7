"""UNet++ pruned at inference: size, speed and scores of each of its levels, on cases that no training saw.

    python benchmarks/pruning.py RUN [RUN ...]      writes benchmarks/results/pruning.json

RUN is a run folder (runs/<name> of a workspace) of a UNet++ with deep supervision, such as benchmarks/equal_time.py
leaves them under planes/<data>/unet_plus_plus_supervised/seed*. The network of its first fold predicts the held-out
cases by every level, by the deepest head ("whole, fast") and by the mean of all heads ("whole, accurate"). The ways
take turns on each case with one thread, so that what else the machine does falls on all of them.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from machine import machine
from neoseg.atomic import write_json
from neoseg.config import load_resolved
from neoseg.inference.ensemble import Ensemble
from neoseg.metrics import score_case
from neoseg.pipeline.networks import load_networks, load_pruned, pruned_plan
from neoseg.pipeline.prepared import PreparedCase
from neoseg.pipeline.session import Session, open_session
from neoseg.plan.plan import Plan
from neoseg.workspace import Run

RESULT = Path(__file__).parent / "results" / "pruning.json"


def ways_of(session: Session, run: Run, plan: Plan) -> dict[str, Ensemble]:
    """Return the ways of prediction by their names; the whole network comes last."""
    targets, window = session.targets, session.config.window
    assert plan.network.kind == "unet_plus_plus"
    ways = {}
    for level in range(1, plan.network.depth + 1):
        small = pruned_plan(plan, level)
        networks = load_pruned(run, plan, targets, [0], "cpu", level)
        ways["whole, fast" if level == plan.network.depth else f"L{level}"] = Ensemble(
            networks, small, targets, window, "cpu"
        )
    whole = load_networks(run, plan, targets, [0], "cpu")
    return {**ways, "whole, accurate": Ensemble(whole, plan, targets, window, "cpu")}


def measured(folder: Path) -> dict[str, dict[str, Any]]:
    """Return parameters, seconds and Dice of every case for each way of one run."""
    session = open_session(load_resolved(Run(folder).config))
    ways = ways_of(session, session.run, session.plan)
    found: dict[str, dict[str, Any]] = {
        name: {
            "parameters": sum(p.numel() for p in ensemble.networks[0].parameters()),
            "seconds": [],
            "dice": defaultdict(list),
        }
        for name, ensemble in ways.items()
    }
    for number, case in enumerate(session.held_out):
        prepared = PreparedCase(session.store, case.case)
        image, truth = np.asarray(prepared.image), np.asarray(prepared.truth)
        for name, ensemble in ways.items():
            start = time.perf_counter()
            probabilities = ensemble.probabilities(image, prepared.space, prepared.box)
            seconds = time.perf_counter() - start
            mask = prepared.on_native(probabilities.argmax(axis=0).astype(np.uint8))
            if number:  # the first case warms up
                found[name]["seconds"].append(seconds)
            for index in range(1, len(session.labels.names) + 1):
                pair = truth == index, mask == index
                # every way is scored on the same cases: what is rightly left empty counts as found
                somewhere = pair[0].any() or pair[1].any()
                dice = score_case(*pair, prepared.native.spacing, metrics=["dice"])["dice"] if somewhere else 1.0
                found[name]["dice"][case.subject].append(dice)
    return found


def main(folders: list[Path]) -> None:
    torch.set_num_threads(1)
    runs = [measured(folder) for folder in folders]
    last, rows = "whole, accurate", []
    slowest = statistics.median(s for run in runs for s in run[last]["seconds"])
    for name in runs[0]:
        dice = [v for run in runs for values in run[name]["dice"].values() for v in values]
        iou = [d / (2 - d) for d in dice]
        whole = [v / (2 - v) for run in runs for values in run[last]["dice"].values() for v in values]
        seconds = statistics.median(s for run in runs for s in run[name]["seconds"])
        rows.append(
            {
                "name": name,
                "parameters": runs[0][name]["parameters"],
                "seconds_a_case": round(seconds, 4),
                "time_of_whole": round(seconds / slowest, 3),
                "dice": round(float(np.mean(dice)), 4),
                "iou": round(float(np.mean(iou)), 4),
                "iou_minus_whole": round(float(np.mean(iou) - np.mean(whole)), 4),
            }
        )
        print(rows[-1], flush=True)
    about = {"what": __doc__, "machine": machine(), "threads": 1, "runs": len(runs), "scores": len(dice)}
    write_json(RESULT, {**about, "table": rows})


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
