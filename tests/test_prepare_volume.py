"""`neoseg prepare-volume`: every step on one file, on the right grid, and bad input in words."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from neoseg.cli.app import run
from neoseg.config import RunConfig
from neoseg.errors import GeometryError, InputError
from neoseg.io import read_volume, write_volume
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.shell import unstripped
from neoseg.pipeline import prepare_volume as pipeline
from neoseg.pipeline.prepare import _given_atlas
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.bias_field import BiasFieldConfig
from neoseg.prepare.configs import PrepareConfig
from neoseg.prepare.volume_steps import Aligned, Brain, ZOfVolume, through
from neoseg.register.transforms import Affine
from neoseg.volume import Grid, Volume, same_grid

COARSE = HeadConfig(point_mm=(1.7, 3.5))
Neoseg = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def heads() -> tuple[Head, Head]:
    return make_head(np.random.default_rng(41), COARSE, lesion_burden=6.0), make_head(np.random.default_rng(42), COARSE)


@pytest.fixture(scope="module")
def files(heads: tuple[Head, Head], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scan_adc, its label, brain and unstripped map; template_adc; an atlas made of the template."""
    folder = tmp_path_factory.mktemp("files")
    scan, template = heads
    write_volume(scan.adc, folder / "scan_adc.nii.gz")
    write_volume(scan.label, folder / "label.nii.gz")
    write_volume(scan.brain, folder / "brain.mha")
    write_volume(unstripped(scan, np.random.default_rng(0)), folder / "raw_adc.nii.gz")
    write_volume(template.adc, folder / "template_adc.nii.gz")
    sd = template.adc.with_array(np.where(template.brain.array > 0, 150, 0).astype(np.float32))
    grid = Grid(template.adc.grid.shape, template.adc.grid.affine)
    mean, sd, mask = (Volume(v.array, grid) for v in (template.clean, sd, template.brain))
    Atlas(mean, sd, mask, count=20, unit="1e-6 mm2/s").save(folder / "atlas")
    return folder


@pytest.fixture
def neoseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Neoseg:
    """Run the real command in this process and return its JSON, or its exit code and what it said."""

    def command(*arguments: object) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["neoseg", "prepare-volume", *map(str, arguments), "--json"])
        code = run()
        out, said = capsys.readouterr()
        return json.loads(out) if code == 0 else {"code": code, "said": said}

    return command


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def test_without_steps_a_stripped_map_comes_back_as_it_was(neoseg: Neoseg, files: Path, tmp_path: Path) -> None:
    facts = neoseg(files / "scan_adc.nii.gz", tmp_path / "out.nii.gz")
    assert facts["mask"]["origin"] == "background"
    assert facts["warnings"] == []
    source, result = nib.load(files / "scan_adc.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    assert np.array_equal(source.affine, result.affine)
    assert np.array_equal(np.asarray(source.dataobj), np.asarray(result.dataobj))


def test_the_brain_is_cut_out_of_an_unstripped_map(
    neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]
) -> None:
    facts = neoseg(files / "raw_adc.nii.gz", tmp_path / "out.mha", "--save-mask", tmp_path / "mask.nrrd")
    assert facts["mask"]["origin"] == "estimated"
    assert "estimated" in facts["warnings"][0]
    found = read_volume(tmp_path / "mask.nrrd")
    assert same_grid(found.grid, heads[0].adc.grid)
    assert dice(found.array[0] > 0, heads[0].brain.array[0] > 0) > 0.93
    assert not read_volume(tmp_path / "out.mha").array[found.array == 0].any()


def test_a_given_mask_of_another_format_is_obeyed(
    neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]
) -> None:
    facts = neoseg(files / "raw_adc.nii.gz", tmp_path / "out.nii.gz", "--mask", files / "brain.mha", "--crop")
    assert facts["mask"]["origin"] == "given"
    brain = heads[0].brain
    assert facts["mask"]["ml"] == pytest.approx(brain.array.sum() * brain.grid.voxel_volume / 1000, abs=0.01)
    result = read_volume(tmp_path / "out.nii.gz")
    whole = read_volume(files / "raw_adc.nii.gz")
    corner = np.rint(whole.grid.to_index(result.grid.to_world(np.zeros(3)))).astype(int)
    part = tuple(slice(c, c + n) for c, n in zip(corner, result.grid.shape, strict=True))
    inside = brain.array[0][part] > 0
    assert inside.sum() == brain.array.sum()
    assert np.array_equal(result.array[0][inside], whole.array[0][part][inside])


def test_the_unit_is_converted_and_the_mean_survives_the_bias_field(
    neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]
) -> None:
    milli = heads[0].adc.with_array(heads[0].adc.array / 1000)
    write_volume(milli, tmp_path / "milli_adc.nii.gz")
    facts = neoseg(tmp_path / "milli_adc.nii.gz", tmp_path / "out.nii.gz", "--bias-field")
    assert any("converted" in sentence for sentence in facts["warnings"])
    field = facts["bias_field"]
    assert field["mean_after"] == pytest.approx(field["mean_before"], rel=1e-4)
    brain = heads[0].brain.array > 0
    assert field["mean_before"] == pytest.approx(heads[0].adc.array[brain].mean(), rel=1e-3)
    assert read_volume(tmp_path / "out.nii.gz").array[brain].mean() == pytest.approx(field["mean_after"], rel=1e-3)


@pytest.mark.slow
def test_to_a_template_and_back(neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]) -> None:
    """The template is the scan itself, turned by 9 degrees on another grid; the scan's header is moved by 60 mm.

    Results have to land where the headers say, and on the scan's own structures.
    """
    scan = heads[0]
    move = np.eye(4)
    move[:3, 3] = (50, -20, 30)
    header = Grid(scan.adc.grid.shape, move @ scan.adc.grid.affine)
    adc, label = tmp_path / "moved_adc.nii.gz", tmp_path / "label.nii.gz"
    write_volume(Volume(scan.adc.array, header), adc)
    write_volume(Volume(scan.label.array, header), label)
    angle = np.radians(9)
    turn = np.eye(4)
    turn[:3, :3] = [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    brain = Brain(scan.adc, scan.brain.array[0] > 0)
    known = through(brain, heads[1].adc.grid, Affine(turn))
    goal = write(known.volume, tmp_path / "goal.nii.gz")
    saved = tmp_path / "t.tfm"

    facts = neoseg(adc, tmp_path / "out.mha", "--to", goal, "--affine-only", "--save-transform", saved)
    result = read_volume(tmp_path / "out.mha")
    assert same_grid(result.grid, known.volume.grid)
    both = (result.array[0] != 0) & known.mask
    assert np.corrcoef(result.array[0][both], known.volume.array[0][both])[0, 1] > 0.97
    assert dice(result.array[0] != 0, known.mask) == pytest.approx(facts["to"]["overlap"], abs=0.01)
    assert facts["to"]["overlap"] > 0.97
    assert facts["to"]["smallest_jacobian"] == pytest.approx(1, abs=0.1)
    assert facts["to"]["seconds"] > 0

    again = neoseg(adc, tmp_path / "again.mha", "--to", goal, "--transform", saved)
    assert again["to"]["transform"] == str(saved)
    assert np.allclose(read_volume(tmp_path / "again.mha").array, result.array, rtol=1e-3, atol=1)

    there = neoseg(label, tmp_path / "l.nii.gz", "--label", "--to", goal, "--transform", saved)
    assert there["labelled_ml"]["after"] == pytest.approx(there["labelled_ml"]["before"], rel=0.1)
    neoseg(tmp_path / "l.nii.gz", tmp_path / "b.nii.gz", "--label", "--to", adc, "--transform", saved, "--inverse")
    returned = read_volume(tmp_path / "b.nii.gz")
    assert same_grid(returned.grid, header)
    assert returned.array.dtype == np.uint8
    assert dice(returned.array[0] > 0, scan.label.array[0] > 0) > 0.7

    theirs = resampled_by_itk(adc, goal, saved)
    inner = (result.array[0] != 0) & (theirs > 500)
    assert np.median(np.abs(result.array[0][inner] / theirs[inner] - 1)) < 0.002


def write(volume: Volume, path: Path) -> Path:
    write_volume(volume, path)
    return path


def resampled_by_itk(scan: Path, template: Path, transform: Path) -> np.ndarray:
    import SimpleITK as sitk  # noqa: N813

    goal = sitk.ReadImage(str(template), sitk.sitkFloat32)
    image = sitk.ReadImage(str(scan), sitk.sitkFloat32)
    moved = sitk.Resample(image, goal, sitk.ReadTransform(str(transform)), sitk.sitkLinear, 0.0)
    path = transform.with_name("itk.nii.gz")
    sitk.WriteImage(moved, str(path))
    return read_volume(path).array[0]


@pytest.mark.slow
def test_a_header_wrong_by_180_degrees_or_contradictory_is_told(
    neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]
) -> None:
    image = nib.load(files / "scan_adc.nii.gz")
    voxels = np.asarray(image.dataobj)[::-1, ::-1].copy()
    wrong = nib.Nifti1Image(voxels, image.affine)
    mirrored = image.affine @ np.diag([-1, 1, 1, 1])
    wrong.set_sform(image.affine, 1)
    wrong.set_qform(mirrored, 1)
    nib.save(wrong, tmp_path / "turned_adc.nii.gz")
    to = ("--to", files / "template_adc.nii.gz", "--affine-only")
    facts = neoseg(tmp_path / "turned_adc.nii.gz", tmp_path / "out.nii.gz", *to)
    assert facts["to"]["affine_turn_degrees"] > 150
    told = " ".join(facts["warnings"])
    assert "Registration turned the head by 1" in told
    assert "disagree on left and right" in told


def test_a_z_map_lies_on_the_scan_s_own_grid(
    neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]
) -> None:
    facts = neoseg(
        files / "scan_adc.nii.gz", tmp_path / "out.nii.gz", "--atlas", files / "atlas", "--zmap", tmp_path / "z.nii.gz",
    )  # fmt: skip
    z, scan = read_volume(tmp_path / "z.nii.gz"), heads[0]
    assert same_grid(z.grid, scan.adc.grid)
    lesion, healthy = scan.label.array > 0, (scan.brain.array > 0) & (scan.label.array == 0)
    assert not z.array[scan.brain.array == 0].any()
    assert np.median(z.array[lesion]) < np.median(z.array[healthy]) - 1.5
    assert facts["zmap"]["outside_atlas_share"] < 0.1
    assert set(facts["files"]) == {str(tmp_path / "out.nii.gz"), str(tmp_path / "z.nii.gz")}


def atlas_of(files: Path, folder: Path, **changes: Any) -> Path:
    """Another atlas with the same maps."""
    replace(Atlas.load(files / "atlas"), **changes).save(folder)
    return folder


PAIRS, N4 = (BiasFieldConfig(method=method).model_dump(mode="json") for method in ("pairs", "n4"))


@pytest.mark.parametrize(
    ("made_with", "options", "words"),
    [
        (PAIRS, (), "'method': 'pairs'.* but the scans are prepared with None; give --bias-field, and --config"),
        (None, ("--bias-field",), "bias_field = None, but .*'method': 'pairs'.*; leave --bias-field out, or build"),
        (N4, ("--bias-field",), "'method': 'n4'.* but .*'method': 'pairs'.*; give --bias-field, and --config"),
    ],
)
def test_a_z_map_needs_an_atlas_of_scans_that_were_corrected_alike(
    neoseg: Neoseg, files: Path, tmp_path: Path, made_with: Any, options: tuple[str, ...], words: str
) -> None:
    atlas = atlas_of(files, tmp_path / "atlas", provenance={"bias_field": made_with})
    out = tmp_path / "out"
    out.mkdir()
    told = neoseg(
        files / "scan_adc.nii.gz", out / "o.nii.gz", "--atlas", atlas, "--zmap", out / "z.nii.gz", *options
    )  # fmt: skip
    assert told.get("code") == 2, told
    assert re.search(words, told["said"]), told["said"]
    assert str(atlas) in told["said"]
    assert not list(out.iterdir())


def test_a_run_asks_the_same_of_a_given_atlas(files: Path, tmp_path: Path) -> None:
    config = RunConfig(workspace=tmp_path, labels={"lesion": 1}, prepare=PrepareConfig(zmap={}))
    assert _given_atlas(atlas_of(files, tmp_path / "none", provenance={"bias_field": None}), config).count
    with pytest.raises(InputError, match=r"'method': 'n4'.* but the scans are prepared with None; give \[prepare"):
        _given_atlas(atlas_of(files, tmp_path / "n4", provenance={"bias_field": N4}), config)


def test_a_z_map_is_made_with_an_atlas_of_scans_that_were_corrected_alike(
    neoseg: Neoseg, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "zmap_of", lambda brain, atlas, config: ZOfVolume(brain.volume, {"made": 1}, ()))
    config = tmp_path / "neoseg.toml"
    config.write_text('[labels]\nlesion = 1\n[prepare.bias_field]\nmethod = "n4"\n')
    same = ("--bias-field", "--config", config)
    for number, (made_with, options) in enumerate([(N4, same), (PAIRS, ("--bias-field",)), (None, ())]):
        atlas = atlas_of(files, tmp_path / f"atlas{number}", provenance={"bias_field": made_with})
        z = tmp_path / f"z{number}.nii.gz"
        done = neoseg(files / "scan_adc.nii.gz", tmp_path / "o.nii.gz", "--atlas", atlas, "--zmap", z, *options)
        assert done["zmap"] == {"made": 1}, done
        assert z.is_file()


def test_a_z_map_needs_an_atlas_of_the_channel_and_unit(neoseg: Neoseg, files: Path, tmp_path: Path) -> None:
    plain = tmp_path / "scan.nii.gz"
    plain.write_bytes((files / "scan_adc.nii.gz").read_bytes())
    milli = atlas_of(files, tmp_path / "milli", unit="1e-3 mm2/s")
    out = ("--zmap", tmp_path / "z.nii.gz")
    for source, atlas, more, words in [
        (plain, files / "atlas", (), "holds 'adc' in '1e-6 mm2/s', but the scans hold 'mr' in 'as stored'.*--kind adc"),
        (plain, files / "atlas", ("--kind", "ct"), "but the scans hold 'ct' in 'as stored'; .* of the same kind.$"),
        (files / "scan_adc.nii.gz", milli, (), "'1e-3 mm2/s', but the scans hold 'adc' in '1e-6 mm2/s'"),
    ]:
        told = neoseg(source, tmp_path / "o.nii.gz", "--atlas", atlas, *out, *more)
        assert told.get("code") == 2, told
        assert re.search(words, told["said"].strip()), told["said"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["milli", "scan.nii.gz"]


def test_a_map_in_no_known_unit_says_so_and_is_not_compared(neoseg: Neoseg, files: Path, tmp_path: Path) -> None:
    scan = read_volume(files / "scan_adc.nii.gz")
    write_volume(scan.with_array(scan.array / np.float32(50)), tmp_path / "odd_adc.nii.gz")
    out, z = tmp_path / "o.nii.gz", tmp_path / "z.nii.gz"
    assert neoseg(files / "scan_adc.nii.gz", out)["unit"] == "1e-6 mm2/s"
    assert neoseg(tmp_path / "odd_adc.nii.gz", out)["unit"] == "unknown"
    out.unlink()
    told = neoseg(tmp_path / "odd_adc.nii.gz", out, "--atlas", files / "atlas", "--zmap", z)
    assert told.get("code") == 2, told
    assert re.search(r"odd_adc\.nii\.gz: its values are those of no known unit.*give --unit\.$", told["said"].strip())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["odd_adc.nii.gz"]


@pytest.mark.parametrize("late", ["template", "spacing", "transform"])
def test_an_error_after_the_z_map_leaves_nothing_behind(
    neoseg: Neoseg, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    monkeypatch.setattr(pipeline, "zmap_of", lambda brain, atlas, config: ZOfVolume(brain.volume, {}, ()))
    still = Aligned(Affine.identity(), {}, ())
    monkeypatch.setattr(pipeline, "align", lambda *_: still)
    flat, out = tmp_path / "flat.nii.gz", tmp_path / "out"
    scan = read_volume(files / "scan_adc.nii.gz")
    write_volume(scan.with_array(np.full_like(scan.array, 7)), flat)
    out.mkdir()
    to = flat if late == "template" else files / "template_adc.nii.gz"
    wrong = {"template": "template has to be", "spacing": "no grid", "transform": "no form"}[late]

    def refuses(*_: object) -> None:
        raise InputError(f"{wrong}.")

    if late != "template":
        monkeypatch.setattr(pipeline, {"spacing": "resampled", "transform": "write_itk"}[late], refuses)
    told = neoseg(
        files / "scan_adc.nii.gz", out / "o.nii.gz", "--atlas", files / "atlas", "--zmap", out / "z.nii.gz",
        "--to", to, "--save-transform", out / "t.tfm", "--save-mask", out / "m.nii.gz", "--spacing", "2,2,4",
    )  # fmt: skip
    assert told.get("code") == 2, told
    assert wrong in told["said"]
    assert not list(out.iterdir())


def test_spacing_and_intensities(neoseg: Neoseg, files: Path, tmp_path: Path, heads: tuple[Head, Head]) -> None:
    facts = neoseg(files / "scan_adc.nii.gz", tmp_path / "a.nii.gz", "--spacing", "2,2,4")
    assert facts["grid"]["spacing_mm"] == [2, 2, 4]
    coarse, scan = read_volume(tmp_path / "a.nii.gz"), heads[0]
    brain = scan.brain.array > 0
    assert coarse.array[coarse.array != 0].mean() == pytest.approx(scan.adc.array[brain].mean(), rel=0.02)
    assert (coarse.array != 0).sum() * 16 == pytest.approx(brain.sum() * scan.adc.grid.voxel_volume, rel=0.03)
    neoseg(files / "scan_adc.nii.gz", tmp_path / "b.nii.gz", "--normalise", "case")
    values = read_volume(tmp_path / "b.nii.gz").array[brain]
    assert (values.mean(), values.std()) == (pytest.approx(0, abs=1e-3), pytest.approx(1, abs=1e-3))


def array(name: str) -> np.ndarray:
    generator = np.random.default_rng(0)
    head = np.zeros((24, 24, 12), np.float32)
    head[6:18, 6:18, 3:9] = generator.normal(1200, 60, (12, 12, 6))
    nan = head.copy()
    nan[10, 10, 5] = np.nan
    return {
        "zeros": head * 0, "constant": head * 0 + 1200, "nan": nan, "one_slice": head[:, :, 5:6],
        "noise": generator.normal(0, 900, (24, 24, 12)).astype(np.float32), "few": np.where(head > 1300, head, 0),
        "good": head,
    }[name]  # fmt: skip


BAD: list[tuple[str, tuple[str, ...], str]] = [
    ("zeros", (), "empty"),
    ("constant", (), "every voxel is 1200"),
    ("nan", (), "NaN"),
    ("one_slice", (), "two slices"),
    ("one_slice", ("--bias-field",), "two slices"),
    ("noise", (), "give a mask"),
    ("good", ("--mask", "elsewhere.nii.gz"), "resample the mask"),
    ("good", ("--mask", "no.nii.gz"), "does not exist"),
    ("good", ("--mask", "zeros_adc.nii.gz"), "0 everywhere"),
    ("good", ("--to", "zeros_adc.nii.gz"), "template"),
    ("good", ("--to", "good2_adc.nii.gz", "--transform", "far.npz"), "do not overlap"),
    ("good", ("--to", "good2_adc.nii.gz", "--transform", "no.npz"), "does not exist"),
    ("good", ("--to", "good2_adc.nii.gz", "--transform", "text.npz"), "cannot be read"),
    ("good", ("--atlas", "no", "--zmap", "z.nii.gz"), "no atlas lies here"),
    ("good", ("--atlas", "no"), "belong together"),
    ("good", ("--inverse",), "--transform"),
    ("good", ("--save-transform", "t.npz"), "needs --to"),
    ("good", ("--to", "good2_adc.nii.gz", "--save-transform", "t.txt.gz"), "ending of a transform"),
    ("good", ("--label",), "saved transform"),
    ("good", ("--spacing", "1,2"), "three sizes"),
    ("good", ("--normalise", "zscore"), "case, percentile"),
    ("good", ("--kind", "pet"), "adc, mr, ct"),
    ("good", ("--unit", "mm"), "mm2/s"),
    ("good", ("--unit", "mm2/s", "--kind", "mr"), "is one of ADC, but --kind mr"),
    (
        "good",
        ("--label", "--to", "good2_adc.nii.gz", "--transform", "far.npz", "--save-mask", "m.nii.gz"),
        "steps for images",
    ),
    ("good", ("--save-mask", "good_adc.nii.gz"), "replace an input"),
    ("good", ("--volume-index", "3"), "volume"),
    ("good", ("--set", "prepare.zmap.clip=3"), "--config"),
    ("good", ("--config", "no.toml"), "no such configuration"),
]


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    grid = Grid.of_spacing((24, 24, 12), (2.0, 2.0, 4.0))
    for name in ("zeros", "constant", "nan", "one_slice", "noise", "few", "good"):
        values = array(name)
        write_volume(Volume(values[None], Grid(values.shape, grid.affine)), folder / f"{name}_adc.nii.gz")
    write_volume(Volume(array("good")[None], grid), folder / "good2_adc.nii.gz")
    elsewhere = Grid(grid.shape, np.array(grid.affine) + np.outer([1000, 0, 0, 0], [0, 0, 0, 1]))
    write_volume(Volume((array("good") > 0).astype(np.uint8)[None], elsewhere), folder / "elsewhere.nii.gz")
    far = np.eye(4)
    far[0, 3] = 1000
    np.savez(folder / "far.npz", **{"kinds": np.array(["affine"], dtype="U16"), "0.matrix": far})
    (folder / "text.npz").write_text("hello")
    return folder


@pytest.mark.parametrize(("name", "options", "words"), BAD, ids=[f"{n} {' '.join(o)}" for n, o, _ in BAD])
def test_bad_input_is_told_in_one_sentence(
    neoseg: Neoseg, bad: Path, tmp_path: Path, name: str, options: tuple[str, ...], words: str
) -> None:
    places = [bad / o if "." in o and not o.startswith("--") and "=" not in o and "," not in o else o for o in options]
    told = neoseg(bad / f"{name}_adc.nii.gz", tmp_path / "out.nii.gz", *places)
    assert told.get("code") == 2, told
    assert words in told["said"]
    assert len(told["said"].strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_the_command_itself_exits_with_2_and_no_traceback(bad: Path, tmp_path: Path) -> None:
    call = [sys.executable, "-m", "neoseg", "prepare-volume", str(bad / "nan_adc.nii.gz"), str(tmp_path / "out.png")]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert ".nii.gz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_brain_has_to_fit_its_mask(heads: tuple[Head, Head]) -> None:
    adc = heads[0].adc
    with pytest.raises(GeometryError, match="mask of its shape"):
        Brain(adc, np.ones((3, 3, 3), bool))
    with pytest.raises(InputError, match="hold voxels"):
        Brain(adc, np.zeros(adc.grid.shape, bool))


def test_no_background_bleeds_into_a_resampled_map(heads: tuple[Head, Head]) -> None:
    brain = heads[0].brain.array[0] > 0
    flat = Brain(heads[0].adc.with_array(np.where(brain, 1200, 0).astype(np.float32)), brain)
    shift = np.eye(4)
    shift[:3, 3] = (0.7, -0.4, 1.3)
    found = through(flat, heads[0].adc.grid, Affine(shift))
    assert np.allclose(found.volume.array[0][found.mask], 1200, rtol=1e-4)
    assert found.mask.sum() == pytest.approx(brain.sum(), rel=0.02)
