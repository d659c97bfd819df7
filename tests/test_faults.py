"""Every fault of the table ends in one sentence and its exit code; nothing is half-written and no result changed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from fault_scene import Scene, assert_former_results_stay, assert_one_sentence, contents
from faults import TABLE, Fault, State


def test_the_table_names_each_fault_once() -> None:
    assert len({fault.name for fault in TABLE}) == len(TABLE) >= 60


@pytest.mark.parametrize("fault", TABLE, ids=lambda fault: fault.name)
def test_fault(fault: Fault, scene_at: Callable[[State], Scene]) -> None:
    scene = scene_at(fault.state)
    fault.make(scene)
    before = contents(scene.root)
    with fault.around(scene) if fault.around else contextlib.nullcontext():
        done = scene.call(fault.command)
    assert "Traceback" not in done.err
    assert done.code == fault.code, done.out + done.err
    if fault.told == "alone":
        assert_one_sentence(done, *fault.words)
    else:
        assert not done.err, done.err
        lines = [line for line in done.out.splitlines() if line.startswith(("error: ", "scan0: "))]
        assert len(lines) == 1, done.out
        assert all(word.lower() in lines[0].lower() for word in fault.words), lines[0]
    if fault.told == "scan":
        assert (scene.out / "scan1.nii.gz").is_file()
        assert not (scene.out / "scan0.nii.gz").exists()
    assert_former_results_stay(before, scene.root, written=fault.written)
