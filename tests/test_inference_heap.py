"""Memory that a step frees is there for the next one, and is given back at the end."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")

SCRIPT = """
import resource
from pathlib import Path

import numpy as np

from neoseg.inference.heap import kept_heap


def resident_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def faults_of_a_block():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


usual, start = faults_of_a_block(), resident_mib()
with kept_heap():
    faults_of_a_block()
    again, inside = faults_of_a_block(), resident_mib()
print(usual, again, inside - start, resident_mib() - start, faults_of_a_block())
"""


def test_a_freed_block_is_used_again_without_new_pages_and_goes_back_at_the_end() -> None:
    # In a process of its own: what other tests have done to the heap does not count.
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    usual, again, kept_mib, left_mib, afterwards = (float(word) for word in done.stdout.split())
    assert again < usual / 4
    assert kept_mib > 100
    assert left_mib < 50
    assert afterwards > usual / 4
