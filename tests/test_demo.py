"""The main job end to end: the demo ends well, its configuration replayed by hand gives the same, resuming is exact."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fault_scene import Done
from neoseg.data.cases import read_cases
from neoseg.io import read_grid, read_volume
from neoseg.volume import same_grid

pytestmark = pytest.mark.slow
Demo = tuple[Path, dict[str, Any]]
Command = Callable[..., Done]


@pytest.fixture
def sets(tiny_changes: tuple[str, ...]) -> list[str]:
    return [part for change in tiny_changes for part in ("--set", change)]


def test_every_stage_left_what_it_promises(tiny_demo: Demo) -> None:
    folder, summary = tiny_demo
    run = folder / "runs" / "demo"
    on_disk = json.loads((run / "summary.json").read_text())
    assert on_disk == json.loads(json.dumps(summary))
    assert set(summary["stages"]) == {"check", "plan", "prepare", "train", "predict", "evaluate", "report"}
    assert all(seconds > 0 for seconds in summary["stages"].values())
    for part in (summary["held_out"]["dice"], summary["rules"]["z"]["dice"], summary["rules"]["adc"]["dice"]):
        assert {"mean", "interval", "n"} <= set(part)
        assert 0 <= part["mean"] <= 1
    assert summary["held_out"]["cases"] == 1
    assert summary["cv"]["cases"] == 5
    assert summary["failed"] == {}


def test_predictions_lie_on_the_grid_of_their_scan_and_are_whole_numbers(tiny_demo: Demo) -> None:
    folder, _ = tiny_demo
    cases = {c.case: c for c in read_cases(folder / "cases.csv")}
    masks = sorted((folder / "runs" / "demo" / "predictions").rglob("*.mha"))
    assert len(masks) == 6
    for mask in masks:
        written = read_volume(mask)
        assert same_grid(written.grid, read_grid(cases[mask.stem].images["adc"]), 1e-6)
        assert written.array.dtype == np.uint8
        assert set(np.unique(written.array)) <= {0, 1}


def test_no_case_is_predicted_by_a_model_or_threshold_that_saw_it(tiny_demo: Demo) -> None:
    folder, _ = tiny_demo
    run = folder / "runs" / "demo"
    folds = json.loads((run / "folds.json").read_text())
    held_out = {c.case for c in read_cases(folder / "cases.csv") if c.split == "test"}
    choices = json.loads((run / "stages" / "predict.json").read_text())["postprocess"]
    for index, fold in enumerate(folds):
        trained = json.loads((run / f"fold{index}" / "training.json").read_text())["identity"]
        seen = set(trained["train"]) | set(trained["validation"])
        assert not seen & (set(fold["validation"]) | held_out)
        assert choices[str(index)]["cases"] == 5 - len(fold["validation"])
    healthy = {c.case for c in read_cases(folder / "cases.csv") if c.group == "healthy"}
    atlas = json.loads((run / "atlas" / "atlas.json").read_text())
    assert set(atlas["provenance"]["cases"]) == healthy


def test_the_report_is_one_file_with_every_part(tiny_demo: Demo) -> None:
    folder, _ = tiny_demo
    text = unescape((folder / "runs" / "demo" / "report.html").read_text())

    class Links(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found += [value or "" for name, value in attrs if name in ("src", "href")]

    parser = Links()
    parser.feed(text)
    assert not [link for link in parser.found if link.startswith(("http", "//", "/"))]
    for words in (
        "esearch use only",
        "made by a program",
        "Held-out cases",
        "Cross-validation",
        "mL",
        "Z-ADC below a threshold",
    ):
        assert words in text, words
    assert text.count("data:image/png") == 6


def test_the_configuration_replayed_by_hand_gives_the_same_scores(
    neoseg: Command, tiny_demo: Demo, tmp_path: Path, sets: list[str]
) -> None:
    folder, _ = tiny_demo
    shutil.copytree(folder / "cohort", tmp_path / "cohort")
    done = neoseg("import", str(tmp_path / "cohort"), "--layout", "bonbid", "--workspace", str(tmp_path))
    assert done.code == 0, done.err
    shutil.copy(folder / "neoseg.toml", tmp_path / "neoseg.toml")
    for stage in ("check", "plan", "prepare"):
        done = neoseg(stage, str(tmp_path / "neoseg.toml"), *sets)
        assert done.code == 0, done.err
    for fold in ("0", "1"):
        done = neoseg("train", str(tmp_path / "neoseg.toml"), "--fold", fold, *sets)
        assert done.code == 0, done.err
    for stage in ("predict", "evaluate", "report"):
        done = neoseg(stage, str(tmp_path / "neoseg.toml"), *sets)
        assert done.code == 0, done.err
    mine = (tmp_path / "runs" / "demo" / "scores.csv").read_text()
    assert mine == (folder / "runs" / "demo" / "scores.csv").read_text()


def test_a_second_run_skips_what_is_done_and_a_changed_threshold_list_redoes_only_the_end(
    neoseg: Command, tiny_demo: Demo, tmp_path: Path, sets: list[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_demo[0], folder)
    weights = folder / "runs" / "demo" / "fold0" / "best" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    start = time.monotonic()
    done = neoseg("run", str(folder / "neoseg.toml"), "--json", *sets)
    assert done.code == 0, done.err
    assert json.loads(done.out)["held_out"] == json.loads(json.dumps(tiny_demo[1]))["held_out"]
    assert "made by a program" in (folder / "runs" / "demo" / "report.html").read_text()
    assert time.monotonic() - start < 120
    assert weights.stat().st_mtime_ns == before


def test_killed_in_training_and_started_again_ends_the_same(
    neoseg: Command, tiny_demo: Demo, tmp_path: Path, sets: list[str]
) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(tiny_demo[0], folder)
    run = folder / "runs" / "demo"
    for name in ("fold0", "fold1", "predictions", "probabilities", "stages"):
        shutil.rmtree(run / name)
    process = subprocess.Popen(
        [sys.executable, "-m", "neoseg", "run", str(folder / "neoseg.toml"), *sets],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not (run / "fold0" / "last").is_dir() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    assert not (run / "fold1" / "finished.json").exists()
    done = neoseg("run", str(folder / "neoseg.toml"), *sets)
    assert done.code == 0, done.err
    assert (run / "scores.csv").read_text() == (tiny_demo[0] / "runs" / "demo" / "scores.csv").read_text()


def test_a_folder_with_something_else_in_it_is_refused(neoseg: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not touch")
    done = neoseg("demo", str(tmp_path))
    assert done.code == 2
    assert "not empty" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]
