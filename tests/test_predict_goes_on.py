"""New scans predicted into one folder again: what is there and the same is kept, all else is predicted anew."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from assembled_run import SHAPE, assembled, draw_weights, predicted, save, with_one_fold
from neoseg.atomic import read_json, write_json
from neoseg.data.cases import Case
from neoseg.data.loading import LoadedImages
from neoseg.errors import InputError, StateError
from neoseg.pipeline import load_run
from neoseg.pipeline.ahead import _showing_nothing
from neoseg.pipeline.kept_predictions import KeptPredictions
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import PredictedScan, PredictOptions, predict_scans
from neoseg.pipeline.session import Session
from neoseg.progress import Advance
from neoseg.volume import Grid, Volume
from neoseg.workspace import Run

NAMES = ("a", "b", "c")


class StoppedError(Exception):
    """The work is ended after some scans."""


class Listener:
    """Remembers what was said and predicted, and may end the work."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.said: list[str] = []
        self.predicted: list[str] = []
        self.totals: list[int] = []
        self.stop_after = stop_after

    def say(self, sentence: str) -> None:
        self.said.append(sentence)

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        assert title == "Predicting scans"
        self.totals.append(total)

        def advance(steps: int, text: str) -> None:
            self.predicted.append(text)
            if len(self.predicted) == self.stop_after:
                raise StoppedError

        yield advance


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Path]:
    """A run and a folder of three scans."""
    return assembled(tmp_path_factory.mktemp("made"), NAMES)


@pytest.fixture
def place(made: tuple[Session, Path], tmp_path: Path) -> Path:
    """A folder with a copy of the run and of the scans."""
    shutil.copytree(made[0].run.folder, tmp_path / "run")
    shutil.copytree(made[1], tmp_path / "in")
    return tmp_path


def again(
    place: Path, progress: Listener, *, probabilities: bool = True, options: PredictOptions | None = None
) -> list[PredictedScan]:
    return predict_scans(
        place / "run",
        place / "in",
        place / "out",
        device="cpu",
        probabilities=probabilities,
        options=options,
        progress=progress,
    )


def test_a_killed_prediction_goes_on_with_the_scans_that_are_left(place: Path) -> None:
    with pytest.raises(StoppedError):
        again(place, Listener(stop_after=1))
    assert sorted(p.name for p in (place / "out").glob("a*")) == ["a.nii.gz", "a_probability_ball.nii.gz"]
    heard = Listener()
    found = again(place, heard)
    assert (heard.predicted, heard.totals) == (["b", "c"], [2])
    assert any(s.startswith("1 of 3 scans predicted already") for s in heard.said)
    assert any(s.startswith("Forecast: 2 scans") for s in heard.said)
    whole = predict_scans(place / "run", place / "in", place / "whole", device="cpu", probabilities=True)
    assert [replace(scan, mask=None) for scan in found] == [replace(scan, mask=None) for scan in whole]
    assert [scan.mask for scan in found] == [place / "out" / f"{name}.nii.gz" for name in NAMES]
    assert all(scan.volumes_ml for scan in found)
    for path in (place / "whole").glob("*.nii.gz"):
        assert path.read_bytes() == (place / "out" / path.name).read_bytes()


KILLED = """
import os, signal, sys
from pathlib import Path
from neoseg.pipeline.kept_predictions import KeptPredictions
from neoseg.pipeline.new_scans import predict_scans

keep, count = KeptPredictions.keep, []
def keep_or_die(self, *given):
    count.append(1)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    keep(self, *given)
KeptPredictions.keep = keep_or_die
predict_scans(*map(Path, sys.argv[1:4]), device="cpu", probabilities=True)
"""


@pytest.mark.slow
def test_a_process_killed_outright_loses_the_scan_at_work_alone(place: Path) -> None:
    """The mask of the second scan is written, and not yet recorded."""
    places = [str(place / name) for name in ("run", "in", "out")]
    done = subprocess.run([sys.executable, "-c", KILLED, *places], capture_output=True, timeout=200, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (place / "out" / "b.nii.gz").is_file()
    heard = Listener()
    found = again(place, heard)
    assert heard.predicted == ["b", "c"]
    assert [scan.case for scan in found] == list(NAMES) and all(scan.volumes_ml for scan in found)


def test_a_finished_prediction_is_reported_without_being_made_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PredictOptions(uncertainty=True, max_memory="8G")
    first = again(place, Listener(), options=options)
    assert first[0].ranges_ml
    # elsewhere, with the same names and bytes
    shutil.move(place / "in", place / "moved")
    shutil.copytree(place / "run", place / "copied")
    monkeypatch.setattr(load_run, "load_networks", None)
    heard = Listener()
    second = predict_scans(
        place / "copied",
        place / "moved",
        place / "out",
        device="cpu",
        probabilities=True,
        options=PredictOptions(uncertainty=True),
        progress=heard,
    )
    assert second == first
    assert not heard.totals and not any(s.startswith("Forecast") for s in heard.said)
    (found,) = predict_scans(
        place / "copied",
        place / "moved" / "b.nii.gz",
        place / "out",
        device="cpu",
        probabilities=True,
        options=PredictOptions(uncertainty=True),
    )
    assert found == first[1]


def other_weights(place: Path, session: Session) -> None:
    draw_weights(Run(place / "run"), session, 1, seed=9)
    predicted(Run(place / "run"))


def other_threshold(place: Path, _: Session) -> None:
    path = place / "run" / "postprocess.json"
    write_json(path, read_json(path) | {"threshold": 0.6})


def other_window(place: Path, _: Session) -> None:
    path = place / "run" / "config.json"
    tree = read_json(path)
    tree["window"]["overlap"] = 0.2
    write_json(path, tree)


def other_scan(place: Path, _: Session) -> None:
    save(place / "in" / "b.nii.gz", np.random.default_rng(5).normal(100, 10, SHAPE).astype(np.float32))


def no_map(place: Path, _: Session) -> None:
    (place / "out" / "b_probability_ball.nii.gz").unlink()


def edited_mask(place: Path, _: Session) -> None:
    save(place / "out" / "b.nii.gz", np.ones(SHAPE, np.uint8))


def no_entry(place: Path, _: Session) -> None:
    """The mask is there, but of it nothing is known."""
    path = place / "out" / "predictions.json"
    tree = read_json(path)
    del tree["scans"]["b"]
    write_json(path, tree)
    edited_mask(place, _)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (other_weights, "abc"),
        (other_threshold, "abc"),
        (other_window, "abc"),
        (other_scan, "b"),
        (no_map, "b"),
        (edited_mask, "b"),
        (no_entry, "b"),
    ],
)
def test_what_changed_is_predicted_anew(made: tuple[Session, Path], place: Path, change: Any, wanted: str) -> None:
    before = again(place, Listener())
    change(place, made[0])
    heard = Listener()
    after = again(place, heard)
    assert "".join(heard.predicted) == wanted
    assert [scan.case for scan in after] == list(NAMES)
    fresh = predict_scans(place / "run", place / "in", place / "fresh", device="cpu", probabilities=True)
    assert [scan.volumes_ml for scan in after] == [scan.volumes_ml for scan in fresh]
    for path in (place / "fresh").glob("*.nii.gz"):
        assert path.read_bytes() == (place / "out" / path.name).read_bytes()
    if change in (other_threshold, other_scan, other_weights):
        assert before != after
    heard = Listener()
    assert again(place, heard) == after and not heard.predicted


def test_other_options_and_other_brain_masks_are_other_results(place: Path) -> None:
    again(place, Listener(), probabilities=False)
    heard = Listener()
    again(place, heard)
    assert len(heard.predicted) == 3
    brain = np.zeros(SHAPE, np.uint8)
    brain[4:16, 4:16, 4:14] = 1
    save(place / "masks" / "b.nii.gz", brain)
    for edge, wanted in ((4, ["b"]), (4, []), (6, ["b"])):
        brain[:edge] = 0
        save(place / "masks" / "b.nii.gz", brain)
        heard = Listener()
        # a path as text is a path
        found = again(place, heard, options=PredictOptions(brain_masks=str(place / "masks")))
        assert heard.predicted == wanted
        assert "No brain mask of this scan was given; its brain was told from the image." in found[0].warnings
        assert "The brain mask b.nii.gz was given." in found[1].warnings


@pytest.mark.parametrize("text", ["{", "[]", '{"scans": {"a": {"key": "x"}}}'])
def test_a_damaged_record_is_told_and_made_anew(place: Path, text: str) -> None:
    first = again(place, Listener())
    (place / "out" / "predictions.json").write_text(text)
    heard = Listener()
    assert again(place, heard) == first
    assert heard.predicted == list(NAMES)
    assert any("predictions.json: this record of earlier predictions cannot be used" in said for said in heard.said)
    heard = Listener()
    assert again(place, heard) == first and not heard.predicted


def test_a_scan_that_failed_is_tried_again_and_ends_no_other(place: Path) -> None:
    (place / "in" / "b.nii.gz").write_text("not an image")
    found = again(place, Listener())
    assert [scan.error is None for scan in found] == [True, False, True]
    heard = Listener()
    assert again(place, heard) == found
    assert heard.predicted == ["b"]
    assert set(json.loads((place / "out" / "predictions.json").read_text())["scans"]) == {"a", "c"}


def test_what_the_preparation_refuses_names_the_file(place: Path) -> None:
    save(place / "in" / "b.nii.gz", np.zeros(SHAPE, np.float32))
    for jobs in (0, 1):
        bad = again(place, Listener(), options=PredictOptions(jobs=jobs))[1]
        assert str(bad.error).startswith(f"{place / 'in' / 'b.nii.gz'}: the image holds only zeros")


def test_numbers_of_channels_are_refused_where_nothing_tells_what_they_count(place: Path) -> None:
    (place / "run" / "manifest.json").unlink()
    assert len(again(place, Listener())) == 3
    (place / "in" / "a.nii.gz").rename(place / "in" / "a_0001.nii.gz")
    with pytest.raises(StateError, match=r"manifest\.json: there is no such file.*which channel a_0001\.nii\.gz is"):
        again(place, Listener())


def test_masks_do_not_go_among_the_scans_of_one_channel(place: Path) -> None:
    (place / "in" / "a.nii.gz").rename(place / "in" / "a_0000.nii.gz")
    for name in ("b", "c"):
        (place / "in" / f"{name}.nii.gz").unlink()
    with pytest.raises(InputError, match="--output"):
        predict_scans(place / "run", place / "in", place / "in", device="cpu")
    (found,) = predict_scans(place / "run", place / "in" / "a_0000.nii.gz", place / "in", device="cpu")
    assert found.mask == place / "in" / "a.nii.gz" and found.mask.is_file()


def test_a_workspace_in_the_place_of_a_run_is_told_its_runs(made: tuple[Session, Path], place: Path) -> None:
    with pytest.raises(StateError, match=r"not the folder of a finished run; give one of its runs \(default\)"):
        predict_scans(made[0].workspace.root, place / "in", place / "out", device="cpu")
    with pytest.raises(StateError, match=r"give the folder of a finished run, runs/<name> of a workspace"):
        predict_scans(place / "in", place / "in", place / "out", device="cpu")


# The weights that a run predicts with.


def test_weights_that_the_post_processing_was_not_chosen_with_are_refused(
    made: tuple[Session, Path], place: Path
) -> None:
    draw_weights(Run(place / "run"), made[0], 1, seed=9)
    with pytest.raises(StateError, match=r"fold1.*trained on since: run `neoseg predict CONFIG`"):
        load_predictor(place / "run", "cpu")
    with pytest.raises(StateError, match="trained on since"):
        again(place, Listener())
    predicted(Run(place / "run"))
    load_predictor(place / "run", "cpu")


def test_a_fold_that_is_missing_or_being_trained_is_refused(place: Path) -> None:
    (place / "run" / "fold1" / "finished.json").unlink()
    with pytest.raises(StateError, match=r"fold1: this fold of the run is not here or not trained to its end"):
        load_predictor(place / "run", "cpu")
    shutil.rmtree(place / "run" / "fold1")
    with pytest.raises(StateError, match=r"fold1: this fold of the run is not here"):
        load_predictor(place / "run", "cpu")


def test_a_prediction_stage_that_was_begun_again_is_refused(place: Path) -> None:
    (place / "run" / "stages" / "predict.json").unlink()
    with pytest.raises(StateError, match="begun again and has not finished; run `neoseg predict CONFIG`"):
        load_predictor(place / "run", "cpu")


def test_a_copy_without_records_and_a_run_of_one_fold_still_predict(place: Path) -> None:
    shutil.copytree(place / "run", place / "bare", ignore=shutil.ignore_patterns("stages"))
    predictor, _ = load_predictor(place / "bare", "cpu")
    assert len(predictor.ensemble.networks) == 2
    predictor, _ = load_predictor(with_one_fold(place / "run", place / "one", 1), "cpu")
    assert len(predictor.ensemble.networks) == 1
    path = place / "run" / "stages" / "predict.json"
    write_json(path, {name: value for name, value in read_json(path).items() if name != "weights"})
    load_predictor(place / "run", "cpu")


def test_no_file_beside_the_scans_is_replaced(place: Path) -> None:
    source = place / "in"
    first = sorted(source.iterdir())[0]
    renamed = first.rename(first.with_name("p_0000.nii.gz"))
    shutil.copy(renamed, source / "p.nii.gz")  # somebody's label
    before = (source / "p.nii.gz").read_bytes()
    with pytest.raises(InputError, match=r"p\.nii\.gz: there is such a file, and no prediction"):
        predict_scans(place / "run", renamed, source, device="cpu")
    assert (source / "p.nii.gz").read_bytes() == before
    (source / "p.nii.gz").unlink()
    for _ in range(2):  # its own results it may replace
        assert predict_scans(place / "run", renamed, source, device="cpu")[0].error is None
    (place / "run" / "postprocess.json").write_text("null")
    assert predict_scans(place / "run", renamed, source, device="cpu")[0].error is None


def test_masks_of_others_are_not_replaced_unless_asked_for(place: Path) -> None:
    out = place / "out"
    out.mkdir()
    (out / "b.nii.gz").write_bytes(b"somebody's mask")
    with pytest.raises(InputError, match=r"b\.nii\.gz: there is such a file, and no prediction.*--overwrite"):
        again(place, Listener())
    assert [path.name for path in out.iterdir()] == ["b.nii.gz"]
    heard = Listener()
    assert not any(scan.error for scan in again(place, heard, options=PredictOptions(overwrite=True)))
    assert heard.predicted == list(NAMES) and (out / "b.nii.gz").read_bytes() != b"somebody's mask"
    heard = Listener()
    again(place, heard, options=PredictOptions(overwrite=True))
    assert heard.predicted == list(NAMES)
    heard = Listener()
    again(place, heard)
    assert not heard.predicted


def test_what_was_being_written_when_it_was_killed_is_its_own(place: Path) -> None:
    scan = sorted((place / "in").iterdir())[0]
    renamed = scan.rename(scan.with_name("p_0000.nii.gz"))
    write_json(place / "in" / "predictions.json", {"scans": {}, "begun": {"p": ["p.nii.gz"]}})
    (place / "in" / "p.nii.gz").write_bytes(b"the mask of a prediction that was killed before it told of it")
    (found,) = predict_scans(place / "run", renamed, place / "in", device="cpu")
    assert found.error is None and not read_json(place / "in" / "predictions.json")["begun"]


def test_a_prediction_killed_behind_its_first_mask_goes_on(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise StoppedError

    with monkeypatch.context() as patch:
        patch.setattr(KeptPredictions, "keep", killed)
        with pytest.raises(StoppedError):
            again(place, Listener())
    assert (place / "out" / "a.nii.gz").is_file()
    heard = Listener()
    assert len(again(place, heard)) == 3 and heard.predicted == list(NAMES)


def test_nothing_of_an_earlier_scan_of_the_name_stays_beside_the_new_mask(place: Path) -> None:
    again(place, Listener(), options=PredictOptions(uncertainty=True))
    assert (place / "out" / "a_entropy.nii.gz").is_file()
    (place / "out" / "b_entropy.nii.gz").write_bytes(b"edited since")
    shutil.copy(place / "in" / "c.nii.gz", place / "in" / "a.nii.gz")
    shutil.copy(place / "in" / "c.nii.gz", place / "in" / "b.nii.gz")
    again(place, Listener(), probabilities=False)
    kept = {path.name for path in (place / "out").glob("[ab]*")}
    assert kept == {"a.nii.gz", "b.nii.gz", "b_entropy.nii.gz"}
    (place / "in" / "a.nii.gz").write_bytes(b"cut off")
    failed = again(place, Listener(), probabilities=False)[0]
    assert "Results of an earlier file of this name are still in" in str(failed.error)


def test_a_scan_that_shows_nothing_is_refused_and_a_single_slice_is_told(place: Path) -> None:
    import nibabel as nib

    image = nib.load(place / "in" / "a.nii.gz")
    values = np.asarray(image.dataobj)
    nib.save(nib.Nifti1Image(np.full_like(values, 7), image.affine), place / "in" / "a.nii.gz")
    nib.save(nib.Nifti1Image(values[..., values.shape[2] // 2, None], image.affine), place / "in" / "b.nii.gz")
    found = {scan.case: scan for scan in again(place, Listener())}
    assert "every voxel has one value, so it shows nothing" in str(found["a"].error)
    assert any("single slice" in text for text in found["b"].warnings)
    assert not any("single slice" in text for text in found["c"].warnings)


def test_a_channel_that_shows_nothing_is_told() -> None:
    scan = Case(case="s", subject="s", images={"t1": Path("s_t1.nii.gz"), "t2": Path("s_t2.nii.gz")})
    array = np.zeros((2, *SHAPE), np.float32)
    array[0, 1] = 1
    loaded = LoadedImages(Volume(array, Grid(SHAPE, np.eye(4))), ("t1", "t2"), ())
    assert _showing_nothing(scan, loaded) == ["s_t2.nii.gz: every voxel has one value, so t2 shows nothing."]


def test_two_results_of_one_name_are_refused(place: Path) -> None:
    scans = sorted((place / "in").iterdir())
    scans[1].rename(place / "in" / scans[0].name.replace(".nii", "_entropy.nii"))
    options = PredictOptions(uncertainty=True)
    with pytest.raises(InputError, match="the results of two scans would have this name"):
        predict_scans(place / "run", place / "in", place / "out", device="cpu", options=options)
