"""The brain of stripped and unstripped procedural heads, whatever their background is, and of real maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neoseg.data.brain_mask import brain_mask, estimated_brain
from neoseg.data.cases import Case, read_cases, write_cases
from neoseg.data.foreground import foreground_mask
from neoseg.data.loading import load_images, load_mask
from neoseg.errors import GeometryError, InputError
from neoseg.io import read_volume, write_volume
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.shell import Air, unstripped
from neoseg.prepare.case import physical_maps
from neoseg.prepare.configs import PrepareConfig
from neoseg.volume import Grid, Volume

DATA = Path(__file__).parents[2] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not on this machine")
COARSE = HeadConfig(point_mm=(1.7, 3.5))
BURDENS = (None, 60.0)


@pytest.fixture(scope="module", params=BURDENS, ids=lambda b: f"burden-{b}")
def head(request: pytest.FixtureRequest) -> Head:
    return make_head(np.random.default_rng(31), COARSE, lesion_burden=request.param)


@pytest.fixture(scope="module")
def healthy() -> Head:
    return make_head(np.random.default_rng(32), COARSE)


def truth(head: Head) -> np.ndarray:
    return head.brain.array[0] != 0


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def with_background(head: Head, value: float) -> Volume:
    return head.adc.with_array(np.where(truth(head), head.adc.array[0], np.float32(value)))


@pytest.mark.parametrize("value", [0.0, -1000.0, 500.0, 1200.0])
def test_the_background_of_a_stripped_head_may_have_any_value(head: Head, value: float) -> None:
    found = brain_mask(with_background(head, value), "adc")
    assert (found.origin, found.background, found.warning) == ("background", value, None)
    assert dice(found.mask, truth(head)) > 0.999


@pytest.mark.parametrize(("air", "least"), [("zero", 0.96), ("noise", 0.93), ("clipped", 0.93)])
def test_the_brain_of_an_unstripped_head_is_estimated(head: Head, air: Air, least: float) -> None:
    scan = unstripped(head, np.random.default_rng(1), air=air)
    found = brain_mask(scan, "adc")
    assert found.origin == "estimated"
    assert not found.stripped
    assert "does not seem skull-stripped" in str(found.warning)
    assert dice(found.mask, truth(head)) > least
    assert float((found.mask & truth(head)).sum() / truth(head).sum()) > 0.97
    lesion = head.label.array[0] != 0
    assert lesion[found.mask].sum() >= 0.98 * lesion.sum()


def test_noise_of_any_size_around_a_stripped_head_is_not_brain(healthy: Head) -> None:
    noise = np.random.default_rng(2).uniform(0, 4095, healthy.adc.grid.shape)
    scan = healthy.adc.with_array(np.where(truth(healthy), healthy.adc.array[0], noise).astype(np.float32))
    found = brain_mask(scan, "adc")
    assert found.origin == "estimated"
    assert dice(found.mask, truth(healthy)) > 0.93


def test_the_shell_lies_around_the_brain_and_not_in_it(healthy: Head) -> None:
    scan, brain = unstripped(healthy, np.random.default_rng(1), air="zero").array[0], truth(healthy)
    assert np.median(np.abs(scan[brain] / (healthy.clean.array[0] * healthy.field.array[0])[brain] - 1)) < 0.1
    assert 0.1 < (scan[~brain] > 200).sum() / brain.sum() < 1.5
    assert (scan[~brain] == 0).mean() > 0.6


def test_without_a_brain_nothing_is_made_up() -> None:
    noise = np.random.default_rng(0).normal(0, 900, (40, 40, 20)).astype(np.float32)
    volume = Volume(noise[None], Grid.of_spacing((40, 40, 20), (1.5, 1.5, 3)))
    assert not estimated_brain(noise, volume.spacing).any()
    with pytest.raises(InputError, match="give a mask"):
        brain_mask(volume, "adc")
    index = np.indices((40, 40, 20)).transpose(1, 2, 3, 0)
    ball = np.linalg.norm((index - [20, 20, 10]) * [1.5, 1.5, 3], axis=-1) < 20
    unknown_unit = volume.with_array(np.where(ball, 0.5, 0).astype(np.float32) + 0.01 * ball * noise / 900)
    found = brain_mask(unknown_unit, "adc")
    assert found.origin == "background"
    assert "Check the unit" in str(found.warning)


def test_of_other_images_nothing_is_estimated(healthy: Head) -> None:
    scan = unstripped(healthy, np.random.default_rng(1), air="noise")
    found = brain_mask(scan, "mr")
    assert found.origin == "everything"
    assert found.mask.mean() > 0.99
    assert "Strip the skull" in str(found.warning)


def test_a_slab_inside_the_brain_is_brain_everywhere(healthy: Head) -> None:
    inside = np.argwhere(truth(healthy)).mean(axis=0).astype(int)
    box = tuple(slice(c - r, c + r) for c, r in zip(inside, (12, 12, 3), strict=True))
    part = healthy.adc.array[0][box]
    found = brain_mask(Volume(part[None], healthy.adc.grid.cropped(tuple(s.start for s in box), part.shape)), "adc")
    assert found.origin == "estimated"
    assert found.mask.mean() > 0.95


def test_one_slice_and_two_dimensions_are_told() -> None:
    slice_of_head = np.zeros((1, 60, 60, 1), np.float32)
    slice_of_head[0, 15:45, 15:45] = 1200 + np.random.default_rng(0).normal(0, 20, (30, 30, 1))
    found = brain_mask(Volume(slice_of_head, Grid.of_spacing((60, 60, 1), (2, 2, 5))), "adc")
    assert found.mask.sum() == 900
    with pytest.raises(GeometryError, match="3-D"):
        brain_mask(Volume(slice_of_head[..., 0], Grid.of_spacing((60, 60), (2, 2))), "adc")


@needs_data
def test_a_real_stripped_map_is_known_as_one() -> None:
    path = DATA / "isles22_case0001_unlabelled" / "sub-strokecase0001_ses-0001_adc.nii.gz"
    loaded = load_images(Case(case="x", subject="x", images={"adc": path}), ["adc"])
    assert loaded.origin == "background"
    assert np.array_equal(loaded.image.array[0] != 0, read_volume(path).array[0] != 0)


@needs_data
def test_a_real_unstripped_map_is_estimated_whatever_its_air_is() -> None:
    signal, adc = philips_adc()
    for name, values in {"noise": adc, "zero": np.where(signal < 0.05 * np.percentile(signal, 99), 0, adc)}.items():
        volume = Volume(values[None].astype(np.float32), Grid.of_spacing(values.shape, (2, 2, 2)))
        found = brain_mask(volume, "adc")
        assert found.origin == "estimated", name
        # An adult's brain at 2 mm, less the lowest and highest slices of the slab.
        assert 850 < found.mask.sum() * 0.008 < 1250, name
        # In the strongly weighted images the brain is bright and the scalp is dark.
        assert np.median(signal[found.mask]) > 2 * np.median(signal[~found.mask]), name


def philips_adc() -> tuple[np.ndarray, np.ndarray]:
    """Signal without weighting and ADC ``(x, y, z)`` of the volunteer's series, sorted by b-value and direction."""
    import SimpleITK as sitk  # noqa: N813

    groups: dict[tuple[float, str], list[tuple[float, np.ndarray]]] = {}
    for file in sorted((DATA / "dicom" / "brain_dwi_philips" / "series").glob("*.dcm")):
        image = sitk.ReadImage(str(file), sitk.sitkFloat32)
        across = np.asarray(image.GetDirection()).reshape(3, 3)[:, 2]
        key = (float(image.GetMetaData("0018|9087")), image.GetMetaData("0018|9089"))
        groups.setdefault(key, []).append(
            (float(across @ np.asarray(image.GetOrigin())), sitk.GetArrayFromImage(image)[0].T)
        )
    volumes = {
        key: np.stack([s for _, s in sorted(slices, key=lambda p: p[0])], axis=2) for key, slices in groups.items()
    }
    signal = next(v for (b, _), v in volumes.items() if b == 0)
    weighted = [np.log(np.maximum(v, 1)) for (b, _), v in volumes.items() if b > 0]
    return signal, (np.log(np.maximum(signal, 1)) - np.mean(weighted, axis=0)) * 1000


@pytest.fixture
def raw(tmp_path: Path, healthy: Head) -> Case:
    """An unstripped scan and its true brain mask as files."""
    write_volume(unstripped(healthy, np.random.default_rng(1)), tmp_path / "a_adc.nii.gz")
    write_volume(healthy.brain, tmp_path / "a_mask.nii.gz")
    return Case(case="a", subject="a", images={"adc": tmp_path / "a_adc.nii.gz"}, mask=tmp_path / "a_mask.nii.gz")


def test_cases_csv_carries_a_mask_and_only_where_there_is_one(raw: Case, tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    write_cases([raw, replace(raw, case="b", mask=None)], table)
    assert table.read_text(encoding="utf-8").splitlines()[0].endswith(",label,mask")
    first, second = read_cases(table)
    assert (first.mask, second.mask) == (raw.mask, None)
    write_cases([second], table)
    assert "mask" not in table.read_text(encoding="utf-8").splitlines()[0]


def test_what_is_loaded_is_0_outside_the_given_mask(raw: Case, healthy: Head) -> None:
    loaded = load_images(raw, ["adc"])
    assert loaded.origin == "given"
    assert any("a_mask.nii.gz" in note for note in loaded.notes)
    assert np.array_equal(loaded.image.array[0] != 0, truth(healthy))
    assert dice(foreground_mask(loaded.image.array), truth(healthy)) > 0.999


def test_what_is_loaded_without_a_mask_is_0_outside_the_estimate(raw: Case, healthy: Head) -> None:
    loaded = load_images(replace(raw, mask=None), ["adc"])
    assert loaded.origin == "estimated"
    assert any("estimated" in note for note in loaded.notes)
    assert dice(foreground_mask(loaded.image.array), truth(healthy)) > 0.93


def test_a_background_other_than_0_is_told_and_removed(raw: Case, healthy: Head) -> None:
    write_volume(with_background(healthy, -3), raw.images["adc"])
    loaded = load_images(replace(raw, mask=None), ["adc"])
    assert loaded.origin == "background"
    assert loaded.notes == ("The background has the value -3; it was set to 0.",)
    assert np.array_equal(loaded.image.array[0] != 0, truth(healthy))


def test_all_channels_share_the_mask(raw: Case, healthy: Head) -> None:
    t1 = raw.images["adc"].with_name("a_t1.nii.gz")
    write_volume(healthy.adc.with_array(np.full(healthy.adc.grid.shape, 7, np.float32)), t1)
    both = replace(raw, images={**raw.images, "t1": t1})
    loaded = load_images(both, ["t1", "adc"])
    assert np.array_equal(loaded.image.array[0] == 7, truth(healthy))


@pytest.mark.parametrize("order", [["t1", "adc"], ["adc", "t1"]])
def test_a_stripped_map_cuts_the_brain_out_of_a_channel_that_is_not(raw: Case, healthy: Head, order: list[str]) -> None:
    stripped = with_background(healthy, 0)
    write_volume(stripped, raw.images["adc"])
    t1 = raw.images["adc"].with_name("a_t1.nii.gz")
    whole = np.random.default_rng(3).normal(100, 10, healthy.adc.grid.shape).astype(np.float32)
    write_volume(healthy.adc.with_array(whole), t1)
    loaded = load_images(replace(raw, mask=None, images={**raw.images, "t1": t1}), order)
    brain = foreground_mask(stripped.array)
    assert loaded.origin == "background"
    assert loaded.notes == ("What is background in adc was set to 0 in the other channels.",)
    found = dict(zip(loaded.channels, loaded.image.array, strict=True))
    assert np.array_equal(found["t1"], np.where(brain, whole, 0))
    assert np.array_equal(found["adc"], stripped.array[0])
    assert np.array_equal(physical_maps(loaded, PrepareConfig(), None, want=("t1",)).mask, brain)
    alone = load_images(replace(raw, mask=None), ["adc"])
    assert (alone.notes, alone.origin) == ((), "background")
    assert np.array_equal(alone.image.array, stripped.array)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: Volume(v.array, Grid(v.grid.shape, np.diag([1, 1, 1, 1.0]))), "resample the mask"),
        (lambda v: v.with_array(v.array * 0), "0 everywhere"),
        (lambda v: v.with_array(np.where(v.array > 0, np.nan, 0).astype(np.float32)), "NaN"),
    ],
    ids=["another grid", "empty", "NaN"],
)
def test_a_mask_that_cannot_be_one_is_named(raw: Case, healthy: Head, change: object, words: str) -> None:
    assert callable(change)
    assert raw.mask is not None
    write_volume(change(healthy.brain), raw.mask)
    with pytest.raises(InputError, match=words) as caught:
        load_images(raw, ["adc"])
    assert "a_mask.nii.gz" in str(caught.value)


def test_the_origin_of_the_mask_reaches_what_the_report_reads(raw: Case) -> None:
    for case, origin, words in ((raw, "given", "a_mask.nii.gz"), (replace(raw, mask=None), "estimated", "estimated")):
        loaded = load_images(case, ["adc"])
        physical = physical_maps(loaded, PrepareConfig(), None, want=("adc",))
        assert physical.facts["brain_mask"] == origin
        assert any(words in sentence for sentence in physical.warnings)
        told = foreground_mask(loaded.image.array)
        assert np.array_equal(physical.mask, told if case.mask is None else load_mask(case.mask, loaded.image))
