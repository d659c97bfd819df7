"""The facts of cases: pooled statistics, the window of CT, and files that tell nothing."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from neoseg.data.cases import Case
from neoseg.errors import GeometryError, InputError
from neoseg.io import write_volume
from neoseg.labels import LabelSet
from neoseg.plan.fingerprint import (
    LEVELS,
    CaseFacts,
    ChannelFacts,
    Fingerprint,
    LabelledFacts,
    case_facts,
    pooled_labelled,
    pooled_statistics,
    read_fingerprint,
    write_fingerprint,
)
from neoseg.volume import Grid, Volume

LABELS = LabelSet.of({"lesion": 1}, 0.0)


def with_channel(channel: ChannelFacts) -> CaseFacts:
    return CaseFacts(
        case="c",
        shape=(8, 8, 8),
        spacing_mm=(1.0, 1.0, 1.0),
        foreground_shape=(8, 8, 8),
        nonzero_shape=(8, 8, 8),
        foreground_ml=1.0,
        label_ml=(0.1,),
        channels={"t1": channel},
        notes=(),
    )


def labelled(values: NDArray[np.float64]) -> CaseFacts:
    part = LabelledFacts(
        mean=float(values.mean()), sd=float(values.std()), percentiles=tuple(np.percentile(values, LEVELS).tolist())
    )
    return with_channel(ChannelFacts(unit="HU", count=10, mean=0, sd=1, low=0, high=1, labelled=part))


def case(folder: Path, image: NDArray[np.float32], label: NDArray[np.uint8] | None = None) -> Case:
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    nib.save(nib.Nifti1Image(image, affine), folder / "image.nii.gz")
    if label is not None:
        nib.save(nib.Nifti1Image(label, affine), folder / "label.nii.gz")
    return Case(
        case="head1",
        subject="head1",
        images={"t1": folder / "image.nii.gz"},
        label=folder / "label.nii.gz" if label is not None else None,
    )


def test_pooled_statistics_are_those_of_all_voxels() -> None:
    def with_stats(count: int, mean: float, sd: float) -> CaseFacts:
        return with_channel(ChannelFacts(unit="", count=count, mean=mean, sd=sd, low=0, high=1))

    # 3 voxels of value 1 and 1 voxel of value 5: mean 2, sd sqrt(3)
    mean, sd = pooled_statistics([with_stats(3, 1.0, 0.0), with_stats(1, 5.0, 0.0)], "t1")
    assert (mean, sd) == pytest.approx((2.0, 3**0.5))


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**32 - 1), cases=st.integers(1, 6))
def test_the_window_is_that_of_all_labelled_voxels(seed: int, cases: int) -> None:
    generator = np.random.default_rng(seed)
    # as many voxels in each, since each case counts alike
    parts = [generator.gamma(4, 20, 20_000) + generator.normal(0, 60) for _ in range(cases)]
    found = pooled_labelled([labelled(p) for p in parts], "t1")
    assert found is not None
    pooled = np.concatenate(parts)
    low, high = np.percentile(pooled, (0.5, 99.5))
    assert found[:2] == pytest.approx((pooled.mean(), pooled.std()), rel=1e-6)
    assert found[2] == pytest.approx(low, abs=0.06 * pooled.std())
    assert found[3] == pytest.approx(high, abs=0.06 * pooled.std())


def test_a_large_label_does_not_outweigh_the_others() -> None:
    many, few = np.full(100_000, 10.0), np.full(10, 50.0)
    found = pooled_labelled([labelled(many), labelled(few)], "t1")
    assert found is not None
    assert found[0] == pytest.approx(30.0)
    assert found[2:] == pytest.approx((10.0, 50.0), abs=1e-6)
    assert pooled_labelled([with_channel(ChannelFacts(unit="", count=1, mean=0, sd=1, low=0, high=1))], "t1") is None


def test_the_facts_of_a_case_are_those_of_its_voxels(tmp_path: Path) -> None:
    image = np.zeros((12, 10, 8), dtype=np.float32)
    image[2:9, 3:8, 1:6] = np.random.default_rng(0).normal(100, 10, (7, 5, 5))
    label = np.zeros(image.shape, dtype=np.uint8)
    label[4:6, 4:6, 2:4] = 1
    found = case_facts(case(tmp_path, image, label), ["t1"], LABELS)
    assert found.nonzero_shape == (7, 5, 5)
    assert found.foreground_shape == (9, 7, 7)
    assert found.spacing_mm == (1.0, 2.0, 3.0)
    assert found.label_ml == pytest.approx((8 * 6 / 1000,))
    t1 = found.channels["t1"]
    assert (t1.mean, t1.sd) == pytest.approx((image[image > 0].mean(), image[image > 0].std()), rel=1e-5)
    assert t1.labelled is not None
    assert t1.labelled.mean == pytest.approx(image[label == 1].mean(), rel=1e-5)
    assert t1.labelled.percentiles[0] == pytest.approx(image[label == 1].min(), rel=1e-5)
    path = tmp_path / "fingerprint.json"
    write_fingerprint(path, Fingerprint(cases=(found,), failed={"head2": "why"}))
    assert read_fingerprint(path) == Fingerprint(cases=(found,), failed={"head2": "why"})


def test_an_empty_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"head1.*image\.nii\.gz holds only zeros"):
        case_facts(case(tmp_path, np.zeros((6, 6, 6), dtype=np.float32)), ["t1"], LABELS)


@pytest.mark.parametrize(("ending", "unit", "pixel"), [(".mha", "mm", 1.5 * 2), (".png", "px", 1.0)])
def test_a_plane_has_areas_and_black_is_no_background(tmp_path: Path, ending: str, unit: str, pixel: float) -> None:
    grid = Grid.of_spacing((7, 6), (1.5, 2.0))
    image, label = np.zeros((2, 1, 7, 6), dtype=np.uint8)
    image[0, 2:5, 2:4], label[0, 2:4, 2:4] = 90, 1
    write_volume(Volume(image, grid), tmp_path / f"flat{ending}")
    write_volume(Volume(label, grid), tmp_path / f"label{ending}")
    images = {"t1": tmp_path / f"flat{ending}"}
    found = case_facts(Case(case="a", subject="a", images=images, label=tmp_path / f"label{ending}"), ["t1"], LABELS)
    assert (found.unit, found.shape, found.nonzero_shape) == (unit, (7, 6), (7, 6))
    assert (found.foreground_ml, *found.label_ml) == pytest.approx((42 * pixel, 4 * pixel))
    assert found.channels["t1"].mean == pytest.approx(image.mean())


def test_one_slice_and_a_constant_image_have_facts(tmp_path: Path) -> None:
    found = case_facts(case(tmp_path, np.full((6, 6, 1), 7.0, dtype=np.float32)), ["t1"], LABELS)
    assert found.foreground_shape == (6, 6, 1)
    assert (found.channels["t1"].mean, found.channels["t1"].sd) == (7.0, 0.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["cases"][0]["channels"]["t1"].update(mean=float("nan")), "cases.0.channels.t1.mean"),
        (lambda tree: tree["cases"][0].update(spacing_mm=[1.0, float("inf"), 1.0]), "cases.0.spacing_mm.1"),
        (lambda tree: tree.pop("cases"), "cases"),
    ],
)
def test_a_fingerprint_with_nan_or_without_cases_is_named(tmp_path: Path, change: object, words: str) -> None:
    path = tmp_path / "fingerprint.json"
    write_fingerprint(path, Fingerprint(cases=(labelled(np.arange(9.0)),)))
    tree = json.loads(path.read_text())
    change(tree)  # type: ignore[operator]
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match=words) as caught:
        read_fingerprint(path)
    assert "delete the file" in str(caught.value)


@pytest.mark.parametrize(
    ("channel", "declared", "scale", "told"),
    [
        ("adc", "1e-3 mm2/s", 1e-3, "1e-6 mm2/s"),
        ("adc", "", 1e-3, "1e-6 mm2/s"),
        ("md", "um2/s", 1.0, "1e-6 mm2/s"),
        ("t1", "a.u.", 1.0, "a.u."),
        ("t1", "", 1.0, ""),
        ("adc", "", 1e-2, ""),
    ],
)
def test_the_unit_of_a_channel_is_that_of_its_numbers(
    tmp_path: Path, channel: str, declared: str, scale: float, told: str
) -> None:
    image = np.zeros((12, 12, 10), np.float32)
    image[2:10, 3:10, 2:9] = np.random.default_rng(0).normal(1200, 60, (8, 7, 7)) * scale
    given = case(tmp_path, image)
    units = {channel: declared} if declared else {}
    found = case_facts(replace(given, images={channel: given.images["t1"]}, units=units), [channel], LABELS)
    facts = found.channels[channel]
    assert facts.unit == told
    assert facts.mean == pytest.approx(1200 if told == "1e-6 mm2/s" else 1200 * scale, rel=0.02)


def test_a_label_beside_its_image_by_less_than_is_shown_is_told_by_how_much(tmp_path: Path) -> None:
    given = case(tmp_path, np.random.default_rng(0).normal(100, 9, (12, 10, 8)).astype(np.float32))
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 3] = 0.04
    affine[2, 2] = 3.015
    nib.save(nib.Nifti1Image(np.ones((12, 10, 8), np.uint8), affine), tmp_path / "label.nii.gz")
    with pytest.raises(GeometryError, match=r"\(spacing \(1, 2, 3\.015\) mm against \(1, 2, 3\) mm, so corners lie"):
        case_facts(replace(given, label=tmp_path / "label.nii.gz"), ["t1"], LABELS)


def test_a_given_mask_counts_in_pictures_too(tmp_path: Path) -> None:
    image, mask = np.zeros((24, 20), dtype=np.float32), np.zeros((24, 20), dtype=np.uint8)
    mask[4:12, 5:13] = 1
    image[mask > 0] = np.random.default_rng(0).normal(100, 1, 64)
    one = case(tmp_path, image + 1)
    nib.save(nib.Nifti1Image(mask, np.diag([1.0, 2.0, 3.0, 1.0])), tmp_path / "mask.nii.gz")
    found = case_facts(replace(one, mask=tmp_path / "mask.nii.gz"), ["t1"], LABELS)
    assert found.channels["t1"].mean == pytest.approx(image[mask > 0].mean() + 1, rel=1e-4)


def test_objects_of_pictures_have_the_diameter_of_a_disc_of_their_area(tmp_path: Path) -> None:
    x, y = np.meshgrid(np.arange(96), np.arange(64), indexing="ij")
    label = np.zeros((96, 64), dtype=np.uint8)
    for (i, j), radius in {(16, 16): 4, (16, 44): 8, (60, 32): 20}.items():
        label[(x - i) ** 2 + (y - j) ** 2 <= radius**2] = 255
    files = {}
    for name, array in {"picture": x + y, "mask": label, "empty": 0 * label}.items():
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(array.astype(np.uint8).T).save(files[name])
    labels = LabelSet.of({"nucleus": 255}, 0.0)
    picture = Case(case="p", subject="p", images={"grey": files["picture"]}, label=files["mask"])
    assert case_facts(picture, ("grey",), labels).object_px == pytest.approx(2 * 8, rel=0.02)
    assert case_facts(replace(picture, label=files["empty"]), ("grey",), labels).object_px is None
    volume = case(tmp_path, np.ones((8, 8, 8), np.float32) + np.eye(8, dtype=np.float32), np.ones((8, 8, 8), np.uint8))
    assert case_facts(volume, ("t1",), LABELS).object_px is None
