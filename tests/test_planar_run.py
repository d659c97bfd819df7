"""Pictures from end to end: discs on noise, some grey and some in colour, through every command."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - the name that its documentation uses
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from fault_scene import Done
from neoseg.config import load_config
from neoseg.data.layouts import ImportOptions
from neoseg.errors import ConfigError, InputError
from neoseg.inference.ensemble import Ensemble
from neoseg.inference.memory import MemoryUse
from neoseg.inference.sliding_window import predict_probabilities
from neoseg.networks.configs import required_multiple
from neoseg.pipeline import load_run, report
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.plan import plan
from neoseg.pipeline.predict import _predict_case as predict_case
from neoseg.pipeline.predict import predict
from neoseg.pipeline.prepared import PreparedCase
from neoseg.pipeline.run import run, run_stage
from neoseg.pipeline.session import open_session
from neoseg.pipeline.train import train
from neoseg.progress import Silent
from neoseg.report.summary import summarise
from neoseg.training import validation
from small_run import read

Neoseg = Callable[..., Done]

CHANGES = (
    "folds.count=2",
    "threads=1",
    "plan.patch=[32, 32]",
    "training.steps=4",
    "training.steps_per_epoch=2",
    "training.batch_size=2",
    'network.kind="unetr_pp"',
    "network.dims=[8, 16, 32]",
    "network.depths=[1, 1, 1]",
    "network.proj=[8, 8, 8]",
    "network.decoder_proj=8",
    "network.feature_size=8",
    "evaluate.resamples=100",
)
SETS = tuple(part for change in CHANGES for part in ("--set", change))
SIZES = ((40, 28), (28, 44), (50, 33))
"""Columns and rows: no picture is a square, and none is a multiple of anything."""


def disc(size: tuple[int, int], generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return a grey picture and its mask, both (rows, columns)."""
    columns, rows = size
    y, x = np.mgrid[:rows, :columns]
    centre = generator.uniform(8, columns - 8), generator.uniform(8, rows - 8)
    mask = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < generator.uniform(4, 7) ** 2
    return np.clip(generator.normal(90, 12, mask.shape) + 80 * mask, 0, 255).astype(np.uint8), mask


def write_discs(folder: Path, count: int = 8, *, colour: bool = True) -> Path:
    """Write pictures of two a patient; every third is in colour."""
    generator = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, mask = disc(SIZES[number % 3], generator)
        seen = np.stack([image, image // 2, 255 - image], axis=-1) if colour and number % 3 == 0 else image
        name = f"p{number // 2}-{number}.png"
        Image.fromarray(seen).save(folder / "images" / name)
        Image.fromarray((255 * mask).astype(np.uint8)).save(folder / "masks" / name)
    return folder


def imported(root: Path) -> Path:
    return import_folder(root / "data", root / "work", options=ImportOptions(subject_pattern=r"^p\d")).config


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and a finished run in ``work``."""
    root = tmp_path_factory.mktemp("pictures")
    write_discs(root / "data")
    run(load_config(imported(root), CHANGES))
    return root


def rows_of(root: Path) -> list[dict[str, str]]:
    with (root / "work" / "runs" / "default" / "scores.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_the_best_epoch_is_chosen_by_whole_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_discs(tmp_path / "data")
    seen: dict[tuple[int, ...], tuple[int, ...]] = {}

    def watched(*given: Any, patch: tuple[int, ...], **rest: Any) -> Tensor:
        seen[given[1].shape[1:]] = patch
        return predict_probabilities(*given, patch=patch, **rest)

    monkeypatch.setattr(validation, "predict_probabilities", watched)
    changes = (*CHANGES[1:6], "folds.count=4", 'network={kind="unet"}', "training.validate_whole=true")
    session = open_session(load_config(imported(tmp_path), changes))
    for stage in ("check", "plan", "prepare", "train"):
        run_stage(session, stage)
    multiple = required_multiple(session.plan.network)
    assert session.plan.spacing_mm == (0.5, 0.5), "discs are small, so the network sees finer pixels"
    assert set(seen) == {(2 * columns, 2 * rows) for columns, rows in SIZES}
    for size, window in seen.items():
        assert all(n <= w < n + m and w % m == 0 for n, w, m in zip(size, window, multiple, strict=True))


@pytest.mark.parametrize("scales", ["", "training.patch_scales=[0.75, 1]"])
def test_a_network_that_learns_places_is_warned_of_whole_pictures(
    scales: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_discs(tmp_path / "data")
    told: list[str] = []
    listener = Silent()
    monkeypatch.setattr(listener, "say", told.append)
    changes = (*CHANGES, 'network.size="flex"', "window.whole=true", "training.steps=1", *filter(None, [scales]))
    session = open_session(load_config(imported(tmp_path), changes), listener)
    for stage in ("check", "plan", "prepare", "train"):
        run_stage(session, stage)
    warned = [text for text in told if "learns the places of its patches, all of one size" in text]
    assert len(warned) == (0 if scales else 1)


def test_pictures_with_one_file_a_channel(tmp_path: Path) -> None:
    data, new = write_discs(tmp_path / "data", colour=False), tmp_path / "new"
    new.mkdir()
    for file in sorted((data / "images").iterdir()):
        grey = np.asarray(Image.open(file))
        file.unlink()
        for folder in (data / "images", new):
            for number, values in enumerate((grey, 255 - grey)):
                Image.fromarray(values).save(folder / f"{file.stem}_000{number}.png")
    run(load_config(imported(tmp_path), CHANGES))
    (new / "p0-1_0001.png").unlink()
    found = predict_scans(tmp_path / "work" / "runs" / "default", new, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.png")) == [
        f"p{number // 2}-{number}.png" for number in (0, *range(2, 8))
    ]
    (lacking,) = [scan for scan in found if scan.mask is None]
    assert lacking.case == "p0-1" and "lacks ['channel_1']" in (lacking.error or "")


def test_pictures_of_a_camera_get_masks_as_png(pictures: Path, tmp_path: Path) -> None:
    generator, new = np.random.default_rng(5), tmp_path / "new"
    new.mkdir()
    image, _ = disc(SIZES[1], generator)
    Image.fromarray(np.stack([image] * 3, axis=-1)).save(new / "a.jpg", quality=95)
    Image.fromarray(image).save(new / "b.BMP")
    target = pictures / "work" / "runs" / "default"
    for source in (new, new / "a.jpg"):
        with pytest.raises(InputError, match=r"masks there would be taken for pictures the next time; give another"):
            predict_scans(target, source, new)
    found = predict_scans(target, new, tmp_path / "out", probabilities=True)
    assert [one.error for one in found] == [None, None]
    names = ("a.png", "a_probability_foreground.tif", "b.png", "b_probability_foreground.tif")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [*names, "predictions.json"]
    for name in names:
        with Image.open(tmp_path / "out" / name) as mask:
            assert mask.size == SIZES[1]


@pytest.mark.slow
def test_a_run_on_pictures_of_a_camera(tmp_path: Path) -> None:
    write_discs(tmp_path / "data")
    for path in (tmp_path / "data" / "images").iterdir():
        with Image.open(path) as image:
            image.save(path.with_suffix(".jpg"), quality=95)
        path.unlink()
    summary = run(load_config(imported(tmp_path), (*CHANGES[:6], 'network={kind="unet"}')))
    assert summary["cv"]["dice"]["n"] == 8
    masks = [p for p in (tmp_path / "work" / "runs" / "default" / "predictions").rglob("p*") if p.is_file()]
    assert {p.suffix for p in masks} == {".png"} and len(masks) == 8
    assert (tmp_path / "work" / "runs" / "default" / "report.html").is_file()


def test_the_network_follows_the_images_and_small_discs_get_finer_pixels(pictures: Path) -> None:
    plan = read(pictures / "work" / "plan.json")
    assert plan["network"]["spatial_dims"] == 2
    assert plan["spacing_mm"] == [0.5, 0.5]
    assert plan["channels"] == ["red", "green", "blue"]
    assert set(plan["rules"].values()) == {"case"}
    assert not any(" mm" in reason["why"] + reason["inputs"] for reason in plan["reasons"])
    session = open_session(load_config(pictures / "work" / "neoseg.toml", CHANGES))
    prepared = PreparedCase(session.store, "p0-0")
    assert prepared.image.shape == (3, 80, 56)
    # a disc keeps its share of the picture
    assert np.mean(prepared.label) == pytest.approx(np.mean(prepared.truth), rel=0.03)


def test_the_pixels_of_the_pictures_are_kept_where_they_are_given(tmp_path: Path) -> None:
    write_discs(tmp_path / "data")
    session = open_session(load_config(imported(tmp_path), (*CHANGES, "plan.spacing_mm=[1, 1]")))
    for stage in ("check", "plan", "prepare"):
        run_stage(session, stage)
    prepared = PreparedCase(session.store, "p0-0")
    assert prepared.image.shape == (3, 40, 28)
    # the standard score over all pixels of the picture itself
    np.testing.assert_allclose(np.asarray(prepared.image).mean(axis=(1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(np.asarray(prepared.image).std(axis=(1, 2)), 1, atol=1e-5)


def test_a_third_axis_to_mirror_is_refused_before_the_plan_the_training_and_a_prediction(pictures: Path) -> None:
    config = load_config(pictures / "work" / "neoseg.toml", (*CHANGES, "window.mirror_axes=[0, 2]"))
    session = open_session(config)
    for stage in (lambda: plan(session), lambda: train(session, key="another"), lambda: predict(session)):
        with pytest.raises(ConfigError, match=r"window\.mirror_axes = \[0, 2\]: the images have 2 axes"):
            stage()


def test_patients_are_on_one_side_of_every_fold(pictures: Path) -> None:
    for fold in read(pictures / "work" / "folds.json")["folds"]:
        sides = [{name[:2] for name in fold[part]} for part in ("train", "inner", "validation")]
        assert not sides[0] & sides[2] and not sides[1] & sides[2] and not sides[0] & sides[1]


def test_every_picture_gets_a_mask_of_its_size_with_the_stored_values(pictures: Path) -> None:
    masks = sorted((pictures / "work" / "runs" / "default" / "predictions" / "cv").glob("*"))
    assert [p.name for p in masks] == [p.name for p in sorted((pictures / "data" / "images").iterdir())]
    for path in masks:
        with Image.open(path) as mask, Image.open(pictures / "data" / "images" / path.name) as image:
            assert mask.size == image.size
            assert mask.mode == "L"
            assert set(np.unique(np.asarray(mask))) <= {0, 255}


def test_scores_are_in_pixels_and_right(pictures: Path) -> None:
    rows = rows_of(pictures)
    assert {row["unit"] for row in rows} == {"ratio", "px", "px²", "count"}
    for name in {row["case"] for row in rows}:
        truth = np.asarray(Image.open(pictures / "data" / "masks" / f"{name}.png")) > 0
        folder = pictures / "work" / "runs" / "default" / "predictions" / "cv"
        found = np.asarray(Image.open(folder / f"{name}.png")) > 0
        own = {row["metric"]: row for row in rows if row["case"] == name}
        assert float(own["volume_difference"]["value"]) == pytest.approx(found.sum() - truth.sum())
        assert float(own["volume_difference"]["worst"]) == pytest.approx(truth.size)
        assert float(own["dice"]["value"]) == pytest.approx(2 * (truth & found).sum() / (truth.sum() + found.sum()))
        assert float(own["hd95"]["worst"]) == pytest.approx(np.hypot(*truth.shape))


def test_two_pictures_a_patient_are_drawn_together_and_each_patient_counts_once(pictures: Path, neoseg: Neoseg) -> None:
    dice = {row["case"]: float(row["value"]) for row in rows_of(pictures) if row["metric"] == "dice"}
    numbers = read(pictures / "work" / "runs" / "default" / "summary.json")["cv"]
    assert (numbers["cases"], numbers["subjects"]) == (8, 4)
    whose = [name[:2] for name in dice]
    drawn = summarise(
        list(dice.values()), [0.0] * 8, generator=np.random.default_rng([0, 2]), resamples=100, subjects=whose
    )
    assert numbers["dice"] == drawn.to_json()
    means = [np.mean([d for name, d in dice.items() if name[:2] == one]) for one in set(whose)]
    assert numbers["dice_by_subject"]["n"] == 4
    assert numbers["dice_by_subject"]["mean"] == pytest.approx(np.mean(means))
    page = (pictures / "work" / "runs" / "default" / "report.html").read_text(encoding="utf-8")
    assert "8 cases of 4 subjects." in page
    done = neoseg("report", str(pictures / "work" / "neoseg.toml"), *SETS)
    assert done.code == 0, done.err
    assert "  mean over 4 subjects: Dice " in done.out


def test_the_summary_names_areas_by_their_unit(pictures: Path) -> None:
    numbers = read(pictures / "work" / "runs" / "default" / "summary.json")["cv"]
    units = {name: found["unit"] for name, found in numbers["metrics"].items()}
    assert units["foreground.volume difference"] == "px²" and units["foreground.HD95"] == "px"
    assert set(units.values()) <= {"", "px", "px²", "count"}
    assert "px²" in numbers["detail"] and "mm" not in numbers["detail"]


def test_the_page_speaks_of_areas_in_pixels(pictures: Path) -> None:
    page = (pictures / "work" / "runs" / "default" / "report.html").read_text(encoding="utf-8")
    assert "px²" in page and "spacing (px)" in page and "share of the image" in page
    body = page.partition('id="configuration"')[0]
    for wrong in (" mL", "mm³", " mm<", "(mm)", "radiological", "brain"):
        assert wrong not in body, wrong
    assert "grey stands for red, green and blue alike" in page


@pytest.mark.parametrize("kind", ["grey", "colour", "tiff"])
def test_a_new_picture_is_predicted_on_its_own_size(pictures: Path, tmp_path: Path, neoseg: Neoseg, kind: str) -> None:
    image, _ = disc((37, 61), np.random.default_rng(5))
    source = tmp_path / ("new.tif" if kind == "tiff" else "new.png")
    Image.fromarray(np.stack([image, image // 2, image], axis=-1) if kind == "colour" else image).save(source)
    target = str(pictures / "work" / "runs" / "default")
    done = neoseg("predict", target, "--input", str(source), "--output", str(tmp_path / "out"), "--probabilities", "-q")
    assert done.code == 0, done.err
    assert "px²" in done.out and "mL" not in done.out
    with Image.open(tmp_path / "out" / source.name) as mask:
        assert (mask.size, mask.mode) == ((37, 61), "L")
    with Image.open(tmp_path / "out" / "new_probability_foreground.tif") as map_of:
        assert (map_of.size, map_of.mode) == ((37, 61), "F")


def test_a_black_picture_gets_a_mask(pictures: Path, tmp_path: Path, neoseg: Neoseg) -> None:
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "black.png")
    target = str(pictures / "work" / "runs" / "default")
    done = neoseg("predict", target, "--input", str(tmp_path / "black.png"), "--output", str(tmp_path / "out"), "-q")
    assert done.code == 0, done.err
    with Image.open(tmp_path / "out" / "black.png") as mask:
        assert mask.size == (30, 20)


def test_an_image_in_mm_is_refused_by_a_run_in_pixels(pictures: Path, tmp_path: Path, neoseg: Neoseg) -> None:
    image = sitk.GetImageFromArray(disc((30, 20), np.random.default_rng(1))[0])
    image.SetSpacing((0.1, 0.1))
    for colour in ("red", "green", "blue"):
        sitk.WriteImage(image, str(tmp_path / f"new_{colour}.mha"))
    target = str(pictures / "work" / "runs" / "default")
    done = neoseg("predict", target, "--input", str(tmp_path), "--output", str(tmp_path / "out"), "-q")
    assert done.code == 2
    assert "the size of its voxels is in mm, but the plan was made for images in px" in done.out
    assert not (tmp_path / "out" / "new.mha").exists()


def test_two_pictures_of_one_name_are_refused(pictures: Path, tmp_path: Path, neoseg: Neoseg) -> None:
    for name in ("a.png", "a.tif"):
        Image.fromarray(disc((30, 20), np.random.default_rng(1))[0]).save(tmp_path / name)
    target = str(pictures / "work" / "runs" / "default")
    done = neoseg("predict", target, "--input", str(tmp_path), "--output", str(tmp_path / "out"), "-q")
    assert done.code == 2
    assert "a.tif: a.png is a scan of the same name; rename one of them" in done.err


def test_a_picture_in_mm_is_shown_as_its_file_has_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ITK's axes run to the left and to the back of a patient: read, they are turned, and the panel turns them back."""
    for name in ("images", "masks"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for file in sorted((pictures / "data" / name).iterdir()):
            with Image.open(file) as found:
                image = sitk.GetImageFromArray(np.asarray(found.convert("L")))
            image.SetSpacing((0.5, 1.5))
            sitk.WriteImage(image, str(tmp_path / "data" / name / f"{file.stem}.mha"))
    shown: list[tuple[np.ndarray, np.ndarray]] = []

    def panel(picture: np.ndarray, truth: np.ndarray, found: np.ndarray, **more: Any) -> bytes:
        assert more["pixel"] == (0.5, 1.5) and picture.shape[1:] == truth.shape == found.shape
        shown.append((picture[0], truth))
        return b""

    monkeypatch.setattr(report, "picture_panel", panel)
    run(load_config(import_folder(tmp_path / "data", tmp_path / "work").config, (*CHANGES, "jobs=1")))
    for file in sorted((pictures / "data" / "masks").iterdir()):
        with Image.open(file) as mask, Image.open(pictures / "data" / "images" / file.name) as picture:
            pair = np.asarray(picture.convert("L")).T, np.asarray(mask).T > 0
        assert any(np.array_equal(one, pair[0]) and np.array_equal(truth > 0, pair[1]) for one, truth in shown)


class Bright(nn.Module):
    """Marks what is much brighter than the rest of the picture."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        level = x.mean(dim=1, keepdim=True)
        return (torch.cat([torch.zeros_like(level), 20 * (level - 2)], dim=1),)


def test_a_marked_corner_comes_back_in_the_same_corner(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through all of reading, windows, restoring and writing; the picture is larger than the patch on one axis."""
    monkeypatch.setattr(load_run, "load_networks", lambda *_: [Bright()])
    corners = {"top-right": np.s_[:8, -9:], "bottom-left": np.s_[-8:, :9]}
    for name, corner in corners.items():
        pixels = np.full((25, 61), 40, np.uint8)
        pixels[corner] = 250
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    results = predict_scans(
        pictures / "work" / "runs" / "default", tmp_path, tmp_path / "out", device="cpu", progress=Silent()
    )
    assert [r.error for r in results] == [None, None]
    for name, corner in corners.items():
        marked = np.zeros((25, 61), np.uint8)
        marked[corner] = 255
        np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out" / f"{name}.png")), marked)


class Overflowing(Bright):
    """Has no finite answer to a lone point that is far above the rest."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (super().forward(x)[0] * torch.where(x.amax() > 20, torch.inf, 1.0),)


def test_a_picture_without_a_finite_answer_gets_words_and_no_empty_mask(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("good", 250), ("point", 40)):
        pixels = np.full((25, 61), 40, np.uint8)
        pixels[:8, -9:] = value
        pixels[20, 20] = 250
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    run_folder = pictures / "work" / "runs" / "default"
    monkeypatch.setattr(load_run, "load_networks", lambda *_: [Overflowing()])
    good, point = predict_scans(run_folder, tmp_path, tmp_path / "out", device="cpu", progress=Silent())
    assert (good.case, good.error, point.case, point.mask) == ("good", None, "point", None)
    assert "gives an answer that is not finite" in str(point.error) and "extreme values" in str(point.error)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["good.png", "predictions.json"]
    session = open_session(load_config(pictures / "work" / "neoseg.toml", CHANGES))
    ensemble = Ensemble([Overflowing()], session.plan, session.targets, session.config.window, "cpu")
    case = PreparedCase(session.store, "p0-0")
    monkeypatch.setattr(PreparedCase, "image", np.asarray(case.image) * 100)
    with pytest.raises(InputError, match=r"^case p0-0: The network gives an answer that is not finite"):
        predict_case(case, ensemble, tmp_path / "p0-0.npy", MemoryUse())
    assert not (tmp_path / "p0-0.npy").exists()


def test_a_run_whose_weights_are_not_finite_does_not_predict(pictures: Path, tmp_path: Path, neoseg: Neoseg) -> None:
    target = Path(shutil.copytree(pictures / "work" / "runs" / "default", tmp_path / "run"))
    path = target / "fold1" / "best" / "model.safetensors"
    weights = load_file(path)
    name = min(weights)
    weights[name] = weights[name] * torch.nan
    save_file(weights, path)
    # a copy without the records of the stages, by which other weights than the run's would be told already
    shutil.rmtree(target / "stages")
    images = pictures / "data" / "images"
    done = neoseg("predict", str(target), "--input", str(images), "--output", str(tmp_path / "out"), "-q")
    assert done.code == 2
    assert f"Network 2 of 2 has weights that are not finite ({name})" in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not list((tmp_path / "out").glob("*"))


# Bad input: one sentence each.


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A folder with ``data`` and its import in ``work``."""
    write_discs(tmp_path / "data", 8, colour=False)
    imported(tmp_path)
    return tmp_path


def refused(neoseg: Neoseg, root: Path, *more: str, command: str = "run") -> str:
    """Return the one sentence that a command ends with."""
    done = neoseg(command, str(root / "work" / "neoseg.toml"), "--quiet", *SETS, *more)
    assert done.code == 2, done.out + done.err
    assert len(done.err.strip().splitlines()) == 1, done.err
    return done.err


def repaint(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    array = np.asarray(Image.open(path))
    Image.fromarray(change(array)).save(path)


def test_a_mask_of_another_size_is_told(workspace: Path, neoseg: Neoseg) -> None:
    repaint(workspace / "data" / "masks" / "p0-0.png", lambda a: np.ascontiguousarray(a.T))
    told = refused(neoseg, workspace)
    assert "p0-0.png" in told and "(28, 40)" in told and "(40, 28)" in told
    assert "give both one size" in told and "header" not in told
    assert not (workspace / "work" / "plan.json").exists()


def test_a_colour_picture_among_grey_ones_is_told(workspace: Path, neoseg: Neoseg) -> None:
    repaint(workspace / "data" / "images" / "p0-0.png", lambda a: np.stack([a, a, 255 - a], axis=-1))
    told = refused(neoseg, workspace)
    assert "p0-0.png" in told and "in colour" in told


def test_a_truncated_picture_is_told(workspace: Path, neoseg: Neoseg) -> None:
    path = workspace / "data" / "images" / "p1-3.png"
    path.write_bytes(path.read_bytes()[:200])
    told = refused(neoseg, workspace)
    assert "p1-3.png" in told and "truncated or damaged" in told


def test_undeclared_values_are_told(workspace: Path, neoseg: Neoseg) -> None:
    repaint(workspace / "data" / "masks" / "p1-3.png", lambda a: a // 2)
    told = refused(neoseg, workspace)
    assert "p1-3.png" in told and "127" in told


def test_pictures_and_masks_without_partner_are_told(workspace: Path, neoseg: Neoseg) -> None:
    (workspace / "data" / "masks" / "p0-0.png").unlink()
    (workspace / "data" / "images" / "p1-3.png").unlink()
    shutil.rmtree(workspace / "work")
    imported(workspace)
    done = neoseg("check", str(workspace / "work" / "neoseg.toml"), "--quiet")
    assert done.code == 2
    assert any("p0-0" in line and "no label" in line for line in done.out.splitlines())
    assert any("p1-3" in line and "no image" in line for line in done.out.splitlines())


def test_16_bits_and_palettes_are_read(workspace: Path, neoseg: Neoseg) -> None:
    repaint(workspace / "data" / "images" / "p0-0.png", lambda a: a.astype(np.uint16) * 200)
    path = workspace / "data" / "masks" / "p0-0.png"
    palette = Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8)).convert("P")
    palette.putpalette([0, 0, 0, 200, 10, 10])
    palette.save(path)
    changes = ("--set", "labels.foreground=[255, 1]", "--set", "folds.count=3")
    done = neoseg("check", str(workspace / "work" / "neoseg.toml"), "--quiet", *changes)
    assert done.code == 0, done.out
    assert "0 errors, 0 warnings." in done.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("network.spatial_dims=3", "network.spatial_dims = 3, but the images have 2 axes"),
        ("network.stem=[2, 2, 2]", "stem has 3 entries: with spatial_dims = 2"),
        ("network.native_orientation=SPL", "native_orientation is for volumes"),
        ("plan.patch=[32, 32, 32]", "3 numbers were given, but the images have 2 axes"),
        ("plan.spacing_mm=[1.0]", "1 numbers were given, but the images have 2 axes"),
        ("prepare.bias_field.method=n4", "prepare.bias_field: this step is for volumes"),
        ("augment.flip_axes=[2]", "augment.flip_axes = [2]: the images have 2 axes"),
    ],
)
def test_settings_for_volumes_are_told(workspace: Path, neoseg: Neoseg, change: str, words: str) -> None:
    assert words in refused(neoseg, workspace, "--set", change, command="plan")
    assert not (workspace / "work" / "plan.json").exists()


def test_a_plane_network_for_volumes_is_told(
    blobs: Callable[[Path, int, int], None], tmp_path: Path, neoseg: Neoseg
) -> None:
    blobs(tmp_path / "data", 4, 0)
    config = import_folder(tmp_path / "data", tmp_path / "work").config
    done = neoseg("plan", str(config), "--quiet", "--set", "folds.count=2", "--set", "network.spatial_dims=2")
    assert done.code == 2
    assert "network.spatial_dims = 2, but the images have 3 axes" in done.err


def test_pictures_and_volumes_together_are_told(
    workspace: Path, blobs: Callable[[Path, int, int], None], neoseg: Neoseg
) -> None:
    blobs(workspace / "volumes", 1, 0)
    table = workspace / "work" / "cases.csv"
    image, label = (workspace / "volumes" / kind / "scan0.nii.gz" for kind in ("images", "labels"))
    table.write_text(table.read_text() + f"scan0,scan0,,patient,train,{image},,{label}\n")
    told = refused(neoseg, workspace, "--set", "labels.foreground=[255, 1]", command="plan")
    assert "case p0-0 have axes: 2, those of case scan0 axes: 3" in told


def test_a_volume_for_a_run_on_pictures_is_told(
    pictures: Path, blobs: Callable[[Path, int, int], None], tmp_path: Path, neoseg: Neoseg
) -> None:
    Image.fromarray(disc((30, 20), np.random.default_rng(1))[0]).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"no picture")
    blobs(tmp_path / "volumes", 1, 0)
    volume = next((tmp_path / "volumes" / "images").glob("*.nii.gz"))
    shutil.copy(volume, tmp_path / "d.nii.gz")
    target = str(pictures / "work" / "runs" / "default")
    done = neoseg("predict", target, "--input", str(tmp_path), "--output", str(tmp_path / "out"), "-q")
    assert done.code == 2
    assert any(line.startswith("c: ") and "not a readable PNG" in line for line in done.out.splitlines())
    assert "d.nii.gz: not a scan of this run" in done.out and "holds 1 volumes, not the 3 of the training" in done.out
    assert (tmp_path / "out" / "b.png").is_file()  # a bad one loses no other


def test_a_recipe_takes_the_labels_of_the_data(tmp_path: Path) -> None:
    write_discs(tmp_path / "data", 2)
    done = import_folder(
        tmp_path / "data", tmp_path / "work", recipe="planar", options=ImportOptions(masks="instances")
    )
    config = load_config(done.config)
    assert (config.name, config.labels, config.label_instances) == ("planar", {"foreground": 255}, True)
