"""New scans predicted by the networks of some folds: as by a run that has no others, and the rest need not be there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from assembled_run import assembled, with_one_fold
from fault_scene import Done
from neoseg.errors import ConfigError, StateError
from neoseg.pipeline.load_run import UNTUNED, load_predictor
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.pipeline.session import Session

Command = Callable[..., Done]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, Path]:
    """A run of two folds and a folder with a scan."""
    return assembled(tmp_path_factory.mktemp("made"), ["a"])


@pytest.mark.parametrize("index", [0, 1])
def test_one_fold_predicts_what_a_run_with_this_fold_alone_predicts(
    made: tuple[Session, Path], index: int, tmp_path: Path
) -> None:
    run, scans = made[0].run.folder, made[1]
    alone, found = with_one_fold(run, tmp_path / "alone", index), {}
    given = {"some": (run, (index,)), "alone": (alone, None), "all": (run, None)}
    for name, (folder, folds) in given.items():
        options, target = PredictOptions(folds=folds), tmp_path / f"by_{name}"
        (done,) = predict_scans(folder, scans, target, device="cpu", probabilities=True, options=options)
        assert done.error is None
        found[name] = [(target / file).read_bytes() for file in ("a.nii.gz", "a_probability_ball.nii.gz")]
    assert found["some"] == found["alone"]
    assert found["some"][1] != found["all"][1]


def test_the_other_folds_need_not_be_there(made: tuple[Session, Path], tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(made[0].run.folder, copy, ignore=shutil.ignore_patterns("fold0"))
    assert len(load_predictor(copy, "cpu", folds=[1])[0].ensemble.networks) == 1
    with pytest.raises(StateError, match="fold0"):
        load_predictor(copy, "cpu")


def test_a_run_that_has_not_predicted_its_own_cases_predicts_by_named_folds_and_says_so(
    made: tuple[Session, Path], tmp_path: Path
) -> None:
    copy, (run, scans) = tmp_path / "run", (made[0].run.folder, made[1])
    left_out = shutil.ignore_patterns("fold1", "postprocess.json", "predict.json")
    shutil.copytree(run, copy, ignore=left_out)
    with pytest.raises(StateError, match=r"has not predicted its own cases yet.*--folds 0"):
        predict_scans(copy, scans, tmp_path / "out", device="cpu")
    options = PredictOptions(folds=(0,))
    (untuned,) = predict_scans(copy, scans, tmp_path / "out", device="cpu", options=options)
    assert UNTUNED in untuned.warnings
    # what was chosen for the whole run is 0.5, and no smallest lesion
    (tuned,) = predict_scans(run, scans, tmp_path / "tuned", device="cpu", options=options)
    assert UNTUNED not in tuned.warnings
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == (tmp_path / "tuned" / "a.nii.gz").read_bytes()


@pytest.mark.parametrize(("folds", "said"), [((2,), "fold 2 was asked for"), ((), "no fold was asked for")])
def test_folds_that_are_not_of_the_run_are_refused(
    made: tuple[Session, Path], folds: tuple[int, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=rf"{said}, but this run has the folds 0, 1"):
        predict_scans(made[0].run.folder, made[1], tmp_path / "out", options=PredictOptions(folds=folds))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_another_choice_of_folds_predicts_anew(made: tuple[Session, Path], tmp_path: Path) -> None:
    found = []
    for folds in ((0,), (1,)):
        predict_scans(
            made[0].run.folder,
            made[1],
            tmp_path,
            device="cpu",
            probabilities=True,
            options=PredictOptions(folds=folds),
        )
        found.append((tmp_path / "a_probability_ball.nii.gz").read_bytes())
    assert found[0] != found[1]


def test_the_command_takes_folds_for_new_scans_alone(
    made: tuple[Session, Path], neoseg: Command, tmp_path: Path
) -> None:
    run, scans = str(made[0].run.folder), str(made[1])
    done = neoseg("predict", str(made[0].config.cases.parent / "neoseg.toml"), "--folds", "0")
    assert (done.code, "--folds" in done.err) == (2, True)
    done = neoseg("predict", run, "-i", scans, "-o", str(tmp_path / "o"), "--folds", "0,1", "--device", "cpu")
    assert done.code == 0
    assert (tmp_path / "o" / "a.nii.gz").is_file()
    done = neoseg("predict", run, "-i", scans, "-o", str(tmp_path / "p"), "--folds", "x")
    assert (done.code, "--folds x" in done.err) == (2, True)
