"""The demo as a user runs it, on cohorts of several seeds: seconds of each stage, Dice of the network and of the rules.

python benchmarks/demo.py WORKSPACE SEED...   adds to benchmarks/results/demo.json, one entry a seed
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from machine import machine
from neoseg.atomic import read_json, write_json
from neoseg.cli.console import RichProgress
from neoseg.phantom.config import CohortConfig
from neoseg.pipeline.demo import demo

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    folder, seeds = Path(sys.argv[1]), [int(text) for text in sys.argv[2:]] or [0]
    for seed in seeds:
        start = time.monotonic()
        summary = demo(folder / f"seed{seed}", RichProgress(), cohort=CohortConfig(seed=seed))
        entry = {
            "machine": machine(),
            "seconds": round(time.monotonic() - start, 1),
            "stages": summary["stages"],
            **{
                split: {
                    "cases": summary[split]["cases"],
                    "network": {k: summary[split][k] for k in ("dice", "detail", "by_burden", "empty_cases")},
                    "rules": summary[split]["rules"],
                }
                for split in ("held_out", "cv")
            },
        }
        known = read_json(RESULT)["seeds"] if RESULT.is_file() else {}
        write_json(
            RESULT,
            {
                "what": "neoseg demo, made-up heads; Dice over cases with a lesion, 95 % bootstrap intervals",
                "seeds": known | {str(seed): entry},
            },
        )


if __name__ == "__main__":
    main()
