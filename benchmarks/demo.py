"""The demo as a user runs it: seconds of each stage, Dice of the network and of the rules on the held-out heads.

python benchmarks/demo.py WORKSPACE   writes benchmarks/results/demo.json
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from machine import machine
from neoseg.atomic import write_json
from neoseg.cli.console import RichProgress
from neoseg.pipeline.demo import demo

RESULT = Path(__file__).parent / "results" / "demo.json"


def main() -> None:
    start = time.monotonic()
    summary = demo(Path(sys.argv[1]), RichProgress())
    seconds = time.monotonic() - start
    kept = {
        split: {
            "cases": summary[split]["cases"],
            "network": {k: summary[split][k] for k in ("dice", "detail", "by_burden", "empty_cases")},
            "rules": summary[split]["rules"],
        }
        for split in ("held_out", "cv")
    }
    write_json(
        RESULT,
        {
            "what": "neoseg demo, made-up heads, seed 0; Dice over cases with a lesion, 95 % bootstrap intervals",
            "machine": machine(),
            "seconds": round(seconds, 1),
            "stages": summary["stages"],
            **kept,
        },
    )


if __name__ == "__main__":
    main()
