"""Memory that a step frees is there for the next one, and is given back at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from neoseg.training.heap import kept_heap

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only glibc has these settings")


def resident_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return float(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def faults_of_a_block() -> int:
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_a_freed_block_is_used_again_without_new_pages_and_goes_back_at_the_end() -> None:
    usual, start = faults_of_a_block(), resident_mib()
    with kept_heap():
        faults_of_a_block()
        assert faults_of_a_block() < usual / 4
        assert resident_mib() > start + 100
    assert resident_mib() < start + 50
    assert faults_of_a_block() > usual / 4
