"""A training that starts from the weights of another run: what is taken, what is refused, what the report says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from small_run import SETS, called, read

pytestmark = pytest.mark.slow


@pytest.fixture
def source(small_trained: Path, tmp_path: Path) -> Path:
    """A finished run on the same cases and folds."""
    shutil.copytree(small_trained / "runs" / "default", tmp_path / "source")
    return tmp_path / "source"


def change_weights(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: value + 1 if value.dtype == np.float32 else value for name, value in tensors.items()}, path)


def test_weights_of_the_same_fold_are_taken_and_kept_in_mind(
    workspace: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = workspace / "runs" / "default"
    still = (*SETS, "--steps", "2", "--set", "training.learning_rate=1e-30", "--init-from", str(source))
    assert called(monkeypatch, "train", workspace, *still) == 0
    for fold in (0, 1):
        before = load_file(source / f"fold{fold}" / "best" / "model.safetensors")
        after = load_file(run / f"fold{fold}" / "last" / "model.safetensors")
        fixed = [name for name in before if "running" not in name and "batches" not in name]
        assert len(fixed) > 50 and all(np.array_equal(before[name], after[name]) for name in fixed)
    record = read(run / "init_from.json")
    assert {i: (row["fold"], row["seen"], row["named"]) for i, row in record["folds"].items()} == {
        "0": (0, [], []),
        "1": (1, [], []),
    }
    assert record["tensors"]["new"] == [] and set(record["tensors"]["taken"]) == set(before)
    assert read(run / "config.json")["init_from"] == str(source)
    assert read(run / "stages" / "train.fold0.json")["warnings"] == []

    capsys.readouterr()
    assert called(monkeypatch, "train", workspace, *still[:-2]) == 2
    assert str(source) in capsys.readouterr().err
    shutil.move(source, source.with_name("gone"))  # a finished run does not need it
    assert called(monkeypatch, "predict", workspace, *SETS, "--set", "training.steps=2", *still[-4:-2], "--set",
                  f"init_from={json.dumps(str(source))}") == 0  # fmt: skip


def test_a_fold_does_not_go_on_from_other_weights(
    workspace: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from_source = (*SETS, "--steps", "1", "--init-from", str(source))
    assert called(monkeypatch, "train", workspace, *from_source, "--fold", "0") == 0
    change_weights(source / "fold0" / "best" / "model.safetensors")
    capsys.readouterr()
    assert called(monkeypatch, "train", workspace, *from_source, "--fold", "1") == 2
    told = capsys.readouterr().err
    assert "fold0" in told and "was begun from the weights" in told and "Traceback" not in told
    assert not (workspace / "runs" / "default" / "fold1").exists()


def test_other_channels_and_classes_and_cases_that_were_seen(
    workspace: Path,
    small_prepared: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table, config = workspace / "cases.csv", workspace / "neoseg.toml"
    table.write_text(table.read_text().replace("image_image", "image_t1").replace("unit_image", "unit_t1"))
    config.write_text(config.read_text().replace("label_1", "ball"))
    rows = [line.split(",") for line in table.read_text().splitlines()]
    folds = read(source / "folds.json")
    renamed = folds[0]["validation"][0]  # the same image under another name
    assert renamed in folds[1]["train"] + folds[1]["inner"]
    table.write_text("\n".join(",".join(f"new_{renamed}" if w == renamed else w for w in row) for row in rows) + "\n")
    other = read(workspace / "folds.json")
    assert called(monkeypatch, "plan", workspace, *SETS) == 0
    # Fold 0 scores cases of both folds of then, so that no fold of the source has seen none of them.
    swapped = [{**row} for row in other["folds"]]
    names = lambda case: f"new_{case}" if case == renamed else case  # noqa: E731
    mine, theirs = swapped[0]["validation"], swapped[1]["validation"]
    first = [names(c) for c in (mine[0], *theirs[1:])]
    second = [names(c) for c in (theirs[0], *mine[1:])]
    rows_now = [
        {"train": second[1:], "inner": second[:1], "validation": first},
        {"train": first[1:], "inner": first[:1], "validation": second},
    ]
    made = read(workspace / "folds.json")
    (workspace / "folds.json").write_text(json.dumps({**made, "folds": rows_now}))
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr("small_run.QUIET", ())
        assert called(patch, "run", workspace, *SETS, "--steps", "1", "--init-from", str(source)) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "start anew, because the channels are t1 and were image and the classes are ball and were label_1" in told
    run = workspace / "runs" / "default"
    tensors = read(run / "init_from.json")["tensors"]
    assert {name.partition(".")[0] for name in tensors["new"]} == {"stem", "full_skip", "heads"}
    assert not set(tensors["new"]) & set(tensors["taken"])
    starts = read(run / "init_from.json")["folds"]
    for index, row in starts.items():
        trained = {c for side in ("train", "inner") for c in folds[row["fold"]][side]}
        scored = rows_now[int(index)]["validation"]
        assert set(row["seen"]) == {c for c in scored if c.removeprefix("new_") in trained} and row["seen"]
        assert row["named"] == [] and row["compared"] == "bytes"
    page = unescape((run / "report.html").read_text(encoding="utf-8"))
    assert "not those of unseen cases" in page and "not those of unseen cases" in told


def keep_nothing(source: Path) -> None:
    for path in source.glob("fold*/finished.json"):
        path.unlink()


def drop_hashes(source: Path) -> None:
    (source / "manifest.json").unlink()


def test_without_hashes_names_are_compared_and_it_is_said(
    workspace: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_hashes(source)
    folds = read(source / "folds.json")
    (source / "folds.json").write_text(json.dumps([{**f, "train": f["train"] + f["validation"]} for f in folds]))
    assert (
        called(monkeypatch, "train", workspace, *SETS, "--steps", "1", "--fold", "0", "--init-from", str(source)) == 0
    )
    record = read(workspace / "runs" / "default" / "stages" / "train.fold0.json")
    assert len(record["warnings"]) == 2 and "compared by name only" in record["warnings"][1]
    assert all(case in record["warnings"][0] for case in folds[0]["validation"])


@pytest.mark.parametrize(
    ("change", "more", "words"),
    [
        (keep_nothing, (), "no weights to start from"),
        (shutil.rmtree, (), "no weights to start from"),
        (lambda s: (s / "plan.json").write_text("{"), (), "plan.json"),
        (lambda s: (s / "fold0/best/model.safetensors").write_bytes(b"x"), (), "model.safetensors"),
        (lambda s: (s / "manifest.json").write_text("[]"), (), "manifest.json"),
    ],
)
def test_what_is_no_finished_run_is_told(
    workspace: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path], object],
    more: tuple[str, ...],
    words: str,
) -> None:
    change(source)
    assert called(monkeypatch, "train", workspace, *SETS, "--steps", "1", *more, "--init-from", str(source)) == 2
    told = capsys.readouterr().err
    assert words in told and "Traceback" not in told and len(told.strip().splitlines()) == 1
    assert not (workspace / "runs" / "default" / "fold0").exists()


def test_of_a_workspace_the_runs_are_named(
    workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("second", "first"):
        (tmp_path / "other" / "runs" / name).mkdir(parents=True)
    given = str(tmp_path / "other")
    assert called(monkeypatch, "train", workspace, *SETS, "--steps", "1", "--init-from", given) == 2
    assert "no weights to start from; give one of its runs (first, second)." in capsys.readouterr().err


def test_a_run_does_not_start_from_itself(
    workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = workspace / "runs" / "default"
    assert called(monkeypatch, "train", workspace, *SETS, "--steps", "1", "--init-from", str(own)) == 2
    assert "its own weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("plan.patch=[32, 32, 32]", "--set plan.patch=[16,16,16]"),
        ("network.dims=[8, 16, 64]", "--set network.dims=[8,16,32]"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_with_what_differs(
    workspace: Path,
    source: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    change: str,
    words: str,
) -> None:
    assert called(monkeypatch, "plan", workspace, *SETS, "--set", change) == 0
    capsys.readouterr()
    more = ("--steps", "1", "--set", change, "--init-from", str(source))
    assert called(monkeypatch, "prepare", workspace, *SETS, "--set", change) == 0
    assert called(monkeypatch, "train", workspace, *SETS, *more) == 2
    told = capsys.readouterr().err
    assert "do not fit" in told and words in told and len(told.strip().splitlines()) == 1
    assert not (workspace / "runs" / "default" / "fold0").exists()


def test_weights_that_saw_other_axes_are_refused_where_no_shape_shows_it(
    workspace: Path, source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = read(source / "plan.json")
    assert len(set(plan["patch"])) == 1
    plan["network"]["native_orientation"] = "SPL"
    (source / "plan.json").write_text(json.dumps(plan))
    start = (*SETS, "--steps", "1", "--init-from", str(source))
    assert called(monkeypatch, "train", workspace, *start) == 2
    told = capsys.readouterr().err
    assert "orientation SPL" in told and "sees them in RAS" in told and "network.native_orientation=SPL" in told
    assert not (workspace / "runs" / "default" / "fold0").exists()

    plan["network"]["native_orientation"] = None
    (source / "plan.json").write_text(json.dumps(plan))
    more = ("--set", "network.native_orientation=SPL")
    for command in ("plan", "prepare"):
        assert called(monkeypatch, command, workspace, *SETS, *more) == 0
    assert called(monkeypatch, "train", workspace, *start, *more) == 2
    assert "without network.native_orientation" in capsys.readouterr().err
