"""Fold 0 of 5 on the hippocampus data with a training budget: mean Dice of the two labels on cases not trained on.

python benchmarks/hippocampus.py DATA WORKSPACE [MINUTES]   writes benchmarks/results/hippocampus_fold0.json
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.cli.console import RichProgress
from neoseg.config import load_config
from neoseg.inference.postprocess import PostprocessConfig, apply
from neoseg.inference.predictor import Ensemble
from neoseg.metrics import score_case
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.predict import load_networks
from neoseg.pipeline.prepared import PreparedCase
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import open_session
from neoseg.report.summary import summarise

RESULT = Path(__file__).parent / "results" / "hippocampus_fold0.json"


def main() -> None:
    data, work = Path(sys.argv[1]), Path(sys.argv[2])
    minutes = float(sys.argv[3]) if len(sys.argv) > 3 else 45.0
    if not (work / "neoseg.toml").is_file():
        import_folder(data, work, "folders", recipe="hippocampus")
    config = load_config(work / "neoseg.toml", [f"training.time_budget_s={60 * minutes}"])
    session = open_session(config, RichProgress())
    for stage in ("check", "plan", "prepare"):
        run_stage(session, stage)
    start = time.monotonic()
    run_stage(session, "train", folds=[0])
    seconds = time.monotonic() - start

    plan, labels = session.plan, session.labels
    networks = load_networks(session.run, plan, session.targets, [0], "cpu")
    ensemble = Ensemble(networks, plan, session.targets, config.window, "cpu")
    scores: dict[str, list[float]] = {name: [] for name in labels.names}
    start = time.monotonic()
    for name in session.folds[0].validation:
        case = PreparedCase(session.store, name)
        found = apply(
            ensemble.probabilities(np.asarray(case.image), case.space, case.box),
            case.native.spacing,
            PostprocessConfig(),
        )
        mask, truth = case.on_native(found), np.asarray(case.truth)
        for index, label in enumerate(labels.names, start=1):
            scores[label].append(
                score_case(truth == index, mask == index, case.native.spacing, metrics=["dice"])["dice"]
            )
    both = np.mean(list(scores.values()), axis=0)
    generator = np.random.default_rng(0)
    write_json(
        RESULT,
        {
            "what": "MSD Task04 hippocampus, the cases of this split only; fold 0 of 5, budget in minutes of training",
            "machine": machine(),
            "budget_minutes": minutes,
            "training_seconds": round(seconds, 1),
            "prediction_and_scoring_seconds_per_case": round((time.monotonic() - start) / len(both), 3),
            "steps": read_json(session.run.fold(0) / "finished.json")["steps"],
            "parameters": sum(p.numel() for p in networks[0].parameters()),
            "cases": {"trained": len(session.folds[0].train) + len(session.folds[0].inner), "scored": len(both)},
            "mean_dice": summarise(list(both), [0.0] * len(both), generator=generator).to_json(),
            **{
                name: summarise(values, [0.0] * len(values), generator=generator).to_json()
                for name, values in scores.items()
            },
        },
    )


if __name__ == "__main__":
    main()
