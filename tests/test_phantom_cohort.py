"""The cohort as files: names, groups, burdens, grids, truth, determinism."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neoseg.atomic import read_json
from neoseg.io import read_volume
from neoseg.phantom.cohort import plan_cohort, write_cohort
from neoseg.phantom.config import CohortConfig, HeadConfig
from neoseg.phantom.geometry import draw_grid
from neoseg.phantom.head import make_head
from neoseg.phantom.lesions import burden_quantile, stratified

COARSE = HeadConfig(point_mm=(1.6, 5.0))
SMALL = CohortConfig(healthy=1, patients=2, held_out=1, seed=3, head=COARSE)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, SMALL)
    return folder


def test_the_layout_is_that_of_the_collection(cohort: Path) -> None:
    for split, count in (("BONBID2023_Train", 2), ("BONBID2023_Test", 1)):
        images = sorted((cohort / split / "1ADC_ss").iterdir())
        labels = sorted((cohort / split / "3LABEL").iterdir())
        assert len(images) == len(labels) == count
        for image, label in zip(images, labels, strict=True):
            assert image.name.startswith("MGHNICU_")
            assert image.name.endswith("-VISIT_01-ADC_ss.mha")
            assert label.name == image.name.replace("-ADC_ss.mha", "_lesion.mha")
    assert len(list((cohort / "healthy" / "1ADC_ss").iterdir())) == 1
    assert not (cohort / "healthy" / "3LABEL").exists()
    assert not [p for p in cohort.rglob("*") if "z" in p.name.lower().removesuffix(".npz")]


def test_files_read_back_on_the_grid_of_the_head_with_its_values(cohort: Path) -> None:
    index = read_json(cohort / "truth" / "index.json")
    assert len(index["cases"]) == 4
    for record in index["cases"]:
        adc = read_volume(cohort / record["image"])
        truth = np.load(cohort / record["truth"], allow_pickle=False)
        assert np.allclose(adc.grid.affine, truth["affine"], atol=1e-4)
        assert np.array_equal(adc.array[0] > 0, truth["tissues"] > 0) or (
            # a voxel of half a brain may have a larger share of no single tissue
            ((adc.array[0] > 0) ^ (truth["tissues"] > 0)).mean() < 0.01
        )
        assert np.array_equal(adc.array, np.rint(adc.array))
        if record["label"] is None:
            assert not truth["lesion_weight"].any()
            continue
        label = read_volume(cohort / record["label"])
        assert label.grid.shape == adc.grid.shape
        assert np.allclose(label.grid.affine, adc.grid.affine, atol=1e-6)
        assert not label.array[adc.array == 0].any()
        close = np.abs(truth["lesion_weight"].astype(int) - 125) <= 1
        assert np.array_equal((truth["lesion_weight"] >= 125)[~close], label.array[0][~close] > 0)


def test_a_head_of_the_cohort_is_a_function_of_seed_and_place_alone(cohort: Path, tmp_path: Path) -> None:
    def backwards(function, plan):  # type: ignore[no-untyped-def]
        return [function(member) for member in plan[::-1]][::-1]

    write_cohort(tmp_path, SMALL, run_each=backwards)
    files = sorted(p.relative_to(cohort) for p in cohort.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    for file in files:
        assert (cohort / file).read_bytes() == (tmp_path / file).read_bytes(), file


def test_names_are_unique_sparse_and_change_with_the_seed() -> None:
    plan = plan_cohort(Path(), CohortConfig())
    names = [member.case for member in plan]
    assert len(set(names)) == 62
    assert len({member.entropy for member in plan}) == 62
    numbers = sorted(int(name[8:11]) for name in names)
    assert np.diff(numbers).max() > 1
    assert names != [member.case for member in plan_cohort(Path(), CohortConfig(seed=1))]


def test_burdens_have_the_published_quantiles() -> None:
    burdens = np.array([burden_quantile((i + 0.5) / 4000) for i in range(4000)])
    assert (burdens == 0).mean() == pytest.approx(0.08, abs=0.001)
    assert 0.5 < (burdens < 1).mean() < 0.64
    some = np.log10(burdens[burdens > 0])
    assert some.mean() == pytest.approx(-0.13, abs=0.1)
    # cut at 0.015 % (a few voxels) and 80 %, the normal distribution keeps four fifths of its spread
    assert some.std() == pytest.approx(1.09, rel=0.2)
    assert burdens.max() < 85
    # quantiles of the training set, percent of the brain (to a factor of two: it is not exactly log-normal)
    for share, published in ((0.4, 0.174), (0.5, 0.328), (0.6, 0.857), (0.75, 4.97), (0.9, 24.0)):
        assert 0.5 < np.quantile(burdens, share) / published < 2


def test_a_small_group_has_the_quantiles_too() -> None:
    for seed in range(5):
        for count, empty in ((12, (0, 1)), (30, (2, 3))):
            burdens = np.array(stratified(np.random.default_rng(seed), count))
            assert empty[0] <= (burdens == 0).sum() <= empty[1]
            assert (burdens < 1).mean() > 0.5
            assert burdens.max() > 10


def test_grids_are_those_of_clinical_maps() -> None:
    grids = [draw_grid(np.random.default_rng(seed), 87.0) for seed in range(200)]
    shapes = np.array([g.shape for g in grids])
    spacings = np.array([g.spacing for g in grids])
    assert 0.2 < np.all(shapes[:, :2] == 128, axis=1).mean() < 0.7
    assert (shapes[:, 0] != shapes[:, 1]).mean() > 0.15
    assert shapes[:, 2].min() >= 16
    assert shapes[:, 2].max() <= 43
    assert spacings[:, :2].min() > 0.84
    assert spacings[:, :2].max() < 1.6
    assert spacings[:, 2].min() >= 2
    assert spacings[:, 2].max() <= 5 + 1e-6
    assert (shapes * spacings)[:, 2].min() > 80
    tilts = np.degrees([np.arccos(np.clip(np.abs(np.diag(g.directions)).min(), 0, 1)) for g in grids])
    assert np.median(tilts) > 1
    assert tilts.max() < 20
    assert {g.stored.flips for g in grids if g.stored is not None} > {(True, True, False)}


def test_a_grid_that_does_not_look_along_the_body_still_holds_the_head() -> None:
    for seed in range(4):
        one = make_head(np.random.default_rng([9, seed]), COARSE)
        rim = one.brain.array[0][[0, -1]].any() or one.brain.array[0][:, [0, -1]].any()
        assert not rim
