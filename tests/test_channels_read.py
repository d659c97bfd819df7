"""Which channels are read of a case, and in which unit: training cases and new scans alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from assembled_run import SHAPE, assemble, open_table, save
from neoseg.config import load_config
from neoseg.data.cases import Case
from neoseg.data.checks import run_checks
from neoseg.data.loading import load_images
from neoseg.data.store import CaseStore
from neoseg.errors import ConfigError, InputError, StateError
from neoseg.io import read_volume
from neoseg.pipeline.check import check
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.manifest import usual_units
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.plan import plan
from neoseg.pipeline.session import open_session
from neoseg.plan.fingerprint import read_facts
from neoseg.prepare.configs import PrepareConfig, channels_read
from neoseg.workspace import Run

MILLI = "1e-3 mm2/s"


def head(seed: int, outside: float = 0.0) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.uint8]]:
    """T2 of a whole head with its surroundings, a diffusion map of the brain in 1e-6 mm2/s, and a label."""
    generator = np.random.default_rng(seed)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij"), axis=-1)
    brain = np.linalg.norm((index - np.array(SHAPE) / 2) / (np.array(SHAPE) / 2 - 3), axis=-1) < 1
    label = np.zeros(SHAPE, np.uint8)
    label[8:12, 8:13, 6:11] = 1
    t2 = generator.normal(100, 10, SHAPE) + 40.0 * label
    adc = np.where(brain, generator.normal(1200, 100, SHAPE) - 500.0 * label, outside)
    return t2.astype(np.float32), adc.astype(np.float32), label


def cases_of(folder: Path, second: str = "adc", scale: float = 1.0, outside: float = 0.0) -> list[Case]:
    cases = []
    for number in range(4):
        t2, adc, label = head(number, outside)
        name = f"p{number}"
        images = {
            "t2": save(folder / f"{name}_t2.nii.gz", t2),
            second: save(folder / f"{name}_{second}.nii.gz", adc * np.float32(scale)),
        }
        cases.append(Case(case=name, subject=name, images=images, label=save(folder / f"{name}_label.nii.gz", label)))
    return cases


@pytest.mark.parametrize(
    ("config", "channels", "makes_zmap", "wanted"),
    [
        ({}, ("t2",), False, ("t2",)),
        ({"reference": "adc"}, ("t2",), False, ("t2",)),
        ({"zmap": {}}, ("t2",), False, ("t2",)),
        ({"zmap": {}}, ("t2", "zadc"), True, ("t2", "zadc", "adc")),
        ({"zmap": {}}, ("zadc",), False, ("zadc",)),
        ({"space": "template"}, ("t2",), False, ("t2",)),
        ({"space": "template", "reference": "t1"}, ("t2", "adc"), False, ("t2", "adc", "t1")),
        ({"space": "template", "zmap": {}, "reference": "t1"}, ("zadc",), True, ("zadc", "adc", "t1")),
    ],
)
def test_besides_the_networks_channels_only_those_that_a_step_needs(
    config: dict[str, object], channels: tuple[str, ...], makes_zmap: bool, wanted: tuple[str, ...]
) -> None:
    assert channels_read(PrepareConfig.model_validate(config), channels, makes_zmap=makes_zmap) == wanted


def test_an_adc_map_that_is_no_channel_changes_nothing_of_the_others(tmp_path: Path) -> None:
    # a background that is not 0, so that the brain is cut out of every channel that is read with it
    cases = cases_of(tmp_path, outside=7.0)
    session = open_table(tmp_path, cases, 'channels = ["t2"]')
    run = assemble(session)
    predictor, channels = load_predictor(run.folder, "cpu")
    assert channels == session.channels_read == ("t2",)
    ready = predictor.ready(read_volume(cases[0].images["t2"]), channels)
    store = CaseStore(session.store.folder)
    np.testing.assert_array_equal(store.array("p0", "image"), ready.prepared.image)
    assert store.array("p0", "mask").all()  # the whole head, with what is around it
    assert read_facts(session.workspace.fingerprint)[0].channels["t2"].count == np.prod(SHAPE)


def test_what_is_registered_has_its_say_in_the_plan_and_is_asked_of_every_case(tmp_path: Path) -> None:
    cases = cases_of(tmp_path, outside=7.0)
    save(tmp_path / "template.nii.gz", head(9)[1])
    more = 'channels = ["t2"]\ntemplate = "template.nii.gz"\n[prepare]\nspace = "template"\nreference = "adc"\n'
    session = open_table(tmp_path, cases, more)
    assert session.channels_read == ("t2", "adc")
    made = plan(session)
    (facts, *_) = read_facts(session.workspace.fingerprint)
    assert made.channels == ("t2",) and list(facts.channels) == ["t2"]
    # ADC shows the brain, and what is not brain is cut away before T2 is looked at, as in preparation
    assert facts.channels["t2"].count == np.count_nonzero(head(0)[1])
    assert not [p for p in check(session) if p.severity == "error"]
    without = replace(cases[0], images={"t2": cases[0].images["t2"]})
    session = open_table(tmp_path, [without, *cases[1:]], more)
    assert [p.case for p in check(session) if "no image for the channel 'adc'" in p.told] == ["p0"]


def test_where_some_cases_bring_a_z_map_adc_is_not_asked_of_them(tmp_path: Path) -> None:
    cases = [replace(c, images={**c.images, "zadc": c.images["t2"]}) for c in cases_of(tmp_path)]
    cases[0] = replace(cases[0], images={name: path for name, path in cases[0].images.items() if name != "adc"})
    session = open_table(tmp_path, cases, 'channels = ["t2", "zadc"]\n[prepare.zmap]\n')
    assert not [p for p in check(session) if "no image for the channel" in p.told]
    assert run_checks(cases, session.labels, ["adc"])  # it would be


@pytest.mark.parametrize("channels", [["adc"], ["adc", "t1"]])
def test_an_image_that_is_never_read_stops_nothing(tmp_path: Path, channels: list[str]) -> None:
    cases = [replace(c, images={**c.images, "t1": c.images["t2"]}) for c in cases_of(tmp_path)]
    elsewhere = save(tmp_path / "other_t1.nii.gz", head(0)[0][:, :, 1:])
    cases[0] = replace(cases[0], images={**cases[0].images, "t1": elsewhere})
    other = replace(cases[1], case="h", subject="h", group="healthy", label=None, images={"t1": elsewhere})
    session = open_table(tmp_path, [*cases, other], f"channels = {json.dumps(channels)}")
    told = [p.told for p in check(session) if p.severity == "error"]
    assert any("another grid" in t and "p0" in t for t in told) is ("t1" in channels), told
    if "t1" not in channels:
        assert [t for t in told if "case h" not in t] == []
        cases[2] = replace(cases[2], images={"t1": cases[2].images["t1"]})
        found = check(open_table(tmp_path, cases, 'channels = ["adc"]'))
        assert ["no image for the channel 'adc'" in p.told for p in found if p.severity == "error"] == [True]


def test_a_scan_that_lacks_a_channel_does_not_lose_the_others(tmp_path: Path) -> None:
    run = assemble(open_table(tmp_path, cases_of(tmp_path)))
    t2, adc, _ = head(7)
    for name in ("a_t2", "b_t2", "b_adc", "c_adc"):
        save(tmp_path / "in" / f"{name}.nii.gz", t2 if name.endswith("t2") else adc)
    found = predict_scans(run.folder, tmp_path / "in", tmp_path / "out", device="cpu")
    assert [(scan.case, scan.mask is not None) for scan in found] == [("a", False), ("b", True), ("c", False)]
    assert "'a' lacks ['adc']" in str(found[0].error) and "'c' lacks ['t2']" in str(found[2].error)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["b.nii.gz", "predictions.json"]


def test_of_the_healthy_group_adc_is_read_where_an_atlas_is_built_of_it(tmp_path: Path) -> None:
    cases = cases_of(tmp_path)
    healthy = replace(cases[0], case="h", subject="h", group="healthy", label=None)
    for more, wanted in (
        ('channels = ["t2", "zadc"]\n[prepare.zmap]\n', ("adc",)),
        ('channels = ["adc"]\n[prepare]\nspace = "template"\n', ("adc",)),
        ('channels = ["t2"]\n[prepare.zmap]\n', ()),
        ('channels = ["adc"]\ntemplate = "t.nii.gz"\n[prepare]\nspace = "template"\n', ()),
    ):
        session = open_table(tmp_path, [*cases, healthy], more)
        assert session.read_of(healthy) == wanted
        assert session.read_of(cases[0]) == session.channels_read


# Units.


def test_a_unit_that_the_training_cases_declare_counts_for_new_scans(tmp_path: Path) -> None:
    cases = [replace(c, units={"md": MILLI}) for c in cases_of(tmp_path, "md", 1e-3)]
    session = open_table(tmp_path, cases, 'channels = ["md"]')
    run = assemble(session)
    assert usual_units(run) == {"md": MILLI}
    _, adc, _ = head(0)
    for name, scale in (("milli", 1e-3), ("micro", 1.0)):
        save(tmp_path / "in" / f"{name}.nii.gz", adc * np.float32(scale))
    predict_scans(run.folder, tmp_path / "in", tmp_path / "out", device="cpu", probabilities=True)
    found = {p.name: read_volume(p).array for p in (tmp_path / "out").glob("*_probability_ball.nii.gz")}
    milli, micro = found["milli_probability_ball.nii.gz"], found["micro_probability_ball.nii.gz"]
    np.testing.assert_allclose(milli, micro, atol=1e-5)
    predictor, channels = load_predictor(run.folder, "cpu")
    image = read_volume(tmp_path / "in" / "micro.nii.gz")
    alike = predictor.predict(image, channels).probabilities
    assert alike is not None and milli.std() > 0
    np.testing.assert_allclose(micro, alike.array, atol=1e-5)
    store = CaseStore(session.store.folder)
    np.testing.assert_allclose(store.array("p0", "image"), predictor.ready(image, channels).prepared.image, atol=1e-4)


@pytest.mark.parametrize(
    ("channel", "declared", "wanted"),
    [
        ("md", [MILLI] * 4, {"md": MILLI}),
        ("md", ["um2/s", "1e-6 mm2/s", "um2/s", ""], {"md": "um2/s"}),
        ("md", [MILLI, MILLI, MILLI, ""], {"md": ""}),
        ("md", [MILLI, MILLI, "mm2/s", MILLI], {"md": ""}),
        ("md", [""] * 4, {}),
        ("md", ["a.u."] * 4, {}),
        ("adc", [MILLI] * 4, {"adc": MILLI}),
        ("adc", [MILLI, "", "", ""], {"adc": MILLI}),
        ("adc", [MILLI, "mm2/s", "", ""], {}),
    ],
)
def test_the_units_of_a_run_are_those_of_its_labelled_training_cases(
    tmp_path: Path, channel: str, declared: list[str], wanted: dict[str, str]
) -> None:
    def facts(unit: str, **where: str) -> dict[str, object]:
        place = {"subject": "", "site": "", "group": "patient", "split": "train"} | where
        units = {channel: unit} if unit else {}
        return {**place, "files": {channel: "0", "label": "1"}, "index": {}, "units": units}

    found = {f"p{i}": facts(unit) for i, unit in enumerate(declared)}
    found |= {"h": facts("mm2/s", group="healthy"), "t": facts("mm2/s", split="test")}
    assert usual_units(Run(tmp_path)) == {}
    (tmp_path / "manifest.json").write_text(json.dumps({"given": {}, "cases": found}))
    assert usual_units(Run(tmp_path)) == wanted
    del found["p3"]["units"]
    (tmp_path / "manifest.json").write_text(json.dumps({"given": {}, "cases": found}))
    with pytest.raises(StateError, match=r"manifest\.json: this file is damaged \(KeyError\('units'\)"):
        usual_units(Run(tmp_path))


def test_a_unit_that_is_given_is_doubted_where_the_values_tell_another(tmp_path: Path) -> None:
    file = save(tmp_path / "a.nii.gz", head(0)[1])
    case = Case(case="a", subject="a", images={"adc": file}, units={"adc": MILLI})
    notes = load_images(case, ["adc"]).notes
    assert any(f"ADC given in {MILLI} and converted" in note for note in notes)
    assert any(f"{MILLI} is given, but its values are those of an ADC map in 1e-6 mm2/s" in note for note in notes)


def test_a_scan_whose_numbers_tell_no_unit_has_that_of_training_or_is_refused(tmp_path: Path) -> None:
    values = head(0)[1] * np.float32(1e-2)  # a median of 12 is none of a head in any unit
    for channel in ("md", "adc"):
        case = Case(case="a", subject="a", images={channel: save(tmp_path / "a.nii.gz", values)})
        loaded = load_images(case, [channel], usual={channel: MILLI})
        np.testing.assert_allclose(loaded.image.array[0], values * 1000, rtol=1e-6)
        assert any("as in training, 1e-3 mm2/s is taken" in note for note in loaded.notes)
        assert not any("recognised" in note for note in loaded.notes)
    case = Case(case="a", subject="a", images={"md": tmp_path / "a.nii.gz"})
    with pytest.raises(InputError, match=r"a\.nii\.gz: the training cases had md in different units"):
        load_images(case, ["md"], usual={"md": ""})
    save(tmp_path / "a.nii.gz", head(0)[1] * np.float32(1e-3))
    loaded = load_images(case, ["md"], usual={"md": ""})
    np.testing.assert_allclose(loaded.image.array[0], head(0)[1], rtol=1e-5)
    assert any(f"recognised in {MILLI} and converted" in note for note in loaded.notes)


# Rules.

RULE = '[[rules]]\nname = "r"\nchannel = "{}"\nlow = 400\nhigh = 1400\n'


def test_rules_that_cannot_be_scored_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    cases = cases_of(tmp_path)
    with pytest.raises(ConfigError, match="rules: the channel 'adc' is not among the channels"):
        open_table(tmp_path, cases, f'channels = ["t2"]\n{RULE.format("adc")}')
    open_table(tmp_path, cases, RULE.format("adc"))
    text = (tmp_path / "neoseg.toml").read_text().replace("ball = 1", "ball = 1, other = 2")
    (tmp_path / "neoseg.toml").write_text(text)
    with pytest.raises(ConfigError, match="a threshold finds one class, but 2 are declared"):
        open_session(load_config(tmp_path / "neoseg.toml"))
