"""`neoseg evaluate --truth --prediction`: any program's masks, paired by name, with and without an official scorer."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
from PIL import Image

from fault_scene import Done
from neoseg.data.layouts import ImportOptions
from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.metrics.presets import bonbid
from neoseg.pipeline.evaluate_folders import evaluate_folders
from neoseg.progress import Silent

SPACING = (1.5, 1.25, 4.0)


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (20, 24, 12)], indexing="ij"), axis=-1)
    return (np.linalg.norm((index - centre) * (1, 1, 2), axis=-1) < radius).astype(np.uint8)


def write(path: Path, array: np.ndarray, spacing: tuple[float, ...] = SPACING) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(np.transpose(array, (2, 1, 0)))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    pairs = {
        "MGHNICU_010-VISIT_01": (ball((9, 11, 6), 5), ball((10, 11, 6), 5)),
        "MGHNICU_011-VISIT_01": (ball((9, 11, 6), 4), ball((9, 11, 6), 4) * 0),
        "MGHNICU_012-VISIT_01": (ball((9, 11, 6), 4) * 0, ball((9, 11, 6), 4) * 0),
    }
    for name, (a, b) in pairs.items():
        write(truth / f"{name}_lesion.mha", a)
        write(prediction / f"{name}.mha", b)
    return truth, prediction


def test_the_preset_equals_the_function_and_the_aggregates_state_what_is_undefined(folders: tuple[Path, Path]) -> None:
    table = evaluate_folders(*folders, preset="bonbid", progress=Silent())
    expected = bonbid(ball((9, 11, 6), 5), ball((10, 11, 6), 5), SPACING)
    assert table["cases"]["MGHNICU_010-VISIT_01"] == pytest.approx(expected)
    assert table["cases"]["MGHNICU_011-VISIT_01"] == {"dice": 0.0, "masd": None, "nsd": 0.0}
    assert table["cases"]["MGHNICU_012-VISIT_01"] == {"dice": 1.0, "masd": 0.0, "nsd": 1.0}
    masd = table["summary"]["masd"]
    assert (masd["n"], masd["n_undefined"]) == (3, 1)
    diagonal = float(np.linalg.norm(np.array((20, 24, 12)) * SPACING))
    assert masd["mean_worst"] == pytest.approx((expected["masd"] + 0 + diagonal) / 3)
    assert masd["mean"] == pytest.approx(expected["masd"] / 2)


def test_the_command_prints_writes_and_exits_well(folders: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ["evaluate", "--truth", str(folders[0]), "--prediction", str(folders[1]), "--quiet"]
    run = [sys.executable, "-m", "neoseg", *arguments]
    done = subprocess.run([*run, "--json", "-o", str(tmp_path / "s.csv")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    common = np.count_nonzero(ball((9, 11, 6), 5) & ball((10, 11, 6), 5))
    dice = common / np.count_nonzero(ball((9, 11, 6), 5))
    assert table["cases"]["MGHNICU_010-VISIT_01"]["dice"] == pytest.approx(dice, abs=0.02)
    with (tmp_path / "s.csv").open() as stream:
        assert {row["case"] for row in csv.DictReader(stream)} == set(table["cases"])
    assert subprocess.run([*run, "--preset", "bonbdi"], capture_output=True, check=False).returncode == 2
    done = subprocess.run([*run, "--preset", "bonbid"], capture_output=True, text=True, check=False)
    assert "dice" in done.stdout and "undefined 1" in done.stdout


def test_other_formats_of_the_same_masks_give_the_same_scores(folders: tuple[Path, Path], tmp_path: Path) -> None:
    affine = np.diag([-1.5, -1.25, 4.0, 1.0])
    for path in folders[1].iterdir():
        array = np.transpose(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), (2, 1, 0))
        (tmp_path / "nifti").mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), tmp_path / "nifti" / f"{path.stem}.nii.gz")
    first = evaluate_folders(*folders, progress=Silent())
    second = evaluate_folders(folders[0], tmp_path / "nifti", progress=Silent())
    assert first["cases"]["MGHNICU_010-VISIT_01"] == pytest.approx(second["cases"]["MGHNICU_010-VISIT_01"])


def test_a_missing_prediction_is_no_silent_gap(folders: tuple[Path, Path]) -> None:
    (folders[1] / "MGHNICU_011-VISIT_01.mha").unlink()
    with pytest.raises(InputError, match=r"1 of 3 references have no prediction.*MGHNICU_011"):
        evaluate_folders(*folders, progress=Silent())


def test_other_grids_and_other_values_are_told(folders: tuple[Path, Path]) -> None:
    path = folders[1] / "MGHNICU_010-VISIT_01.mha"
    write(path, ball((10, 11, 6), 5), (1.5, 1.25, 3.0))
    with pytest.raises(GeometryError, match="resample"):
        evaluate_folders(*folders, progress=Silent())
    assert "grids differ" in evaluate_folders(*folders, preset="bonbid", progress=Silent())["notes"][0]
    write(path, ball((10, 11, 6), 5) * 255)
    with pytest.raises(InputError, match=r"predictions hold the values \[255\.0\], but the references \[1\.0\]"):
        evaluate_folders(*folders, progress=Silent())


def test_one_class_that_is_1_here_and_255_there_is_refused(tmp_path: Path) -> None:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    masks = {"a": ball((6, 11, 6), 4), "b": ball((14, 11, 6), 4) * 255, "none": ball((6, 11, 6), 4) * 0}
    for name, mask in masks.items():
        write(truth / f"{name}.mha", mask)
        write(prediction / f"{name}.mha", (mask > 0) * np.uint8(255))
    with pytest.raises(InputError, match=r"1 references hold only the value 1 \(a\.mha\) and 1 only the value 255"):
        evaluate_folders(truth, prediction, progress=Silent())
    write(truth / "c.mha", masks["a"] + masks["b"])  # both in one mask are two classes
    write(prediction / "c.mha", masks["a"] + masks["b"])
    assert evaluate_folders(truth, prediction, progress=Silent())["cases"]["c"]["dice.255"] == 1


def test_a_file_in_the_place_of_a_folder_is_called_one(folders: tuple[Path, Path]) -> None:
    file = folders[0] / "MGHNICU_010-VISIT_01_lesion.mha"
    with pytest.raises(InputError, match=r"this is a file, and a folder of masks is wanted; give its folder"):
        evaluate_folders(file, folders[1], progress=Silent())


def test_a_class_is_scored_in_every_case_also_where_the_reference_lacks_it(tmp_path: Path) -> None:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    one, two = ball((6, 11, 6), 4), ball((14, 11, 6), 4)
    masks = {"both": (one + 2 * two, one + 2 * two), "one": (one, one + 2 * two), "none": (one * 0, one * 3)}
    for name, (a, b) in masks.items():
        write(truth / f"{name}.mha", a)
        write(prediction / f"{name}.mha", b)
    table = evaluate_folders(truth, prediction, progress=Silent())
    dice = {name: [case.get(f"dice{end}") for end in (".1", ".2", ".3")] for name, case in table["cases"].items()}
    empty = evaluate_folders(truth, truth, progress=Silent())["cases"]["none"]["dice.1"]  # by the rule for empty masks
    assert dice == {"both": [1.0, 1.0, empty], "one": [1.0, 0.0, empty], "none": [empty, empty, 0.0]}
    assert [note for note in table["notes"] if "[3.0]" in note and "count as false" in note]
    held = {key: row.get("where_held", {}) for key, row in table["summary"].items()}
    assert [held[f"dice.{value}"]["n"] for value in (1, 2, 3)] == [2, 1, 0]
    assert [held[f"dice.{value}"]["mean"] for value in (1, 2, 3)] == [1.0, 1.0, None]
    assert not held["volume_difference.1"] and "dice.1" in table["summary"]
    whole = evaluate_folders(*(masked(tmp_path / part, "both") for part in ("truth", "prediction")))
    assert "where_held" not in whole["summary"]["dice.1"]


def masked(folder: Path, name: str) -> Path:
    """Return a folder with one of the masks of another."""
    (one := folder.with_name(f"{folder.name}_{name}")).mkdir()
    shutil.copy(folder / f"{name}.mha", one)
    return one


def test_one_class_may_be_written_as_255_where_a_reference_is_empty(tmp_path: Path) -> None:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    for name, reference in (("a", ball((9, 11, 6), 4) * 255), ("b", ball((9, 11, 6), 4) * 0)):
        write(truth / f"{name}.mha", reference)
        write(prediction / f"{name}.mha", ball((9, 11, 6), 4) * 255)
    table = evaluate_folders(truth, prediction, progress=Silent())
    assert [table["cases"][name]["dice"] for name in "ab"] == [1.0, 0.0]
    (truth / "a.mha").unlink()
    alone = evaluate_folders(truth, prediction, progress=Silent())
    assert alone["cases"]["b"]["dice"] == 0.0


def test_the_edge_of_a_tolerance_does_not_depend_on_how_the_head_lay(tmp_path: Path) -> None:
    """A direction is written with rounded digits, so its columns are not quite of length 1; the spacing is exact."""
    one, two = ball((9, 11, 6), 5), ball((10, 11, 6), 5)
    found = {}
    for name, (c, s) in {"straight": (1.0, 0.0), "oblique": (0.800001, 0.6)}.items():
        for kind, array in (("truth", one), ("prediction", two)):
            image = sitk.GetImageFromArray(np.transpose(array, (2, 1, 0)))
            image.SetSpacing((2.0, 2.0, 2.0))
            image.SetDirection((c, -s, 0.0, s, c, 0.0, 0.0, 0.0, 1.0))
            (tmp_path / name / kind).mkdir(parents=True)
            sitk.WriteImage(image, str(tmp_path / name / kind / "a.mha"))
        folders = tmp_path / name / "truth", tmp_path / name / "prediction"
        found[name] = evaluate_folders(*folders, preset="bonbid")["cases"]["a"]["nsd"]
    assert found == {"straight": 1.0, "oblique": 1.0}


@pytest.mark.parametrize(("value", "told"), [(0.25, r"0\.25"), (np.nan, "nan")])
@pytest.mark.parametrize("side", [0, 1])
def test_a_map_of_probabilities_is_no_mask(folders: tuple[Path, Path], side: int, value: float, told: str) -> None:
    path = sorted(folders[side].iterdir())[0]
    values = ball((9, 11, 6), 5).astype(np.float32)
    values[:4] = value
    write(path, values)
    with pytest.raises(InputError, match=rf"{path.name}: .* value {told}, but a mask holds whole numbers; threshold"):
        evaluate_folders(*folders)


def test_a_preset_takes_no_other_tolerance_and_names_the_file(
    folders: tuple[Path, Path], neoseg: Callable[..., Done]
) -> None:
    arguments = ("evaluate", "--truth", str(folders[0]), "--prediction", str(folders[1]), "-q", "--tolerance-mm", "1")
    assert neoseg(*arguments).code == 0
    done = neoseg(*arguments, "--preset", "bonbid")
    assert done.code == 2 and "a preset has its own tolerance; leave out --tolerance-mm" in done.err
    with pytest.raises(ConfigError, match="own tolerance"):
        evaluate_folders(*folders, preset="bonbid", tolerance_mm=2.0)
    write(folders[1] / "MGHNICU_011-VISIT_01.mha", ball((9, 11, 6), 5)[:10])
    with pytest.raises(GeometryError, match=r"MGHNICU_011-VISIT_01\.mha: The truth has the shape"):
        evaluate_folders(*folders, preset="bonbid")


def test_intervals_draw_subjects_that_the_names_tell(tmp_path: Path, neoseg: Callable[..., Done]) -> None:
    # three visits of two children each, alike within a child: two draws, and not six
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    for child, centre in (("A", 9), ("B", 13)):
        for visit in "123":
            write(truth / f"{child}-{visit}.mha", ball((9, 11, 6), 5))
            write(prediction / f"{child}-{visit}.mha", ball((centre, 11, 6), 5))
    apart = evaluate_folders(truth, prediction)["summary"]["dice"]
    together = evaluate_folders(truth, prediction, options=ImportOptions(subject_pattern="^[AB]"))
    low, high = together["summary"]["dice"]["interval"]
    assert (low, high) == pytest.approx((min(dice := each_dice(together)), max(dice)))
    assert low < apart["interval"][0] < apart["interval"][1] < high
    assert together["summary"]["dice"]["mean"] == apart["mean"]
    assert together["notes"] == ["The 6 cases are of 2 subjects; intervals draw subjects."]
    words = ("evaluate", "--truth", str(truth), "--prediction", str(prediction), "--subject-pattern")
    wrong = neoseg(*words, "(")
    assert wrong.code == 2
    assert "--subject-pattern '('" in wrong.err
    assert f"({low:.4f} to {high:.4f})" in neoseg(*words, "^[AB]").out


def each_dice(table: dict[str, Any]) -> list[float]:
    return [scores["dice"] for scores in table["cases"].values()]


def test_many_values_are_asked_about_and_instances_are_one_class(tmp_path: Path) -> None:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    numbers = np.zeros((20, 24, 12), np.uint16)
    numbers[:2, :, 0] = 231 + np.arange(48).reshape(2, 24)  # 255 is among them
    write(truth / "a_masks.mha", numbers)
    found = (numbers > 0).astype(np.uint8) * 255
    found[0] = 0
    write(prediction / "a.mha", found)
    with pytest.raises(InputError, match=r"truth: the labels hold 48 different values .*--masks instances"):
        evaluate_folders(truth, prediction)
    assert len(evaluate_folders(truth, prediction, options=ImportOptions(masks="classes"))["cases"]["a"]) > 48
    together = evaluate_folders(truth, prediction, options=ImportOptions(masks="instances"))["cases"]["a"]
    assert together["dice"] == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="--masks instances: a preset knows"):
        evaluate_folders(truth, prediction, preset="bonbid", options=ImportOptions(masks="instances"))


def test_predictions_that_number_instances_are_asked_about(tmp_path: Path) -> None:
    truth, prediction = tmp_path / "truth", tmp_path / "prediction"
    numbers = np.zeros((20, 24, 12), np.uint8)
    for index in range(25):
        numbers[index % 5 * 4, index // 5 * 4, 5] = index + 1
    write(truth / "a.mha", (numbers > 0).astype(np.uint8))
    write(prediction / "a.mha", numbers)
    with pytest.raises(InputError, match=r"prediction: the labels hold 25 different values .*--masks instances"):
        evaluate_folders(truth, prediction)
    write(prediction / "a.mha", np.minimum(numbers, 3))
    with pytest.raises(InputError, match=r"prediction: the predictions hold 3 values .*--masks instances"):
        evaluate_folders(truth, prediction)
    together = evaluate_folders(truth, prediction, options=ImportOptions(masks="instances"))
    assert together["cases"]["a"]["dice"] == 1 and any("touch" in note for note in together["notes"])


def test_each_of_several_classes_is_called_by_its_value(tmp_path: Path) -> None:
    mask = np.zeros((20, 24, 12), np.uint8)
    mask[:4, :4, :4], mask[8:12, :4, :4] = 1, 2
    for folder in ("truth", "prediction"):
        write(tmp_path / folder / "a.mha", mask)
    found = evaluate_folders(tmp_path / "truth", tmp_path / "prediction")
    assert found["cases"]["a"]["dice.1"] == found["cases"]["a"]["dice.2"] == 1
    assert "dice" not in found["summary"]


def test_a_preset_scores_volumes(tmp_path: Path) -> None:
    for part in ("truth", "prediction"):
        (tmp_path / part).mkdir()
        Image.fromarray(np.eye(9, dtype=np.uint8)).save(tmp_path / part / "a.png")
    with pytest.raises(ConfigError, match=r"a\.png is a picture, and presets score volumes"):
        evaluate_folders(tmp_path / "truth", tmp_path / "prediction", preset="bonbid")


def test_pictures_beside_volumes_are_told(tmp_path: Path) -> None:
    mask = np.zeros((20, 24, 12), np.uint8)
    mask[:4, :4, :4] = 1
    for folder in ("truth", "prediction"):
        write(tmp_path / folder / "a.mha", mask)
    Image.fromarray(mask[..., 0]).save(tmp_path / "truth" / "view.png")
    notes = evaluate_folders(tmp_path / "truth", tmp_path / "prediction")["notes"]
    assert [note for note in notes if "1 picture beside volumes such as a.mha not scored" in note]


@pytest.mark.parametrize("name", ["truth/MGHNICU_010-VISIT_01_lesion.mha", "new.nii.gz", "cases.csv"])
def test_scores_replace_nothing_but_scores(folders: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    (tmp_path / "cases.csv").write_text("case,label\na,b\n", encoding="utf-8")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=r"end it in \.csv|holds no scores is there"):
        evaluate_folders(*folders, output=tmp_path / name)
    assert before == {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    for _ in range(2):
        evaluate_folders(*folders, output=tmp_path / "scores.csv")
