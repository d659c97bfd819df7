"""What is said about the template or atlas that a configuration names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neoseg.config import config_from
from neoseg.data.cases import Case, read_cases, write_cases
from neoseg.errors import ConfigError
from neoseg.io import read_volume, write_volume
from neoseg.pipeline.check import check
from neoseg.pipeline.prepare import atlas_of
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


def test_healthy_cases_with_labels_that_no_atlas_is_built_of_are_told(folder: Path) -> None:
    first, *others = read_cases(folder / "cases.csv")
    write_cases([replace(first, group="healthy"), *others], folder / "cases.csv")
    told = [p for p in check(session(folder)) if "group healthy" in p.sentence]
    assert [p.severity for p in told] == ["warning"] and "(a) take no part in this run" in told[0].told
    builds = replace(
        session(folder, zmap={}), config=session(folder, zmap={}).config.model_copy(update={"template": None})
    )
    assert builds.builds_atlas and not [p for p in check(builds) if "group healthy" in p.sentence]
    write_cases([replace(first, group="healthy", label=None), *others], folder / "cases.csv")
    assert not [p for p in check(session(folder)) if "group healthy" in p.sentence]


def test_the_warnings_of_a_given_atlas_reach_the_run(folder: Path) -> None:
    assert _of_atlas(session(folder, zmap={})) == ({}, ["The atlas normal: head 3: it lies turned."])
    assert _of_atlas(session(folder)) == ({}, [])


def with_t2(folder: Path, *, healthy: bool) -> None:
    """Give both patients a T2 image, and one head to build an atlas of."""
    cases = []
    for case in read_cases(folder / "cases.csv"):
        t2 = read_volume(case.images["adc"])
        write_volume(t2.with_array(3000 - t2.array), folder / f"{case.case}_t2.nii.gz")
        cases.append(replace(case, images={**case.images, "t2": folder / f"{case.case}_t2.nii.gz"}))
    more = [replace(cases[0], case="h", subject="h", group="healthy", label=None)] if healthy else []
    write_cases([*cases, *more], folder / "cases.csv")


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize(
    ("channels", "prepare", "words"),
    [
        (["t2"], {"space": "template"}, r"'t2' would be registered to an atlas of ADC.*name an image of t2"),
        (["t2", "zadc"], {"zmap": {}, "reference": "t2"}, r"'t2' would be .*prepare\.ffd = false\.$"),
        (["adc", "t2"], {"space": "template", "reference": "t2"}, "'t2' would be registered"),
        (["t2"], {"space": "template", "ffd": False}, None),
        (["t2"], {"space": "template", "reference": "adc"}, None),
        (["adc", "t2"], {"space": "template"}, None),
        (["t2", "zadc"], {"zmap": {}}, None),
        (["t2"], {"reference": "t2"}, None),
        (["t2"], {"zmap": {}, "reference": "t2"}, None),
    ],
)
def test_another_contrast_is_not_deformed_to_fit_an_atlas_of_adc(
    folder: Path, built: bool, channels: list[str], prepare: dict[str, object], words: str | None
) -> None:
    with_t2(folder, healthy=built)
    tree = {"labels": {"lesion": 1}, "prepare": prepare, "channels": channels}
    places = {"cases": folder / "cases.csv", "workspace": folder / "work"}
    places |= {} if built else {"template": folder / "normal"}
    config = config_from(tree, "test").model_copy(update=places)
    if words is None:
        assert open_session(config).channels == tuple(channels)
    else:
        with pytest.raises(ConfigError, match=words):
            open_session(config)


def test_an_image_of_its_contrast_may_be_the_template(folder: Path) -> None:
    with_t2(folder, healthy=True)
    tree = {"labels": {"lesion": 1}, "prepare": {"space": "template"}, "channels": ["t2"]}
    places = {"cases": folder / "cases.csv", "workspace": folder / "work", "template": folder / "a_t2.nii.gz"}
    assert open_session(config_from(tree, "test").model_copy(update=places)).channels_read == ("t2",)


@pytest.mark.parametrize("given", [True, False])
def test_the_atlas_of_a_run_is_one_of_adc(folder: Path, given: bool) -> None:
    with_t2(folder, healthy=True)
    tree = {"labels": {"lesion": 1}, "prepare": {"zmap": {}}, "channels": ["zadc"], "atlas": {"channel": "t2"}}
    places = {"cases": folder / "cases.csv", "workspace": folder / "work"}
    places |= {"template": folder / "normal"} if given else {}
    with pytest.raises(ConfigError, match=r"atlas\.channel is 't2', but the atlas of a run is one of 'adc'"):
        atlas_of(open_session(config_from(tree, "test").model_copy(update=places)))
