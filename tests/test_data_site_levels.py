"""Sites on another scale are found, with and without their names; cohorts on one scale raise no alarm."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from neoseg.cli.app import run
from neoseg.data.cases import Case, write_cases
from neoseg.data.foreground import head_levels
from neoseg.data.site_levels import Level, sites_that_differ, two_groups
from neoseg.io import write_volume
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.phantom.shell import unstripped
from neoseg.volume import Grid, Volume

SEEDS = range(50)
SD = 0.065
"""Of the upper level over healthy heads; with the injuries it comes to the 8 % of benchmarks/results/sites.json."""


def cohort(seed: int, count: int = 30) -> np.ndarray:
    """Upper levels of a cohort: healthy variation, and one case in eight with a large injury."""
    generator = np.random.default_rng(seed)
    values = 1850 * np.exp(generator.normal(0, SD, count))
    injured = generator.random(count) < 1 / 8
    return np.where(injured, values * generator.uniform(0.82, 0.97, count), values)


def levels(values: np.ndarray, sites: int) -> list[Level]:
    """Deal the values out to the sites in turn; 0 sites: none is named."""
    return [Level(f"c{i}", f"S{i % sites}" if sites else "", float(v)) for i, v in enumerate(values)]


@pytest.mark.parametrize("sites", [2, 3, 5])
@pytest.mark.parametrize("count", [12, 30, 60])
def test_sites_on_one_scale_raise_no_alarm(sites: int, count: int) -> None:
    alarms = [told for seed in SEEDS if (told := sites_that_differ(levels(cohort(seed, count), sites)))]
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize("count", [6, 12, 30, 60])
def test_one_scale_is_no_two_groups(count: int) -> None:
    alarms = [told for seed in SEEDS if (told := two_groups(levels(cohort(seed, count), 0)))]
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize(
    "change", [lambda v: v + 600, lambda v: v * 1.46, lambda v: v * 0.7], ids=["+600", "*1.46", "*0.7"]
)
@pytest.mark.parametrize("count", [12, 30, 60])
def test_a_shifted_half_is_found(change: object, count: int) -> None:
    assert callable(change)
    named = unnamed = 0
    for seed in SEEDS:
        values = cohort(seed, count)
        values[::2] = change(values[::2])
        told = sites_that_differ(levels(values, 2))
        named += "S0" in told and "S1" in told and f"n {count // 2}" in told
        unnamed += "two groups" in two_groups(levels(values, 0))
    assert named >= len(SEEDS) - 1
    assert unnamed >= (0.94 if count >= 30 else 0.8) * len(SEEDS)


def test_one_odd_site_of_four_is_found_and_all_numbers_are_given() -> None:
    values = cohort(0, 40)
    values[::4] += 600
    told = sites_that_differ(levels(values, 4))
    assert all(f"S{i} " in told for i in range(4))
    assert told.count("n 10") == 4


def test_too_few_cases_say_nothing() -> None:
    values = np.array([1800.0, 2500, 1790, 2510])
    assert sites_that_differ(levels(values, 2)) == ""
    assert two_groups(levels(values, 0)) == ""
    assert sites_that_differ([]) == two_groups([]) == ""


def test_a_single_outlier_is_no_site() -> None:
    values = cohort(1, 30)
    values[3] *= 1.6
    assert two_groups(levels(values, 0)) == ""


@pytest.fixture(scope="module")
def head() -> Head:
    return make_head(np.random.default_rng(5), HeadConfig(point_mm=(1.7, 3.5)))


def test_the_level_is_that_of_the_brain_whatever_lies_around_it(head: Head) -> None:
    stripped = head_levels(head.adc.array[0])
    for air in ("zero", "noise", "clipped"):
        raw = unstripped(head, np.random.default_rng(0), air=air)  # type: ignore[arg-type]
        found = head_levels(raw.array[0])
        assert found == pytest.approx(stripped, rel=0.12), air
    shifted = head_levels(head.adc.array[0] + 600)
    assert shifted == pytest.approx([s + 600 for s in stripped])


def test_injury_moves_the_upper_level_little() -> None:
    config = HeadConfig(point_mm=(1.7, 3.5))
    healthy = make_head(np.random.default_rng(6), config, lesion_burden=0.0)
    injured = make_head(np.random.default_rng(6), config, lesion_burden=40.0)
    before, after = head_levels(healthy.adc.array[0]), head_levels(injured.adc.array[0])
    assert after[1] > 0.8 * before[1]
    assert after[0] < 0.95 * before[0]


def test_an_image_without_content_has_no_level() -> None:
    assert np.isnan(head_levels(np.zeros((4, 4, 4)))).all()
    assert np.isnan(head_levels(np.full((4, 4, 4), np.nan))).all()


@pytest.mark.parametrize("named", [True, False])
def test_check_tells_the_numbers_by_site(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], named: bool
) -> None:
    grid = Grid.of_spacing((24, 24, 12), (4.0, 4.0, 8.0))
    cases = []
    for i in range(10):
        adc, label = np.zeros(grid.shape, np.float32), np.zeros(grid.shape, np.uint8)
        adc[6:18, 6:18, 3:9] = np.random.default_rng(i).normal(1300 + 600 * (i % 2), 60, (12, 12, 6))
        label[8, 8, 5] = 1
        write_volume(Volume(adc[None], grid), tmp_path / f"c{i}_adc.nii.gz")
        write_volume(Volume(label[None], grid), tmp_path / f"c{i}_label.nii.gz")
        site = ("A", "B")[i % 2] if named else ""
        images = {"adc": tmp_path / f"c{i}_adc.nii.gz"}
        cases.append(
            Case(case=f"c{i}", subject=f"s{i}", site=site, images=images, label=tmp_path / f"c{i}_label.nii.gz")
        )
    write_cases(cases, tmp_path / "cases.csv")
    (tmp_path / "neoseg.toml").write_text('cases = "cases.csv"\n[labels]\nlesion = 1\n', encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["neoseg", "check", "--workspace", str(tmp_path), "--json", "--quiet"])
    assert run() == 0
    told = [problem["sentence"] for problem in json.loads(capsys.readouterr().out)]
    (sentence,) = [t for t in told if "scanner" in t]
    assert "(n 5" in sentence
    assert all(word in sentence for word in (("A 1", "B 19") if named else ("two groups", "`site`")))
