"""Work in processes side by side that takes its time to stop; run as a program with a folder for each item."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from neoseg.cluster.processes import run_side_by_side
from neoseg.errors import InputError, Stopped
from neoseg.progress import Progress, Silent
from neoseg.training.interrupt import stop_request

STEP_S = 1.5
"""What is under way when the end is asked for takes so long, much more than the end takes to reach all processes."""


def work(folder: Path, slot: int, progress: Progress) -> None:
    with stop_request() as stop, progress.track(folder.name, 1) as advance:
        (folder / "begun").write_text(str(os.getpid()))
        while stop.number is None:
            time.sleep(0.01)
            advance(0, "")
        time.sleep(STEP_S)
        (folder / "kept").touch()
        stop.obey(" after a step")


def fate(item: str, slot: int, progress: Progress) -> tuple[str, int]:
    """End as the item says; what ends well returns it with its process."""
    progress.say(f"This is {item}.")
    with progress.track(item, 2) as advance:
        advance(2, "done")
    match item:
        case "mistake":
            raise InputError("This cannot be used.")
        case "defect":
            raise ZeroDivisionError("a defect")
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "left":
            os._exit(7)
    return item, os.getpid()


if __name__ == "__main__":
    try:
        run_side_by_side(work, [Path(name) for name in sys.argv[1:]], jobs=len(sys.argv) - 1, progress=Silent())
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
