"""Each check is silent on a good data set and speaks on the one way of breaking it that it is for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from neoseg.data.cases import Case
from neoseg.data.checks import CHECKS, Problem, run_checks
from neoseg.data.folds import Fold
from neoseg.data.layouts import import_data
from neoseg.io import write_volume
from neoseg.labels import LabelSet
from neoseg.volume import Grid, Volume

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
GRID = Grid((6, 7, 5), np.array([[-1.5, 0, 0, 40], [0, 1.5, 0, -50], [0, 0, 4, 10], [0, 0, 0, 1.0]]))
LABELS = LabelSet.of({"lesion": 1})
CHANNELS = ("adc", "t1")

Cases = list[Case]


def save(path: Path, array: np.ndarray, grid: Grid = GRID) -> Path:
    write_volume(Volume(array[None], grid), path)
    return path


def adc(seed: int, scale: float = 1.0) -> np.ndarray:
    array = np.random.default_rng(seed).normal(1300, 100, GRID.shape).astype(np.float32)
    array[:2] = 0
    return array * np.float32(scale)


def lesion() -> np.ndarray:
    array = np.zeros(GRID.shape, np.uint8)
    array[3, 3, 2] = 1
    return array


@pytest.fixture
def good(tmp_path: Path) -> Cases:
    cases = []
    for i in range(8):
        name = f"c{i}"
        images = {c: save(tmp_path / f"{name}_{c}.nii.gz", adc(10 * i + j)) for j, c in enumerate(CHANNELS)}
        cases.append(
            Case(
                case=name,
                subject=f"s{i}",
                site="A" if i < 4 else "B",
                split="test" if i == 7 else "train",
                images=images,
                units={"adc": "1e-6 mm2/s"},
                label=save(tmp_path / f"{name}_label.nii.gz", lesion()),
            )
        )
    healthy = {"adc": save(tmp_path / "h_adc.nii.gz", adc(99))}
    return [*cases, Case(case="h", subject="h", group="healthy", images=healthy)]


def test_a_good_data_set_is_silent(good: Cases) -> None:
    folds = [Fold(("c0", "c1"), ("c2",), ("c3", "c4")), Fold(("c3", "c4"), ("c2",), ("c0", "c1"))]
    assert run_checks(good, LABELS, CHANNELS, folds=folds) == []


# Each breakage: (name of the check, severity, what it says, how to break).


def put(case: Case, channel: str, array: np.ndarray, grid: Grid = GRID) -> None:
    save(case.images[channel], array, grid)


def missing_file(c: Cases) -> None:
    c[0].images["t1"].unlink()


def dead_link(c: Cases) -> None:
    c[0].label.unlink()
    c[0].label.symlink_to("annex/object")


def truncated(c: Cases) -> None:
    path = c[1].images["adc"]
    path.write_bytes(path.read_bytes()[:150])


def text(c: Cases) -> None:
    c[1].label.write_text("not an image", encoding="utf-8")


def four_d(c: Cases) -> None:
    write_volume(Volume(np.stack([adc(1), adc(2)]), GRID), c[1].images["adc"])


def sheared(c: Cases) -> None:
    affine = np.eye(4)
    affine[0, 2] = 0.3
    nibabel.save(nibabel.Nifti1Image(adc(1), affine), c[1].images["adc"])


def twice(c: Cases) -> None:
    c[2] = replace(c[2], case="C1")


def same_scan(c: Cases) -> None:
    put(c[5], "adc", adc(0))


def same_scan_other_channel(c: Cases) -> None:
    put(c[0], "t1", adc(0))


def give_mask(c: Cases, array: np.ndarray, grid: Grid = GRID) -> None:
    path = c[0].images["adc"].with_name("c0_mask.nii.gz")
    c[0] = replace(c[0], mask=save(path, array, grid))


def empty_mask(c: Cases) -> None:
    give_mask(c, lesion() * 0)


def mask_with_nan(c: Cases) -> None:
    give_mask(c, np.where(lesion() > 0, np.nan, 1).astype(np.float32))


def mask_of_everything(c: Cases) -> None:
    give_mask(c, lesion() * 0 + 1)


def mask_elsewhere(c: Cases) -> None:
    affine = GRID.affine.copy()
    affine[2, 3] += 1000
    give_mask(c, lesion(), Grid(GRID.shape, affine))


def no_mask(c: Cases) -> None:
    give_mask(c, lesion())
    c[0].mask.unlink()


def mask_of_text(c: Cases) -> None:
    give_mask(c, lesion())
    c[0].mask.write_text("not an image", encoding="utf-8")


def two_scales(c: Cases) -> None:
    for i, case in enumerate(c):
        c[i] = replace(case, site="")
        array = adc(3000 + i)
        put(case, "adc", np.where(array > 0, array + (600 if i % 2 else 0), 0).astype(np.float32))


def label_is_image(c: Cases) -> None:
    c[2] = replace(c[2], label=c[2].images["t1"])
    put(c[2], "t1", lesion().astype(np.float32))


def label_of_two(c: Cases) -> None:
    c[2] = replace(c[2], label=c[1].label)


def label_copied(c: Cases) -> None:
    for i in (1, 2):
        save(c[i].label, (adc(5) > 1300).astype(np.uint8))


def two_units(c: Cases) -> None:
    for i in (0, 1, 2):
        c[i] = replace(c[i], units=c[i].units | {"t1": ("ms", "a.u.", "s")[i]})


def too_large(c: Cases) -> None:
    array = adc(20).astype(np.float64)
    array[3, 3, 3] = 1e300
    put(c[2], "t1", array)


def four_d_label(c: Cases) -> None:
    write_volume(Volume(np.stack([lesion(), lesion()]), GRID), c[1].label)


def no_channel(c: Cases) -> None:
    c[3] = replace(c[3], images={"adc": c[3].images["adc"]})


def no_label(c: Cases) -> None:
    c[3] = replace(c[3], label=None)


def no_test_label(c: Cases) -> None:
    c[7] = replace(c[7], label=None)


def no_image(c: Cases) -> None:
    c[3] = replace(c[3], images={})


def other_shape(c: Cases) -> None:
    save(c[4].label, lesion()[:, :, :4], Grid((6, 7, 4), GRID.affine))


def other_spacing(c: Cases) -> None:
    put(c[4], "t1", adc(41), Grid(GRID.shape, GRID.affine @ np.diag([1, 1, 1.1, 1])))


def other_place(c: Cases) -> None:
    affine = GRID.affine.copy()
    affine[0, 3] += 3
    put(c[4], "t1", adc(41), Grid(GRID.shape, affine))


def of_size(case: Case, seed: int, shape: tuple[int, ...], spacing: tuple[float, ...]) -> None:
    """Put images and a label of another size in place of a case's."""
    grid, rng = Grid.of_spacing(shape, spacing), np.random.default_rng(seed)
    for path in case.images.values():
        array = rng.normal(1300, 100, shape).astype(np.float32)
        array[: shape[0] // 3] = 0
        save(path, array, grid)
    if case.label is not None:
        label = np.zeros(shape, np.uint8)
        label[tuple(n // 2 for n in shape)] = 1
        save(case.label, label, grid)


def in_micrometres(c: Cases) -> None:
    of_size(c[0], 500, GRID.shape, (1500, 1500, 4000))


def in_metres(c: Cases) -> None:
    of_size(c[0], 501, GRID.shape, (1.5e-3, 1.5e-3, 4e-3))


def in_centimetres(c: Cases) -> None:
    of_size(c[0], 502, (96, 96, 4), (0.15, 0.15, 0.4))


def slices(c: Cases) -> None:
    for i, case in enumerate(c):
        of_size(case, 500 + i, (6, 7, 1), (1.5, 1.5, 4))


def turned(c: Cases) -> None:
    angle = np.radians(5)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    put(c[4], "t1", adc(41), Grid(GRID.shape, turn @ GRID.affine))


def with_nan(c: Cases) -> None:
    array = adc(20)
    array[3, 3, :3] = np.nan, np.nan, np.inf
    put(c[2], "adc", array)


def constant(c: Cases) -> None:
    put(c[2], "t1", np.full(GRID.shape, 7, np.float32))


def all_zero(c: Cases) -> None:
    put(c[2], "t1", np.zeros(GRID.shape, np.float32))


def spike(c: Cases) -> None:
    array = adc(20)
    array[3, 3, 2] = 1e30
    put(c[2], "t1", array)


def label_255(c: Cases) -> None:
    save(c[2].label, lesion() * 255)


def label_almost(c: Cases) -> None:
    save(c[2].label, lesion() * 0.99999997)


def label_nan(c: Cases) -> None:
    save(c[2].label, np.where(lesion() > 0, np.nan, 0).astype(np.float32))


def one_empty(c: Cases) -> None:
    save(c[2].label, lesion() * 0)


def all_empty(c: Cases) -> None:
    for case in c[:7]:
        save(case.label, lesion() * 0)


def both_splits(c: Cases) -> None:
    c[7] = replace(c[7], subject="s0")


def patient_in_atlas(c: Cases) -> None:
    c[8] = replace(c[8], subject="s0")


def milli(c: Cases) -> None:
    put(c[0], "adc", adc(1000, 1e-3))
    c[0] = replace(c[0], units={})


def milli_declared_micro(c: Cases) -> None:
    put(c[0], "adc", adc(1000, 1e-3))


def no_adc(c: Cases) -> None:
    put(c[0], "adc", adc(1000, 30))
    c[0] = replace(c[0], units={})


def odd_unit(c: Cases) -> None:
    c[0] = replace(c[0], units={"adc": "mm/s"})


def two_orientations(c: Cases) -> None:
    path = c[0].images["adc"]
    image = nibabel.load(path)
    image.set_qform(np.diag([1.5, 1.5, 4, 1]), 1)
    image.to_filename(path)


def shifted_orientation(c: Cases) -> None:
    path = c[0].images["adc"]
    image = nibabel.load(path)
    image.set_qform(image.affine @ np.array([[1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]), 1)
    image.to_filename(path)


def no_orientation(c: Cases) -> None:
    for path in (*c[0].images.values(), c[0].label):
        image = nibabel.load(path)
        image.set_qform(None, 0)
        image.set_sform(None, 0)
        image.to_filename(path)


def not_stripped(c: Cases) -> None:
    put(c[0], "t1", adc(1000) + 1)


def other_scanner(c: Cases) -> None:
    for i, case in enumerate(c[4:8]):
        put(case, "t1", adc(2000 + i, 1.5))


def grey_among_colours(c: Cases) -> None:
    """Make every case a picture: two of them grey, one without any green, the others in colour."""
    folder, grid, pictures = c[0].label.parent, Grid((6, 7), np.eye(3)), []
    for i, case in enumerate(c[:8]):
        colours = np.random.default_rng(i).normal(220, 8, (3, 6, 7)).clip(1, 255).astype(np.uint8)
        colours[1:] = colours[:1] if i < 2 else colours[1:]
        if i == 5:
            colours[1] = 220
        mask = np.zeros((1, 6, 7), np.uint8)
        mask[0, 3, 3] = 1
        for name, array in ((f"{i}.png", colours), (f"{i}_mask.png", mask)):
            write_volume(Volume(array, grid), folder / name)
        images = dict.fromkeys(CHANNELS, folder / f"{i}.png")
        index = {"adc": 0, "t1": 1}
        pictures.append(replace(case, images=images, channel_index=index, label=folder / f"{i}_mask.png"))
    c[:] = pictures


def one_in_pixels(c: Cases) -> None:
    """Make every case a plane, one of them of PNG, which has no unit."""
    folder, grid = c[0].label.parent, Grid((6, 7), np.eye(3))
    for i, case in enumerate(c[:8]):
        ending, values = "png" if i == 3 else "mha", np.random.default_rng(i).integers(200, 255, (2, 1, 6, 7))
        mask = np.zeros((1, 6, 7), np.uint8)
        mask[0, 3, 3] = 1
        files = {name: folder / f"{i}_{name}.{ending}" for name in (*CHANNELS, "mask")}
        for name, array in zip(files, (*values.astype(np.uint8), mask), strict=True):
            write_volume(Volume(array, grid), files[name])
        c[i] = replace(case, images={name: files[name] for name in CHANNELS}, label=files["mask"])
    del c[8:]


BREAKAGES: list[tuple[str, str, str, Callable[[Cases], None]]] = [
    ("missing_files", "error", "not there", missing_file),
    ("missing_files", "error", "a link to a file that is not there", dead_link),
    ("unreadable_files", "error", "truncated or damaged", truncated),
    ("unreadable_files", "error", "gzip", text),
    ("unreadable_files", "error", "holds 2 volumes", four_d),
    ("unreadable_files", "error", "right angles", sheared),
    ("unreadable_files", "error", "label holds 2 volumes", four_d_label),
    ("duplicate_ids", "error", "occurs 2 times", twice),
    ("duplicate_content", "error", "same voxels as adc of case c0", same_scan),
    ("duplicate_content", "warning", "is t1 the right file", same_scan_other_channel),
    ("missing_channels", "error", "no image for the channel 't1'", no_channel),
    ("missing_labels", "error", "cannot be trained on", no_label),
    ("missing_labels", "error", "cannot be scored", no_test_label),
    ("missing_images", "error", "The label has no image", no_image),
    ("grids", "error", "shape (6, 7, 4) against (6, 7, 5)", other_shape),
    ("grids", "error", "spacing (1.5, 1.5, 4.4) mm against (1.5, 1.5, 4) mm", other_spacing),
    ("grids", "error", "centre", other_place),
    ("grids", "error", "turned by 5.00 degrees", turned),
    ("sizes", "error", "the header seems to give um", in_micrometres),
    ("sizes", "error", "the header seems to give metres: correct its spacing", in_metres),
    ("sizes", "warning", "14.4 mm long with voxels of 0.15 x 0.15 x 0.4 mm, which is small for a head", in_centimetres),
    ("kinds_of_images", "error", "1 case (c3) with 2 axes and a pixel of unknown size", one_in_pixels),
    ("single_slices", "error", "single slices: they have at most 6 x 7 x 1 voxels", slices),
    ("not_finite", "error", "2 voxels are NaN and 1 are infinite", with_nan),
    ("constant_images", "error", "Every voxel is 7", constant),
    ("constant_images", "error", "Every voxel is 0", all_zero),
    ("extreme_values", "warning", "a few voxels reach 1e+30, while the others lie between", spike),
    ("colours", "warning", "2 of 8 images are grey (c0, c1), the others in colour", grey_among_colours),
    ("not_finite", "error", "1 are infinite or beyond 3.4e38", too_large),
    ("shared_files", "error", "the same file as an image of case c2", label_is_image),
    ("shared_files", "error", "the same file as that of case c1", label_of_two),
    ("shared_files", "warning", "the same voxels as that of case c1", label_copied),
    ("units", "error", "The unit of t1 is 's' here and 'ms' in case c0", two_units),
    ("label_values", "error", "undeclared values 255 (declared: 0 and lesion = 1)", label_255),
    ("label_values", "error", "0.99999997", label_almost),
    ("label_values", "error", "nan", label_nan),
    ("empty_labels", "warning", "1 of 8 labels are empty (c2)", one_empty),
    ("empty_labels", "error", "All 7 training labels are empty", all_empty),
    ("split_subjects", "error", "s0 is in train (case c0) and in test (case c7)", both_splits),
    ("split_subjects", "error", "in patient (case c0) and in healthy (case h)", patient_in_atlas),
    ("adc_units", "warning", "recognised in 1e-3 mm2/s", milli),
    ("adc_units", "error", "that is 1e-3 mm2/s, but 1e-6 mm2/s is declared", milli_declared_micro),
    ("adc_units", "warning", "no plausible ADC", no_adc),
    ("adc_units", "error", "'mm/s' is not one of an ADC map", odd_unit),
    ("orientation", "warning", "disagree", two_orientations),
    ("orientation", "warning", "disagree on left and right", two_orientations),
    ("orientation", "warning", "disagree; the sform is used", shifted_orientation),
    ("orientation", "warning", "no orientation", no_orientation),
    ("background", "warning", "skull-stripped", not_stripped),
    ("brain_masks", "error", "0 everywhere", empty_mask),
    ("brain_masks", "error", "NaN", mask_with_nan),
    ("brain_masks", "warning", "100 % of the field of view", mask_of_everything),
    ("grids", "error", "The mask lies on another grid than adc", mask_elsewhere),
    ("missing_files", "error", "not there", no_mask),
    ("unreadable_files", "error", "gzip", mask_of_text),
    ("site_shift", "warning", "two groups", two_scales),
    ("site_shift", "warning", "B 2", other_scanner),
]


@pytest.mark.parametrize(("check", "severity", "told", "broken"), BREAKAGES, ids=[b[3].__name__ for b in BREAKAGES])
def test_each_breakage_is_found_by_its_check_alone(
    good: Cases, monkeypatch: pytest.MonkeyPatch, check: str, severity: str, told: str, broken: Callable[[Cases], None]
) -> None:
    broken(good)
    spoke: list[str] = []

    def listening(one):
        def run(data) -> list[Problem]:
            found = one.run(data)
            spoke.extend([one.name] * len(found))
            return found

        return replace(one, run=run)

    monkeypatch.setattr("neoseg.data.checks.run.CHECKS", tuple(listening(one) for one in CHECKS))
    problems = run_checks(good, LABELS, CHANNELS)
    assert set(spoke) == {check}
    assert any(p.severity == severity and told in p.sentence for p in problems), problems
    for problem in problems:
        assert problem.sentence.endswith((".", "?"))
        assert "\n" not in problem.sentence


def test_every_check_has_a_breakage() -> None:
    assert {b[0] for b in BREAKAGES} == {check.name for check in CHECKS}


def test_subjects_in_two_parts_or_folds(good: Cases) -> None:
    good[1] = replace(good[1], subject="s0")
    folds = [Fold(("c0", "c4"), ("c2",), ("c1",)), Fold(("c4",), ("c2",), ("c0", "c3"))]
    told = [p.sentence for p in run_checks(good, LABELS, CHANNELS, folds=folds)]
    assert any("s0 is in train of fold 0 (case c0) and in validation of fold 0 (case c1)" in t for t in told)
    assert any("s0 is in validation of fold 0 (case c1) and in validation of fold 1 (case c0)" in t for t in told)
    assert len(told) == 2


def test_all_problems_come_at_once_errors_first(good: Cases, tmp_path: Path) -> None:
    for broken in (missing_file, one_empty, no_label, with_nan, milli, both_splits):
        broken(good)
    before = {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()}
    problems = run_checks(good, LABELS, CHANNELS)
    severities = [p.severity for p in problems]
    assert severities == sorted(severities)
    assert severities.count("error") >= 4
    assert severities.count("warning") >= 2
    assert {f: f.stat().st_mtime_ns for f in tmp_path.iterdir()} == before


def test_fewer_subjects_than_folds_are_found_before_the_plan(good: Cases, tmp_path: Path) -> None:
    from assembled_run import open_table
    from neoseg.pipeline.check import check

    told = [p.told for p in check(open_table(tmp_path, good[:2])) if p.severity == "error"]
    assert told == ["folds: 2 subjects with a label, but 2 folds with an inner split need at least 4; add cases."]
    assert not [p for p in check(open_table(tmp_path, good[:4])) if p.severity == "error"]


def test_a_line_says_which_case_and_file(good: Cases) -> None:
    good[0], good[1] = replace(good[0], case="a"), replace(good[1], case="A")
    good[2] = replace(good[2], case="e")
    with_nan(good)
    other_shape(good)
    found = [p.told for p in run_checks(good, LABELS, CHANNELS)]
    assert any(told.startswith("case a, A: The case name occurs 2 times") for told in found)
    assert any(told.startswith(f"case e, {good[2].images['adc']}: 2 voxels are NaN") for told in found)
    assert any(told.startswith(f"case c4, {good[4].label}: The label lies on another grid") for told in found)


def test_a_fault_of_a_picture_in_colour_is_told_once(good: Cases) -> None:
    grey_among_colours(good)
    good[3].images["adc"].unlink()
    good[4].images["adc"].write_text("no picture", encoding="utf-8")
    told = [p.case for p in run_checks(good, LABELS, CHANNELS) if p.severity == "error"]
    assert told == ["c3", "c4"]


def test_each_file_is_read_once(good: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    from neoseg.data.checks import facts

    read: list[Path] = []
    for name in ("read_volume", "read_label"):
        real = getattr(facts, name)
        monkeypatch.setattr(facts, name, lambda path, real=real, **kw: (read.append(path), real(path, **kw))[1])
    run_checks(good, LABELS, CHANNELS)
    assert sorted(read) == sorted([f for c in good for f in c.images.values()] + [c.label for c in good if c.label])


def test_two_channels_of_one_4d_file_are_not_duplicates(tmp_path: Path) -> None:
    write_volume(Volume(np.stack([adc(1), adc(2)]), GRID), tmp_path / "x.nii.gz")
    case = Case(
        case="x",
        subject="x",
        images=dict.fromkeys(CHANNELS, tmp_path / "x.nii.gz"),
        channel_index={"adc": 0, "t1": 1},
        label=save(tmp_path / "l.nii.gz", lesion()),
    )
    assert run_checks([case], LABELS, CHANNELS) == []


@needs_data
def test_hippocampus_is_clean_and_its_negatives_are_not() -> None:
    data = import_data(DATA / "msd_hippocampus", "folders")
    assert run_checks(data.cases, LabelSet.of(data.labels), tuple(data.channels)) == []
    data = import_data(DATA / "msd_hippocampus" / "unpaired_negatives", "folders")
    problems = run_checks(data.cases, LabelSet.of(data.labels), tuple(data.channels))
    assert [(p.severity, p.case, p.sentence.split(",")[0].split(";")[0]) for p in problems] == [
        ("error", "hippocampus_010", "The label has no image"),
        ("error", "hippocampus_118", "The image has no label"),
        ("error", "hippocampus_281", "The label has no image"),
    ]


@needs_data
def test_the_unit_of_a_real_adc_map_is_recognised() -> None:
    path = DATA / "isles22_case0001_unlabelled" / "sub-strokecase0001_ses-0001_adc.nii.gz"
    case = Case(case="x", subject="x", group="healthy", images={"adc": path})
    (problem,) = run_checks([case], LABELS, ("adc",))
    assert problem.severity == "warning"
    assert "recognised in 1e-3 mm2/s; it will be converted to 1e-6 mm2/s" in problem.sentence


def test_of_a_channel_that_is_not_read_only_a_missing_file_is_told(good: Cases) -> None:
    def read(case: Case) -> tuple[str, ...]:
        return ("adc",) if case.group == "patient" else ()

    other_spacing(good)
    constant(good)
    put(good[8], "adc", adc(0))  # the scan of another subject
    assert len(run_checks(good, LABELS, CHANNELS)) == 3
    assert run_checks(good, LABELS, ("adc",), read=read) == []
    missing_file(good)
    good[3] = replace(good[3], images={"t1": good[3].images["t1"]})
    told = [(p.case, p.sentence.split(";")[0]) for p in run_checks(good, LABELS, ("adc",), read=read)]
    assert told == [
        ("c0", "The file is not there"),
        ("c3", "The case has no image for the channel 'adc' (valid: t1)"),
    ]
