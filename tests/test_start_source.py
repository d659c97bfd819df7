"""What weights were trained with, through all the runs that they started from."""

from __future__ import annotations

from pathlib import Path

from neoseg.atomic import write_json
from neoseg.pipeline.fine_tune import FoldStart
from neoseg.pipeline.start_source import trained_with
from neoseg.workspace import Run


def made(folder: Path, *names: str, begun: dict[str, object] | None = None) -> Run:
    """Write what a run keeps of its cases: two train, one chooses, one is scored."""
    run = Run(folder)
    write_json(folder / "folds.json", [{"train": names[:2], "inner": names[2:3], "validation": names[3:]}])
    facts = {name: {"subject": name, "files": {"t1": f"hash of {name}"}} for name in names}
    write_json(run.manifest, {"given": {}, "cases": facts})
    if begun is not None:
        write_json(run.start, {"folds": {"0": begun}})
    return run


def start(source: Run, fold: int | None = 0) -> dict[str, object]:
    return {"source": str(source.folder), "fold": fold, "weights": "x", "seen": [], "named": [], "compared": "bytes"}


def test_cases_of_earlier_runs_count_too(tmp_path: Path) -> None:
    first = made(tmp_path / "a", "a1", "a2", "a3", "a4")
    second = made(tmp_path / "b", "b1", "b2", "b3", "b4", begun=start(first))
    third = made(tmp_path / "c", "c1", "c2", "c3", "c4", begun=start(second))
    found = trained_with(third, 0)
    assert found.names == {f"{run}{n}" for run in "abc" for n in (1, 2, 3)}
    assert {one["files"]["t1"] for one in found.facts} == {f"hash of {name}" for name in found.names}
    assert found.unknown == ()


def test_what_cannot_be_told_is_said(tmp_path: Path) -> None:
    gone = Run(tmp_path / "gone")
    for begun in (start(gone), start(made(tmp_path / "converted", "x", "y", "z"), fold=None)):
        second = made(tmp_path / "b", "b1", "b2", "b3", "b4", begun=begun)
        found = trained_with(made(tmp_path / "c", "c1", "c2", "c3", "c4", begun=start(second)), 0)
        assert found.names == {f"{run}{n}" for run in "bc" for n in (1, 2, 3)}
        assert found.unknown == (begun["source"],)
    told = FoldStart(str(tmp_path / "b"), 0, "x", (), (), "bytes", found.unknown).warnings
    assert len(told) == 1 and "goes back to" in told[0] and "is not known" in told[0]


def test_runs_that_started_from_each_other_end(tmp_path: Path) -> None:
    first = made(tmp_path / "a", "a1", "a2", "a3", "a4", begun=start(Run(tmp_path / "b")))
    second = made(tmp_path / "b", "b1", "b2", "b3", "b4", begun=start(first))
    assert trained_with(second, 0).unknown == (str(second.folder),)
