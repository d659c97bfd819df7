"""The BONBID-HIE preset against results of the organisers' scorer (tests/references/README.md)."""

import statistics
from pathlib import Path

import numpy as np
import pytest

from neoseg.errors import ConfigError, GeometryError
from neoseg.metrics import PRESETS, bonbid, bonbid_aggregates, element_areas, preset_named, score_case

FIXTURE = np.load(Path(__file__).parent / "references" / "bonbid_metrics_fixture.npz", allow_pickle=False)
NAMES = [str(name) for name in FIXTURE["names"]]
QUIRKS = [f"quirk_{name}" for name in FIXTURE["quirk_names"]]
OFFICIAL = {"current": "official_dice_masd_nsd", "2023": "official_2023order_dice_masd_nsd"}


def case(name):
    """Arrays (x, y, z) and spacing as a reader of the file gives them."""
    arrays = (FIXTURE[f"{kind}__{name}"].transpose(2, 1, 0) for kind in ("gt", "pred"))
    return *arrays, tuple(FIXTURE[f"spacing_xyz__{name}"])


def values(result):
    return [result["dice"], result["masd"], result["nsd"]]


@pytest.mark.parametrize("order", OFFICIAL)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_official_scorer(name, order):
    expected = FIXTURE[OFFICIAL[order]][NAMES.index(name)]
    np.testing.assert_allclose(values(bonbid(*case(name), order)), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", QUIRKS)
def test_odd_label_values_as_the_official_scorer(name):
    np.testing.assert_allclose(values(bonbid(*case(name))), FIXTURE[f"official__{name}"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("index", range(3))
def test_element_areas_equal_the_official_table(index):
    found = element_areas(FIXTURE[f"area_table_spacing_zyx_{index}"])
    np.testing.assert_allclose(found, FIXTURE[f"area_table_{index}"], rtol=0, atol=1e-12)


def test_orders_differ_on_thick_slices():
    truth, prediction, spacing = case("ball_shift_z1_sp_1.5625_4")
    assert bonbid(truth, prediction, spacing)["nsd"] == pytest.approx(0.733, abs=5e-4)
    assert bonbid(truth, prediction, spacing, "2023")["nsd"] == 1.0
    assert PRESETS["bonbid-2023"].function(truth, prediction, spacing)["nsd"] == 1.0


def test_cast_is_the_one_of_itk():
    sitk = pytest.importorskip("SimpleITK")
    odd = [-1.0, -0.5, -1.7, 0.999, 255.9, 256.0, 300.2, -300.5, np.nan, np.inf, -np.inf, 3e9, 5e9, 2.0**31 + 7, 1e20]
    from neoseg.metrics.presets import _as_uint8

    for kind in (np.float32, np.float64):
        array = np.array([odd], kind)
        cast = sitk.GetArrayFromImage(sitk.Cast(sitk.GetImageFromArray(array), sitk.sitkUInt8))
        np.testing.assert_array_equal(_as_uint8(array), cast)
    whole = np.array([[-1, 256, 65535, -300]], np.int32)
    np.testing.assert_array_equal(_as_uint8(whole), [[255, 0, 255, 212]])
    np.testing.assert_array_equal(_as_uint8(np.array([[True, False]])), [[1, 0]])


@pytest.mark.parametrize("step", [0.4, float(np.float32(0.4)), 2 / 3, 0.1])
def test_no_slack_at_the_tolerance(step):
    # Straight runs and 3-4-5 triangles of whole steps are 2 mm; the float32 nearest to 0.4 is a little more than 0.4.
    surface_distance = pytest.importorskip("surface_distance")
    generator = np.random.default_rng(4)
    for _ in range(5):
        truth, prediction = generator.random((2, 24, 24, 14)) < 0.001
        found = bonbid(truth, prediction, (step, step, step))["nsd"]
        record = surface_distance.compute_surface_distances(truth, prediction, (step, step, step))
        assert found == pytest.approx(surface_distance.compute_surface_dice_at_tolerance(record, 2.0), abs=1e-12)


def test_agrees_with_the_table_when_spacing_is_equal_in_plane():
    truth, prediction, spacing = case("diffuse_multifocal_small")
    table = score_case(truth > 0, prediction > 0, spacing, metrics=["dice", "masd", "nsd"])
    assert bonbid(truth, prediction, spacing) == pytest.approx(table, abs=1e-12)


def test_aggregates_leave_out_undefined_values():
    rows = [bonbid(*case(name)) for name in NAMES]
    summary = bonbid_aggregates(rows)
    assert list(summary) == ["dice", "masd", "nsd"]
    for column, (name, found) in enumerate(summary.items()):
        official = FIXTURE[OFFICIAL["current"]][:, column]
        defined = [float(value) for value in official if not np.isnan(value)]
        assert found["count"] == len(defined) == len(NAMES) - (2 if name == "masd" else 0)
        quartiles = statistics.quantiles(defined, n=4, method="inclusive")
        expected = [statistics.mean(defined), statistics.stdev(defined), min(defined), max(defined), *quartiles]
        keys = ["mean", "std", "min", "max", "25pc", "50pc", "75pc"]
        assert [found[key] for key in keys] == pytest.approx(expected, abs=1e-9)


def test_aggregates_of_too_few_cases():
    nan = float("nan")
    assert bonbid_aggregates([]) == {}
    one = bonbid_aggregates([{"dice": 0.5, "masd": nan}])
    assert one["dice"]["mean"] == one["dice"]["25pc"] == 0.5
    assert np.isnan(one["dice"]["std"])
    assert one["masd"]["count"] == 0
    assert all(np.isnan(value) for key, value in one["masd"].items() if key != "count")


def test_errors_name_what_was_given():
    mask = np.zeros((4, 5, 6), np.uint8)
    with pytest.raises(ConfigError, match=r"'2024'.*'current', '2023'"):
        bonbid(mask, mask, (1, 1, 1), "2024")
    with pytest.raises(GeometryError, match=r"\(4, 5, 6\).*\(4, 5, 5\)"):
        bonbid(mask, mask[..., 1:], (1, 1, 1))
    with pytest.raises(GeometryError, match="three spacings"):
        bonbid(mask[0], mask[0], (1, 1))
    with pytest.raises(GeometryError, match="positive"):
        bonbid(mask, mask, (1, 1, 0))
    with pytest.raises(ConfigError, match="did you mean 'bonbid'"):
        preset_named("bonbit")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_states_its_units(name):
    preset = preset_named(name)
    mask = np.ones((3, 3, 3), np.uint8)
    assert preset.name == name
    assert preset.text
    assert list(preset.function(mask, mask, (1.0, 1.0, 2.0))) == list(preset.units)
