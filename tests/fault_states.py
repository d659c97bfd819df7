"""The workspace of the faults at four moments, made once, and a fresh copy of it for each test."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fault_scene import CONFIG, Done, Scene, write_data
from faults import State

__all__ = ["scene_at", "states", "well"]


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[State, Path]:
    """The workspace of the faults at four moments."""
    root = tmp_path_factory.mktemp("faults")
    found: dict[State, Path] = {}

    def keep(name: State, scene: Scene) -> None:
        found[name] = root / name
        shutil.copytree(scene.root, root / name)

    scene = Scene(root / "work")
    write_data(scene.root / "data")
    keep("data", scene)
    well(scene.call("import {data} --workspace {w}"))
    scene.config.write_text(CONFIG)
    scene.table.write_text(scene.table.read_text().replace("scan5,scan5,,patient,train", "scan5,scan5,,patient,test"))
    keep("imported", scene)
    for command in ("check", "plan", "prepare"):
        well(scene.call(command))
    keep("prepared", scene)
    for command in ("train", "predict", "evaluate", "report"):
        well(scene.call(command))
    keep("finished", scene)
    return found


def well(done: Done) -> None:
    assert done.code == 0, done.err


@pytest.fixture
def scene_at(states: dict[State, Path], tmp_path: Path) -> Callable[[State], Scene]:
    def make(state: State) -> Scene:
        shutil.copytree(states[state], tmp_path / "w")
        return Scene(tmp_path / "w")

    return make
