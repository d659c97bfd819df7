"""Prediction of new scans by a finished run: copied elsewhere, any storage of the same scan, every mistake in words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from assembled_run import SHAPE, assemble, open_table, save
from fault_scene import Done
from neoseg.data.cases import Case
from neoseg.io import read_volume
from neoseg.metrics import dice
from neoseg.metrics.overlap import count_voxels
from neoseg.pipeline import ahead
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.progress import Silent
from neoseg.volume import Volume

pytestmark = pytest.mark.slow
Command = Callable[..., Done]
DATA = Path(__file__).parents[2] / "shared" / "data"


def overlap(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    return dice(count_voxels(first, second, (1.0,) * first.ndim))


@pytest.fixture(scope="module")
def moved(blob_run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder alone, somewhere else, as after a copy to another machine."""
    target = tmp_path_factory.mktemp("elsewhere") / "run"
    shutil.copytree(blob_run[0], target)
    return target


def test_a_copied_run_finds_what_it_learned(
    neoseg: Command, blob_run: tuple[Path, Path], moved: Path, tmp_path: Path
) -> None:
    data = blob_run[1]
    done = neoseg("predict", str(moved), "-i", str(data / "images"), "-o", str(tmp_path), "--probabilities", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert len(found) == 8
    for scan in found:
        mask, truth = nib.load(scan["mask"]), nib.load(data / "labels" / Path(scan["mask"]).name)
        assert overlap(np.asarray(mask.dataobj) > 0, np.asarray(truth.dataobj) > 0) > 0.6
        assert mask.get_data_dtype() == np.uint8
        probability = nib.load(tmp_path / f"{scan['case']}_probability_label_1.nii.gz")
        assert np.allclose(probability.affine, mask.affine)
        assert probability.get_fdata().min() >= 0 and probability.get_fdata().max() <= 1
        ml = np.count_nonzero(np.asarray(mask.dataobj)) * 1.2 / 1000
        assert scan["volumes_ml"]["label_1"] == pytest.approx(ml, rel=1e-5)


def storages(image: NDArray[np.float32], affine: NDArray[np.float64]) -> dict[str, tuple[NDArray[np.float32], NDArray]]:
    """The same voxels at the same places of the world, stored in other axis orders and directions."""
    las = affine @ np.array([[-1, 0, 0, image.shape[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    permuted = affine @ np.array([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1.0]])
    return {
        "las": (image[::-1], las),
        "permuted": (np.transpose(image, (1, 2, 0)), permuted),
    }


@pytest.mark.parametrize("storage", ["las", "permuted", "oblique"])
def test_one_scan_stored_otherwise_gives_the_same_mask_in_the_world(
    blob_run: tuple[Path, Path], moved: Path, tmp_path: Path, storage: str
) -> None:
    source = nib.load(blob_run[1] / "images" / "scan1.nii.gz")
    image, affine = source.get_fdata(dtype=np.float32), source.affine
    turn = np.eye(4)
    if storage == "oblique":
        # The patient lies turned: the voxels are the same, the world around them is turned by 25 degrees.
        c, s = np.cos(np.radians(25)), np.sin(np.radians(25))
        turn[:3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
        array, where = image, turn @ affine
    else:
        array, where = storages(image, affine)[storage]
    (tmp_path / "in").mkdir()
    nib.save(source, tmp_path / "in" / "plain.nii.gz")
    other = nib.Nifti1Image(np.ascontiguousarray(array), where)
    other.set_qform(where, 1)
    other.set_sform(where, 2)
    nib.save(other, tmp_path / "in" / "other.nii.gz")
    predict_scans(moved, tmp_path / "in", tmp_path / "out", progress=Silent())
    written = nib.load(tmp_path / "out" / "other.nii.gz")
    assert written.shape == array.shape
    assert np.array_equal(written.affine, nib.load(tmp_path / "in" / "other.nii.gz").affine)
    assert (int(written.header["qform_code"]), int(written.header["sform_code"])) == (1, 2)
    plain, turned = read_volume(tmp_path / "out" / "plain.nii.gz"), read_volume(tmp_path / "out" / "other.nii.gz")
    assert np.count_nonzero(plain.array) > 100
    # Both masks as points of the world: each voxel of the one has to be found at its place in the other.
    places = plain.grid.to_world(np.argwhere(plain.array[0] > 0)) @ turn[:3, :3].T
    index = np.rint(turned.grid.to_index(places)).astype(int)
    again = np.zeros(turned.grid.shape, dtype=bool)
    again[tuple(index.T)] = True
    assert overlap(again, turned.array[0] > 0) >= 0.999


def test_an_atlas_run_gives_one_mask_whatever_the_storage(tiny_demo: tuple[Path, dict], tmp_path: Path) -> None:
    run = tiny_demo[0] / "runs" / "demo"
    scan = next((tiny_demo[0] / "cohort" / "BONBID2023_Test" / "1ADC_ss").glob("*.mha"))
    volume = read_volume(scan)
    predictor, channels = load_predictor(run, "cpu")
    assert channels == ("adc",)
    (tmp_path / "in").mkdir()
    image, affine = volume.array[0].astype(np.float32), volume.grid.affine
    nib.save(nib.Nifti1Image(image, affine), tmp_path / "in" / "ras.nii.gz")
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[1, 0, 0, 5], [0, c, -s, 3], [0, s, c, -8], [0, 0, 0, 1.0]])
    for name, (array, where) in {**storages(image, affine), "oblique": (image, turn @ affine)}.items():
        nib.save(nib.Nifti1Image(np.ascontiguousarray(array), where), tmp_path / "in" / f"{name}.nii.gz")
    found = predict_scans(run, tmp_path / "in", tmp_path / "out", probabilities=True, progress=Silent())
    assert [f.error for f in found] == [None] * 4
    maps = {p.name: read_volume(p).array[0] for p in (tmp_path / "out").glob("*_probability_lesion.nii.gz")}
    for name in ("las", "permuted", "oblique"):
        gap = np.abs(maps[f"{name}_probability_lesion.nii.gz"] - maps["ras_probability_lesion.nii.gz"]).max()
        assert gap < 1e-3, name
    assert predictor.atlas is not None


@pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
def test_a_real_adc_in_other_units_is_converted_reported_and_not_clipped(
    neoseg: Command, tiny_demo: tuple[Path, dict], tmp_path: Path
) -> None:
    scan = next(p for p in (DATA / "isles22_case0001_unlabelled").rglob("*adc*.nii.gz"))
    done = neoseg("predict", str(tiny_demo[0] / "runs" / "demo"), "-i", str(scan), "-o", str(tmp_path), "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)[0]
    assert any("1e-3 mm2/s" in w and "converted" in w for w in found["warnings"])
    source, mask = nib.load(scan), nib.load(found["mask"])
    assert mask.shape == source.shape
    assert np.array_equal(mask.affine, source.affine)
    predictor, _ = load_predictor(tiny_demo[0] / "runs" / "demo", "cpu")
    image = read_volume(scan)
    physical = predictor.predict(Volume(image.array.astype(np.float32) * 1000, image.grid), ("adc",)).physical
    inside = physical.image.array[0][physical.mask]
    assert 800 < np.median(inside) < 1300
    assert inside.max() > 2500


def test_one_bad_scan_does_not_lose_the_others_and_mistakes_are_told(
    neoseg: Command, blob_run: tuple[Path, Path], moved: Path, tmp_path: Path
) -> None:
    source = tmp_path / "in"
    source.mkdir()
    shutil.copy(blob_run[1] / "images" / "scan0.nii.gz", source / "good.nii.gz")
    (source / "bad.nii.gz").write_text("not an image")
    done = neoseg("predict", str(moved), "--input", str(source), "--output", str(tmp_path / "out"))
    assert done.code == 2
    assert "bad.nii.gz" in done.out
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.nii.gz", "predictions.json"]
    for arguments, words in [
        (["--input", str(source), "--output", str(source)], "replace the input"),
        (["--input", str(tmp_path / "nowhere"), "--output", str(tmp_path)], "no such file or folder"),
        (["--input", str(source)], "all three"),
        (["--input", str(source), "--output", str(tmp_path), "--device", "cuda:7"], "device = 'cuda:7'"),
        (["--input", str(source), "--output", str(tmp_path), "--device", "gpu"], "device = 'gpu'"),
    ]:
        done = neoseg("predict", str(moved), *arguments)
        assert (done.code, words in done.err) == (2, True), done.err
        assert "Traceback" not in done.err
    done = neoseg("predict", str(tmp_path), "--input", str(source), "--output", str(tmp_path / "o"))
    assert done.code == 2
    assert "not the folder of a finished run" in done.err


def test_a_given_brain_mask_is_used_as_in_training(
    neoseg: Command, blob_run: tuple[Path, Path], moved: Path, tmp_path: Path
) -> None:
    source = nib.load(blob_run[1] / "images" / "scan1.nii.gz")
    truth = np.asarray(nib.load(blob_run[1] / "labels" / "scan1.nii.gz").dataobj) > 0
    # All but one plane through the lesion and what lies beyond it.
    cut = int(np.argwhere(truth)[:, 0].mean())
    brain = np.ones(source.shape, dtype=np.uint8)
    brain[cut:] = 0
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        nib.save(source, tmp_path / "in" / f"{name}.nii.gz")
    nib.save(nib.Nifti1Image(brain, source.affine), tmp_path / "in" / "a_mask.nii.gz")
    nib.save(nib.Nifti1Image(brain[:-1], source.affine), tmp_path / "in" / "b_mask.nii.gz")
    places = ("-i", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--mask", str(tmp_path / "in"))
    done = neoseg("predict", str(moved), *places, "--json")
    assert done.code == 2
    found = {scan["case"]: scan for scan in json.loads(done.out)}
    assert set(found) == {"a", "b", "c"}
    assert "b_mask.nii.gz: the mask has the grid" in found["b"]["error"]
    assert "The brain mask a_mask.nii.gz was given." in found["a"]["warnings"]
    assert "No brain mask of this scan was given; its brain was told from the image." in found["c"]["warnings"]
    masked, whole = (np.asarray(nib.load(found[name]["mask"]).dataobj) > 0 for name in ("a", "c"))
    assert whole[cut:].any() and not masked[cut:].any()
    assert masked[:cut].any()
    done = neoseg("predict", str(moved), *places[:3], str(tmp_path / "in"), "--mask", str(tmp_path / "nowhere"))
    assert (done.code, done.err.strip().count("\n")) == (2, 0)
    assert "correct --mask" in done.err
    assert not (tmp_path / "out" / "b.nii.gz").exists()


@pytest.mark.parametrize("option", [None, "9G"])
def test_a_scan_beyond_all_size_or_memory_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str | None
) -> None:
    generator = np.random.default_rng(0)
    cases = []
    for number in range(4):
        label = np.zeros(SHAPE, np.uint8)
        label[8:12, 8:13, 6:11] = 1
        files = {"t1": (100 + 40 * label + generator.normal(0, 5, SHAPE)).astype(np.float32), "label": label}
        paths = {name: save(tmp_path / f"p{number}_{name}.nii.gz", array) for name, array in files.items()}
        cases.append(Case(case=f"p{number}", subject=f"p{number}", images={"t1": paths["t1"]}, label=paths["label"]))
    run = assemble(open_table(tmp_path, cases))
    image = nib.load(cases[0].images["t1"])
    (tmp_path / "in").mkdir()
    for name in ("a_first", "c_large", "d_last"):
        nib.save(image, tmp_path / "in" / f"{name}.nii.gz")
    micro = image.affine @ np.diag([1000, 1000, 1000, 1.0])
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), micro), tmp_path / "in" / "b_micro.nii.gz")
    real = ahead.load_images

    def limited(case: Case, *more: object, **options: object) -> object:
        if case.case == "c_large":
            raise MemoryError("Unable to allocate 9 TiB")
        return real(case, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ahead, "load_images", limited)
    options = PredictOptions(max_memory=option)
    found = predict_scans(run.folder, tmp_path / "in", tmp_path / "out", device="cpu", options=options)
    assert [scan.case for scan in found] == ["a_first", "b_micro", "c_large", "d_last"]
    assert [scan.mask is not None for scan in found] == [True, False, False, True]
    assert "the header seems to give um" in str(found[1].error)
    assert "c_large: there is not enough memory to prepare this scan (Unable to allocate 9 TiB)" in str(found[2].error)
