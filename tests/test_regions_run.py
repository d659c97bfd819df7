"""Regions from end to end: nested balls, from files to masks, scores, report, fine-tuning, comparison and new scans."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fault_scene import Done
from neoseg.config import load_config
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.pipeline.prepared import PreparedCase
from neoseg.pipeline.run import run
from neoseg.pipeline.session import open_session
from small_run import SETS, read

pytestmark = pytest.mark.slow

Neoseg = Callable[..., Done]

TABLES = """
[labels]
core = [1, 3]
oedema = 2
enhancing = 4

[regions]
whole = ["core", "oedema", "enhancing"]
inner = ["core", "enhancing"]
enhancing = ["enhancing"]
"""
PAINTED = {"whole": 2, "inner": 1, "enhancing": 4}
"""Region to the stored value that it paints, in order."""

STORED = {"whole": (1, 2, 3, 4), "inner": (1, 3, 4), "enhancing": (4,), "core": (1, 3), "oedema": (2,)}
CHANGES = (*SETS[1::2], "training.steps=36", "training.steps_per_epoch=12", "training.learning_rate=1e-2")


def write_nested(folder: Path, count: int, seed: int) -> None:
    """Write balls in balls in balls, each brighter than the one around it; the innermost but one has two values."""
    generator = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in (22, 26, 20)], indexing="ij"), axis=-1)
    affine = np.diag([-1.0, 1.0, 1.5, 1.0])
    for number in range(count):
        centre = generator.uniform((9, 9, 8), (13, 17, 12))
        distance = np.linalg.norm(index - centre, axis=-1)
        label = np.zeros(distance.shape, dtype=np.uint8)
        label[distance < 8] = 2
        label[distance < 6] = 1
        label[(distance < 6) & (index[..., 0] < centre[0])] = 3
        label[distance < 3.5] = 4
        brightness = np.array([0, 150, 90, 150, 240])[label]
        image = generator.normal(100, 10, label.shape) + brightness
        for kind, array in (("images", image.astype(np.float32)), ("labels", label)):
            nib.save(nib.Nifti1Image(array, affine), folder / kind / f"scan{number}.nii.gz")


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``data`` and a finished run of two folds on it in ``work``."""

    root = tmp_path_factory.mktemp("nested")
    write_nested(root / "data", 6, 0)
    path = import_folder(root / "data", root / "work").config
    path.write_text('cases = "cases.csv"\n' + TABLES)
    run(load_config(path, CHANGES))
    return root


@pytest.fixture
def work(nested: Path, tmp_path: Path) -> Path:
    """A copy of the workspace; its table names the files of the original."""
    return Path(shutil.copytree(nested / "work", tmp_path / "work"))


def words(changes: tuple[str, ...] = CHANGES) -> list[str]:
    return [part for change in changes for part in ("--set", change)]


def array_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def scores_of(folder: Path) -> dict[tuple[str, str, str], float]:
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as stream:
        return {(r["case"], r["label"], r["metric"]): float(r["value"]) for r in csv.DictReader(stream)}


def test_masks_are_painted_from_the_probabilities_of_the_regions(nested: Path) -> None:
    config = load_config(nested / "work" / "neoseg.toml", CHANGES)
    session = open_session(config)
    masks = sorted((session.run.predictions("cv")).glob("*.nii.gz"))
    assert len(masks) == 6
    for path in masks:
        name = path.name.removesuffix(".nii.gz")
        kept = np.load(session.run.probabilities("cv") / f"{name}.npy")
        assert kept.shape[0] == 3 and kept.dtype == np.float16
        expected = np.zeros(kept.shape[1:], np.uint8)
        for region, value in zip(kept, PAINTED.values(), strict=True):
            expected[region >= 0.5] = value
        case = PreparedCase(session.store, name)
        found = array_of(path)
        assert found.dtype == np.uint8 and set(np.unique(found)) <= {0, 1, 2, 4}
        # the image is stored from right to left
        np.testing.assert_array_equal(found[::-1], case.on_native(expected))
        np.testing.assert_array_equal(nib.load(path).affine, np.diag([-1.0, 1.0, 1.5, 1.0]))
    assert read(session.run.postprocess) is None


def test_every_region_and_class_is_scored_and_the_headline_is_over_regions(nested: Path) -> None:
    folder = nested / "work" / "runs" / "default"
    scores = scores_of(folder)
    assert {label for _, label, _ in scores} == set(STORED)
    means = {}
    for label, values in STORED.items():
        each = []
        for path in sorted((folder / "predictions" / "cv").glob("*.nii.gz")):
            found, true = (
                np.isin(array_of(path), values),
                np.isin(array_of(nested / "data" / "labels" / path.name), values),
            )
            each.append(dice(found, true))
            assert scores[path.name.removesuffix(".nii.gz"), label, "dice"] == pytest.approx(each[-1])
        means[label] = np.mean(each)
    assert means["whole"] > 0.8 and means["inner"] > 0.7  # it has learned something
    summary = read(folder / "summary.json")["cv"]
    assert summary["dice"]["mean"] == pytest.approx(np.mean([means[name] for name in PAINTED]))
    assert {key.split(".")[0] for key in summary["metrics"]} == set(STORED)
    page = " ".join(unescape((folder / "report.html").read_text(encoding="utf-8")).split())
    assert "regions of probability ≥ 0.5" in page and "threshold was chosen" not in page
    for name in STORED:
        assert f"<td>{name}</td>" in page
    assert "Dice whole" in page and "Dice oedema" not in page
    best = [json.loads(line) for line in (folder / "fold0" / "log.jsonl").read_text().splitlines()]
    assert best[-1]["validation_dice"] > 0.4 and np.isfinite(best[-1]["validation_loss"])


def test_a_copied_run_predicts_new_scans_without_the_workspace(nested: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(nested / "work" / "runs" / "default", tmp_path / "copy"))
    write_nested(tmp_path / "new", 1, 5)
    options = PredictOptions(uncertainty=True)
    (scan,) = predict_scans(
        folder, tmp_path / "new" / "images", tmp_path / "out", device="cpu", probabilities=True, options=options
    )
    assert scan.error is None
    label = array_of(tmp_path / "out" / "scan0.nii.gz")
    maps = {name: array_of(tmp_path / "out" / f"scan0_probability_{name}.nii.gz") for name in PAINTED}
    expected = np.zeros(label.shape, np.uint8)
    for name, value in PAINTED.items():
        assert maps[name].dtype == np.float32
        expected[maps[name] >= 0.5] = value
    np.testing.assert_array_equal(label, expected)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {
        "scan0.nii.gz", "scan0_entropy.nii.gz", "scan0_spread.nii.gz", "predictions.json",
        *(f"scan0_probability_{name}.nii.gz" for name in PAINTED),
    }  # fmt: skip
    truth = array_of(tmp_path / "new" / "labels" / "scan0.nii.gz")
    assert dice(label > 0, truth > 0) > 0.8
    assert list(scan.volumes_ml) == list(STORED)
    for name, values in STORED.items():
        assert scan.volumes_ml[name] == pytest.approx(np.isin(label, values).sum() * 1.5e-3)
        low, high = scan.ranges_ml[name]
        assert 0 <= low <= high
    for name in ("entropy", "spread"):
        found = array_of(tmp_path / "out" / f"scan0_{name}.nii.gz")
        assert found.min() >= 0 and 0.05 < found.max() <= 1
    little = PredictOptions(max_memory="4G")
    predict_scans(folder, tmp_path / "new" / "images", tmp_path / "little", device="cpu", options=little)
    assert (array_of(tmp_path / "little" / "scan0.nii.gz") != label).mean() < 1e-3


def test_other_regions_need_another_training_but_no_other_plan(work: Path, neoseg: Neoseg) -> None:
    config = work / "neoseg.toml"
    prepared = sorted((work / "prepared").rglob("*.npy"))
    text = config.read_text()
    told = {"renamed": text.replace("\nwhole =", "\ntumour ="), "none": text.split("[regions]")[0]}
    for name, changed in told.items():
        config.write_text(changed)
        assert neoseg("plan", str(config), "--quiet", *words()).code == 0
        assert neoseg("prepare", str(config), "--quiet", *words()).code == 0
        assert sorted((work / "prepared").rglob("*.npy")) == prepared, name
        for command in ("train", "predict"):
            done = neoseg(command, str(config), "--quiet", *words())
            assert done.code == 2 and "Traceback" not in done.err, (name, command)
        done = neoseg("train", str(config), "--quiet", *words())
        assert "was trained with other values of regions" in " ".join(done.err.split()), name


def test_regions_in_another_order_are_other_channels(work: Path, neoseg: Neoseg) -> None:
    config = work / "neoseg.toml"
    text = config.read_text()
    disjoint = '\n[regions]\ncore = ["core"]\noedema = ["oedema"]\nenhancing = ["enhancing"]\n'
    config.write_text(text.split("\n[regions]")[0] + disjoint)
    short = (*SETS[1::2], "name=disjoint", "training.steps=2")
    assert neoseg("run", str(config), "--quiet", *words(short)).code == 0
    kept = read(work / "runs" / "disjoint" / "config.json")["regions"]
    assert list(kept) == ["core", "oedema", "enhancing"]
    lines = disjoint.strip().split("\n")
    config.write_text(text.split("\n[regions]")[0] + "\n" + "\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    done = neoseg("train", str(config), "--quiet", *words(short))
    assert done.code == 2 and "regions (their order)" in " ".join(done.err.split())


def test_fine_tuning_from_other_regions_starts_the_heads_anew(work: Path, neoseg: Neoseg) -> None:
    config, source = work / "neoseg.toml", work / "runs" / "default"
    text = config.read_text()
    other = 'whole = ["core", "oedema", "enhancing"]\nouter = ["oedema", "core"]\noedema = ["oedema"]\n'
    short = (*SETS[1::2], "name=tuned", "training.steps=1")
    cases = {
        "same": text,
        "others": text.split("[regions]\n")[0] + "[regions]\n" + other,
        "none": text.split("[regions]")[0],
    }
    for name, tables in cases.items():
        config.write_text(tables)
        shutil.rmtree(work / "runs" / "tuned", ignore_errors=True)
        assert neoseg("prepare", str(config), "--quiet", *words(short)).code == 0
        done = neoseg("train", str(config), "--fold", "0", "--init-from", str(source), *words(short))
        assert done.code == 0, done.err
        told, tensors = " ".join(done.err.split()), read(work / "runs" / "tuned" / "init_from.json")["tensors"]
        if name == "same":
            assert tensors["new"] == []
            continue
        assert tensors["new"] and {tensor.split(".")[0] for tensor in tensors["new"]} == {"heads"}
        now = {
            "others": "the regions whole (core, oedema, enhancing), outer (core, oedema), oedema (oedema)",
            "none": "the classes core, oedema, enhancing",
        }[name]
        assert f"the network learns {now} and learned the regions whole" in told


def test_runs_are_compared_over_regions_or_by_what_both_mean(work: Path, neoseg: Neoseg) -> None:
    config = work / "neoseg.toml"
    text = config.read_text()
    short = (*SETS[1::2], "training.steps=2")
    assert neoseg("run", str(config), "--quiet", *words((*short, "name=short"))).code == 0
    config.write_text(text.split("[regions]")[0])
    assert neoseg("run", str(config), "--quiet", *words((*short, "name=plain"))).code == 0
    first, second, plain = (work / "runs" / name for name in ("default", "short", "plain"))
    done = neoseg("compare", str(first), str(second), "--json")
    assert done.code == 0, done.err
    best = json.loads(done.out)["runs"][0]
    scores = scores_of(first)
    values = [scores[case, name, "dice"] for case, label, metric in scores if (label, metric) == ("whole", "dice")
              for name in PAINTED]  # fmt: skip
    assert best["mean"] == pytest.approx(np.mean(values))
    done = neoseg("compare", str(first), str(plain), "--json")
    told = " ".join(done.err.split())
    assert done.code == 2 and "with the regions whole (core, oedema, enhancing), inner" in told
    for label, code in (("oedema", 0), ("whole", 2), ("enhancing", 0), ("inners", 2)):
        done = neoseg("compare", str(first), str(plain), "--label", label, "--json")
        assert done.code == code, (label, done.err)
