"""Stages run one at a time: their records, what they refuse to build on, what they say before they start."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import unescape
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neoseg.config import load_config
from neoseg.errors import ConfigError, InputError, MachineError, StateError
from neoseg.io import read_volume, write_volume
from neoseg.phantom.cohort import write_cohort
from neoseg.phantom.config import CohortConfig, HeadConfig
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.run import run, run_stage
from neoseg.pipeline.session import Session, open_session
from neoseg.progress import Advance, Silent
from neoseg.training.fold_lock import training_alone

pytestmark = pytest.mark.slow

SHORT = ("training.steps=4", "training.steps_per_epoch=2")


class Listener:
    """Keeps the sentences."""

    def __init__(self) -> None:
        self.said: list[str] = []

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        yield lambda steps, text: None

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def session_of(workspace: Path, *changes: str, progress: Any = None) -> Session:
    return open_session(load_config(workspace / "neoseg.toml", changes), progress)


@pytest.fixture(scope="module")
def short(blob_changes: tuple[str, ...]) -> tuple[str, ...]:
    return (*blob_changes, *SHORT)


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory, blobs: Callable[[Path, int, int], None], short: tuple[str, ...]
) -> Path:
    """A workspace of six scans, prepared and not trained; it may be copied, since its table names files below it."""
    folder = tmp_path_factory.mktemp("stages") / "work"
    blobs(folder / "data", 6, 1)
    import_folder(folder / "data", folder)
    for stage in ("plan", "prepare"):
        run_stage(session_of(folder, *short), stage)
    return folder


@pytest.fixture
def prepared(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "work"))


def test_folds_trained_one_at_a_time_are_all_recorded(prepared: Path, short: tuple[str, ...]) -> None:
    session = session_of(prepared, *short)
    folder = session.run
    assert [f["fold"] for f in run_stage(session, "train", folds=[1])["folds"]] == [1]
    with pytest.raises(StateError, match=r"'train' was not done to its end.*`neoseg train`"):
        run_stage(session, "predict")
    record = run_stage(session, "train", folds=[0])
    finished = [json.loads((folder.fold(i) / "finished.json").read_text()) for i in (0, 1)]
    assert record["folds"] == [{"fold": i, **one} for i, one in enumerate(finished)]
    assert record["seconds"] == pytest.approx(sum(one["seconds"] for one in finished)) and record["seconds"] > 0
    before = (folder.fold(0) / "finished.json").stat().st_mtime_ns
    assert run_stage(session, "train") == record
    assert (folder.fold(0) / "finished.json").stat().st_mtime_ns == before
    for fold in (2, 9, -1):
        with pytest.raises(ConfigError, match=f"--fold {fold}: there are 2 folds"):
            run_stage(session, "train", folds=[fold])
    run_stage(session, "predict")


def test_a_fold_that_does_not_exist_is_refused_before_anything_is_written(
    prepared: Path, short: tuple[str, ...]
) -> None:
    before = sorted(prepared.rglob("*"))
    with pytest.raises(ConfigError, match="--fold 2"):
        run_stage(session_of(prepared, *short), "train", folds=[2])
    assert sorted(prepared.rglob("*")) == before


def test_two_processes_train_two_folds_of_one_run_at_the_same_time(prepared: Path, short: tuple[str, ...]) -> None:
    sets = [part for change in short for part in ("--set", change)]
    command = [sys.executable, "-m", "neoseg", "train", str(prepared / "neoseg.toml"), "--quiet", *sets]
    both = [
        subprocess.Popen([*command, "--fold", str(fold)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for fold in (0, 1)
    ]
    for process in both:
        told = process.communicate(timeout=300)
        assert process.returncode == 0, told
    session = session_of(prepared, *short)
    record = session.run.need("train")
    finished = [json.loads((session.run.fold(i) / "finished.json").read_text()) for i in (0, 1)]
    assert record["folds"] == [{"fold": i, **one} for i, one in enumerate(finished)]
    for name in ("config.json", "plan.json", "folds.json", "environment.json"):
        assert json.loads((session.run.folder / name).read_text())
    assert not [p for p in session.run.folder.rglob("*") if ".tmp" in p.name]
    before = (session.run.fold(0) / "finished.json").stat().st_mtime_ns
    assert run_stage(session, "train") == record
    assert (session.run.fold(0) / "finished.json").stat().st_mtime_ns == before


class OnceTraining(Listener):
    """Does something when the first epoch begins."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self.act: Callable[[], None] | None = act

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        if "epoch" in title and self.act:
            self.act()
            self.act = None
        yield lambda steps, text: None


def trained_on(session: Session) -> list[list[str]]:
    records = sorted(session.run.folder.glob("fold*/training.json"))
    return [json.loads(path.read_text(encoding="utf-8"))["identity"]["train"] for path in records]


def test_a_plan_that_is_made_during_a_training_is_that_of_another_run(prepared: Path, short: tuple[str, ...]) -> None:
    other = (*short, "folds.count=3", "name=other")
    began = [list(fold.train) for fold in session_of(prepared, *short).folds]
    listener = OnceTraining(lambda: run_stage(session_of(prepared, *other), "plan") and None)
    session = session_of(prepared, *short, progress=listener)
    run_stage(session, "train")
    assert [list(fold.train) for fold in session.folds] != began  # of the other run by now
    assert trained_on(session) == began
    kept = json.loads((session.run.folder / "folds.json").read_text(encoding="utf-8"))
    assert [fold["train"] for fold in kept] == began
    with pytest.raises(StateError, match="run `neoseg plan`"):
        run_stage(session, "predict")
    again = session_of(prepared, *short)
    run_stage(again, "plan")
    run_stage(again, "predict")


def test_folds_that_were_trained_on_other_cases_do_not_predict(prepared: Path, short: tuple[str, ...]) -> None:
    session = session_of(prepared, *short)
    run_stage(session, "train")
    path = session.run.fold(1) / "training.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record["identity"]["train"] = list(session.folds[0].train)
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(StateError, match="fold1: this fold was trained on other data"):
        run_stage(session, "predict")


def test_a_plan_that_is_made_during_a_prediction_exchanges_no_folds(prepared: Path, short: tuple[str, ...]) -> None:
    other, act = (*short, "folds.count=3", "name=other"), []

    class Planning(Listener):
        @contextmanager
        def track(self, title: str, total: int) -> Iterator[Advance]:
            if "Predicting" in title and not act:
                act.append(run_stage(session_of(prepared, *other), "plan"))
            yield lambda steps, text: None

    session = session_of(prepared, *short, progress=Planning())
    run_stage(session, "train")
    choices = run_stage(session, "predict")["postprocess"]
    assert act and len(session.folds) == 3 and sorted(choices) == ["0", "1", "all"]
    with pytest.raises(StateError, match="run `neoseg plan`"):
        run_stage(session, "evaluate")


def test_a_fold_is_trained_by_one_process_at_a_time(prepared: Path, short: tuple[str, ...]) -> None:
    pytest.importorskip("fcntl")
    session = session_of(prepared, *short)
    folder = session.run.fold(1)
    with training_alone(folder):
        with pytest.raises(StateError, match=r"fold1: another process is training this fold \(process \d+ on .*--fold"):
            run_stage(session, "train")
        assert not (session.run.fold(0) / "training.json").exists()
        run_stage(session, "train", folds=[0])
    (folder / ".training.lock").write_text("process 1 on a machine that was switched off", encoding="utf-8")
    run_stage(session, "train")
    assert not (folder / ".training.lock").exists()


@pytest.mark.parametrize(
    "change", ["plan.patch=[16, 16, 16]", "network.heads=2", "training.batch_size=3", "folds.count=3", "seed=4"]
)
def test_a_stage_does_not_ignore_what_the_plan_would_have_to_know(
    prepared: Path, short: tuple[str, ...], change: str
) -> None:
    for stage in ("prepare", "train"):
        with pytest.raises(StateError, match=r"plan\.json.*run `neoseg plan`"):
            run_stage(session_of(prepared, *short, change), stage)
    assert not (prepared / "runs" / "default" / "fold0").exists()
    run_stage(session_of(prepared, *short, change), "plan")
    run_stage(session_of(prepared, *short, change), "prepare")


def test_training_does_not_start_on_another_preparation(prepared: Path, short: tuple[str, ...]) -> None:
    change = "prepare.bias_field={}"
    with pytest.raises(StateError, match=r"'prepare' was not done to its end.*`neoseg prepare`"):
        run_stage(session_of(prepared, *short, change), "train")
    run_stage(session_of(prepared, *short, change), "prepare")
    run_stage(session_of(prepared, *short, change), "train", folds=[0])


@pytest.mark.parametrize("stage", ["plan", "prepare"])
def test_a_stage_that_is_reused_keeps_its_record(prepared: Path, short: tuple[str, ...], stage: str) -> None:
    path = prepared / "runs" / "default" / "stages" / f"{stage}.json"
    before = path.read_text(), path.stat().st_mtime_ns
    again = run_stage(session_of(prepared, *short), stage)
    assert (path.read_text(), path.stat().st_mtime_ns) == before
    if stage == "plan":
        assert again.model_dump(mode="json") == json.loads((prepared / "plan.json").read_text())


def test_prepared_cases_follow_the_plan_that_is_written(prepared: Path, short: tuple[str, ...]) -> None:
    session = session_of(prepared, *short)
    before, plan = session.store, session.workspace.plan
    assert session.store is before
    written = plan.read_text(encoding="utf-8")
    plan.write_text(json.dumps(json.loads(written) | {"spacing_mm": [9.0, 9.0, 9.0]}), encoding="utf-8")
    assert session.store.folder != before.folder
    plan.write_text(written, encoding="utf-8")
    assert session.store is before


def test_a_forecast_is_said_before_long_work(prepared: Path, short: tuple[str, ...]) -> None:
    shutil.rmtree(next((prepared / "prepared").iterdir()) / "scan3")
    heard = Listener()
    for stage in ("prepare", "train", "predict"):
        run_stage(session_of(prepared, *short, progress=heard), stage)
    prepare, train, predict = (s for s in heard.said if s.startswith("Forecast"))
    assert prepare.startswith(
        "Forecast: 1 of 6 cases to prepare without bias field correction and registration, about 0."
    )
    assert prepare.endswith("in one process.")
    assert "GiB of memory" in train and "2 x 4 steps" in train
    # Each scan fits into one patch, and is predicted by the one fold that has not seen it.
    assert predict.startswith("Forecast: 6 cases, 6 windows, about ")


def test_a_case_that_fails_does_not_lose_the_others(
    tmp_path: Path, blobs: Callable[[Path, int, int], None], short: tuple[str, ...]
) -> None:
    blobs(tmp_path / "data", 7, 2)
    image = tmp_path / "data" / "images" / "scan5.nii.gz"
    loaded = nib.load(image)
    nib.save(nib.Nifti1Image(np.zeros(loaded.shape, dtype=np.float32), loaded.affine), image)
    import_folder(tmp_path / "data", tmp_path)
    session = session_of(tmp_path, *short)
    for stage in ("plan", "prepare", "train", "predict", "evaluate"):
        run_stage(session, stage)
    summary = run_stage(session, "report")
    assert list(summary["failed"]) == ["scan5"]
    assert summary["cv"]["cases"] == 6
    assert set(summary["stages"]) == {"plan", "prepare", "train", "predict", "evaluate", "report"}
    assert json.loads(session.run.summary.read_text()) == json.loads(json.dumps(summary))
    page = unescape(session.run.report.read_text())
    assert summary["failed"]["scan5"] in page


def test_heads_that_fail_or_are_not_skull_stripped_are_told_and_the_others_go_on(
    tmp_path: Path, rough: tuple[str, ...]
) -> None:
    cohort = CohortConfig(healthy=6, patients=3, held_out=1, seed=4, head=HeadConfig(point_mm=(1.6, 5.0)))
    write_cohort(tmp_path / "cohort", cohort, progress=Silent())
    import_folder(tmp_path / "cohort", tmp_path, "bonbid", recipe="demo")
    changes = ("jobs=0", "folds.count=3", "atlas.rounds=0", "prepare.ffd=false", *rough)
    session = session_of(tmp_path, *changes)
    lost, whole = session.healthy[2], session.trainable[1]
    volume = read_volume(lost.images["adc"])
    write_volume(volume.with_array(np.zeros_like(volume.array)), lost.images["adc"])
    volume = read_volume(whole.images["adc"])
    air = np.random.default_rng(1).uniform(1, 30, volume.array.shape).astype(np.float32)
    write_volume(volume.with_array(np.where(volume.array == 0, air, volume.array)), whole.images["adc"])
    heard = Listener()
    session = session_of(tmp_path, *changes, progress=heard)
    run_stage(session, "plan")
    record = run_stage(session, "prepare")
    assert list(record["failed"]) == [lost.case]
    assert not [w for w in record["warnings"] if lost.case in w["text"]]
    assert all(session.store.has_any(c.case) for c in session.used)
    told = {c.case: " ".join(session.store.record(c.case)["warnings"]) for c in session.used}
    assert {case for case, text in told.items() if "skull-stripped" in text} == {whole.case}
    assert json.loads((tmp_path / "atlas" / "atlas.json").read_text())["count"] == 5
    forecast = next(s for s in heard.said if s.startswith("Forecast"))
    assert "4 of 4 cases to prepare with bias field correction and registration" in forecast
    assert "after an atlas of 6 heads" in forecast
    assert run_stage(session_of(tmp_path, *changes), "prepare") == record


def write_stacks(folder: Path, count: int) -> None:
    """Write a task of the decathlon: 4-D files of two modalities of which the second shows the balls, inverted."""
    generator = np.random.default_rng(5)
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (24, 28, 20)], indexing="ij"), axis=-1)
    entries = []
    for number in range(count):
        centre = generator.uniform((8, 8, 8), (16, 20, 12))
        label = (np.linalg.norm(index - centre, axis=-1) < generator.uniform(4, 6)).astype(np.uint8)
        first = generator.normal(100, 10, label.shape)
        second = generator.normal(300, 10, label.shape) - 80 * label
        stack = np.stack([first, second], axis=-1).astype(np.float32)
        nib.save(nib.Nifti1Image(stack, np.eye(4)), folder / "imagesTr" / f"case{number}.nii.gz")
        nib.save(nib.Nifti1Image(label, np.eye(4)), folder / "labelsTr" / f"case{number}.nii.gz")
        entries.append({"image": f"./imagesTr/case{number}.nii.gz", "label": f"./labelsTr/case{number}.nii.gz"})
    content = {"modality": {"0": "FLAIR", "1": "T1"}, "labels": {"0": "background", "1": "ball"}, "training": entries}
    (folder / "dataset.json").write_text(json.dumps(content))


def test_new_4d_scans_are_predicted_by_a_run_that_was_trained_on_such(tmp_path: Path, short: tuple[str, ...]) -> None:
    write_stacks(tmp_path / "data", 4)
    import_folder(tmp_path / "data", tmp_path / "work", "decathlon")
    # The network has the channels in another order than the files.
    run(load_config(tmp_path / "work" / "neoseg.toml", (*short, 'channels=["t1", "flair"]')))
    source, model = tmp_path / "new", tmp_path / "model"
    source.mkdir()
    shutil.copytree(tmp_path / "work" / "runs" / "default", model)
    stack = nib.load(tmp_path / "data" / "imagesTr" / "case0.nii.gz")
    shutil.copy(tmp_path / "data" / "imagesTr" / "case0.nii.gz", source / "stacked.nii.gz")
    for index, channel in enumerate(("flair", "t1")):
        one = nib.Nifti1Image(stack.get_fdata(dtype=np.float32)[..., index], stack.affine)
        nib.save(one, source / f"single_{channel}.nii.gz")
    nib.save(one, source / "stray.nii.gz")
    nib.save(one, source / "single.nii.gz")
    with pytest.raises(InputError, match="would replace the input image"):
        predict_scans(model, source, source, progress=Silent())
    (source / "single.nii.gz").unlink()
    heard = Listener()
    found = predict_scans(model, source, tmp_path / "out", probabilities=True, progress=heard)
    # Two scans, each in one window of each of two networks.
    assert [s for s in heard.said if s.startswith("Forecast: 2 scans, at most") and " 4 windows" in s]
    assert [(f.case, f.error, f.mask is None) for f in found] == [
        ("stray.nii.gz", None, True),
        ("single", None, False),
        ("stacked", None, False),
    ]
    assert "was left out" in found[0].warnings[0]
    maps = [read_volume(tmp_path / "out" / f"{name}_probability_ball.nii.gz") for name in ("stacked", "single")]
    assert maps[0].array.std() > 0
    assert np.array_equal(maps[0].array, maps[1].array)
    assert nib.load(tmp_path / "out" / "stacked.nii.gz").shape == stack.shape[:3]


def test_a_label_that_fills_more_than_the_foreground_has_a_report(
    tmp_path: Path, blobs: Callable[[Path, int, int], None], short: tuple[str, ...]
) -> None:
    blobs(tmp_path / "data", 6, 2)
    image, label = (tmp_path / "data" / kind / "scan5.nii.gz" for kind in ("images", "labels"))
    loaded = nib.load(image)
    values = loaded.get_fdata(dtype=np.float32)
    values[:3] = 0
    nib.save(nib.Nifti1Image(values, loaded.affine), image)
    nib.save(nib.Nifti1Image(np.ones(loaded.shape, dtype=np.uint8), loaded.affine), label)
    import_folder(tmp_path / "data", tmp_path)
    session = session_of(tmp_path, *short)
    for stage in ("plan", "prepare", "train", "predict", "evaluate"):
        run_stage(session, stage)
    record = session.store.record("scan5")
    assert sum(record["label_ml"]) > record["brain_ml"]
    bins = run_stage(session, "report")["cv"]["by_burden"]
    assert (bins[-1]["high_percent"], bins[-1]["n"]) == (100.0, 1)


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, MachineError), (errno.EROFS, InputError)])
def test_a_lock_that_cannot_be_made_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception]
) -> None:
    pytest.importorskip("fcntl")

    def full(path: Path, *_: object) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("neoseg.training.fold_lock.os.open", full)
    with pytest.raises(kind, match=r"\.training\.lock: "), training_alone(tmp_path / "fold0"):
        raise AssertionError("it was not made")
