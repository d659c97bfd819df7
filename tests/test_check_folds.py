"""The check and the folds of a workspace: those of other subjects are made anew, edited ones are looked at."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from neoseg.config import load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.pipeline.check import check
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.run import run_stage
from neoseg.pipeline.session import Session, open_session


@pytest.fixture
def opened(blobs: Callable[[Path, int, int], None], tmp_path: Path) -> Callable[..., Session]:
    blobs(tmp_path / "data", 6, 1)
    import_folder(tmp_path / "data", tmp_path)
    return lambda *changes: open_session(load_config(tmp_path / "neoseg.toml", changes))


def errors(session: Session) -> list[str]:
    return [problem.told for problem in check(session) if problem.severity == "error"]


def test_folds_of_other_subjects_are_no_problem(opened: Callable[..., Session], tmp_path: Path) -> None:
    run_stage(opened("folds.count=2"), "plan")
    cases = [replace(case, subject=f"s{index // 2}") for index, case in enumerate(read_cases(tmp_path / "cases.csv"))]
    write_cases(cases, tmp_path / "cases.csv")
    assert errors(opened("folds.count=3")) == []
    told = errors(opened("folds.count=5"))
    assert len(told) == 1 and told[0].startswith("folds: 3 subjects with a label")


def test_edited_folds_are_a_problem_among_the_others(opened: Callable[..., Session], tmp_path: Path) -> None:
    run_stage(opened("folds.count=2"), "plan")
    record = json.loads((tmp_path / "folds.json").read_text())
    record["folds"][0]["inner"] += record["folds"][0]["validation"][:1]
    (tmp_path / "folds.json").write_text(json.dumps(record))
    (told,) = errors(opened("folds.count=2"))
    assert "folds.json" in told and told.endswith("Or delete the file and plan again.")
