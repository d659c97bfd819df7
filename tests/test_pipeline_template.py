"""What is said about the template or atlas that a configuration names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from neoseg.config import config_from
from neoseg.data.cases import Case, write_cases
from neoseg.io import write_volume
from neoseg.pipeline.check import check
from neoseg.pipeline.run import _of_atlas
from neoseg.pipeline.session import Session, open_session
from neoseg.prepare.atlas import Atlas
from neoseg.volume import Grid, Volume

GRID = Grid.of_spacing((8, 8, 6), (2, 2, 2))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two patients, and an atlas whose building had something to say."""
    rng = np.random.default_rng(0)
    inside = np.zeros(GRID.shape, bool)
    inside[2:-2, 2:-2, 1:-1] = True
    cases = []
    for name in ("a", "b"):
        image, label = tmp_path / f"{name}_adc.nii.gz", tmp_path / f"{name}_label.nii.gz"
        adc = np.where(inside, rng.normal(1200, 80, GRID.shape), 0).astype(np.float32)
        write_volume(Volume(adc[None], GRID), image)
        write_volume(Volume((adc > 1250).astype(np.uint8)[None], GRID), label)
        cases.append(Case(case=name, subject=name, images={"adc": image}, label=label))
    write_cases(cases, tmp_path / "cases.csv")
    mean = np.where(inside, np.float32(1200), np.float32(0))[None]
    maps = (mean, mean / 10, inside[None].astype(np.uint8))
    atlas = Atlas(
        *(Volume(array, GRID) for array in maps),
        count=12,
        unit="1e-6 mm2/s",
        provenance={"warnings": ["head 3: it lies turned."]},
    )
    atlas.save(tmp_path / "normal")
    return tmp_path


def session(folder: Path, **prepare: object) -> Session:
    tree = {"labels": {"lesion": 1}, "prepare": prepare}
    config = config_from(tree, "test")
    places = {"cases": folder / "cases.csv", "workspace": folder / "work", "template": folder / "normal"}
    return open_session(config.model_copy(update=places))


def test_a_template_that_nothing_looks_at_is_reported(folder: Path) -> None:
    told = [p for p in check(session(folder)) if "template" in p.sentence]
    assert [p.severity for p in told] == ["warning"]
    assert 'is not used, because prepare.space is "native" and there is no [prepare.zmap]' in told[0].told
    for used in ({"space": "template"}, {"zmap": {}}):
        assert not [p for p in check(session(folder, **used)) if "is not used" in p.sentence]


def test_the_warnings_of_a_given_atlas_reach_the_run(folder: Path) -> None:
    assert _of_atlas(session(folder, zmap={})) == ({}, ["The atlas normal: head 3: it lies turned."])
    assert _of_atlas(session(folder)) == ({}, [])
