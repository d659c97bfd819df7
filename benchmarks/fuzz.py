"""Feed damaged files to every reader and list what was not answered with a result or one sentence.

    python benchmarks/fuzz.py 100000 [READER ...] [--output benchmarks/results/fuzz.json]

Each input has a number, from which it is made again. Inputs are read in a child process with 1 GiB of address space
above what the imported program takes; a child that dies or is silent for ten seconds is a finding of the input at hand.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import replace
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from fuzz_inputs import READERS, Reader, finding, make_input  # noqa: E402
from machine import machine  # noqa: E402

SILENT_S = 10
ROOM = 2**30


def read_all(reader: Reader, first: int, last: int, told: Connection) -> None:
    """Read the inputs of some numbers and tell each finding, and every hundredth number."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 2)
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    reader = replace(reader, seeds=lru_cache(reader.seeds))
    finding(reader, make_input(reader, first), folder)  # what is imported late is there before the limit
    taken = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmSize:"))
    limit = int(taken.split()[1]) * 1024 + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
    try:
        for index in range(first, last):
            told.send((index, None))
            if wrong := finding(reader, make_input(reader, index), folder):
                told.send((index, wrong))
        told.send((last, None))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fuzz(reader: Reader, count: int) -> dict[str, Any]:
    """Read so many inputs and return the findings."""
    start, at = time.monotonic(), 0
    found: dict[int, str] = {}
    while at < count:
        mine, theirs = multiprocessing.Pipe(duplex=False)
        child = multiprocessing.Process(target=read_all, args=(reader, at, count, theirs))
        child.start()
        theirs.close()
        wrong = ""
        while at < count:
            try:
                if not mine.poll(SILENT_S):
                    wrong = f"no answer for {SILENT_S} s"
                    break
                at, told = mine.recv()
            except EOFError:
                wrong = "the process died"
                break
            if told:
                found[at] = told
        child.kill()
        child.join()
        if wrong:
            found[at] = f"{wrong} (exit code {child.exitcode})"
            at += 1
    kinds = Counter(text[:60] for text in found.values())
    return {
        "inputs": count,
        "seconds": round(time.monotonic() - start, 1),
        "findings": len(found),
        "kinds": dict(kinds.most_common(12)),
        "numbers": sorted(found)[:12],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("count", type=int)
    parser.add_argument("readers", nargs="*", choices=[[], *(r.name for r in READERS)], default=[])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    results = {}
    for reader in READERS:
        if not given.readers or reader.name in given.readers:
            results[reader.name] = fuzz(reader, given.count)
            print(reader.name, json.dumps(results[reader.name]), flush=True)
    if given.output:
        given.output.write_text(json.dumps({"machine": machine(), "readers": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
