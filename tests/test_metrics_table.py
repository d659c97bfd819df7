"""The list of metrics: what every metric owes, the empty cases, and the file of scores."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import neoseg.metrics
from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.metrics import METRICS, Pair, Score, read_scores, score_case, worst_value, write_scores

SHAPE, SPACING = (6, 5, 4), (1.4, 1.4, 3.0)
NAMES = [metric.name for metric in METRICS]
UNITS = {"ratio", "mm", "mL", "count"}
nan = float("nan")

# both empty, truth empty, prediction empty; the mask of the half-empty cases has two lesions of 2 and 4 voxels.
ML = 1.4 * 1.4 * 3.0 / 1000
EMPTY_CASES = {
    "dice": (1, 0, 0),
    "iou": (1, 0, 0),
    "sensitivity": (1, nan, 0),
    "precision": (1, 0, nan),
    "volume_difference": (0, 6 * ML, -6 * ML),
    "relative_volume_difference": (0, 2, -2),
    "hd95": (0, nan, nan),
    "masd": (0, nan, nan),
    "assd": (0, nan, nan),
    "nsd": (1, 0, 0),
    "lesion_sensitivity": (1, nan, 0),
    "lesion_precision": (1, 0, nan),
    "lesion_f1": (1, 0, 0),
    "false_positive_lesions": (0, 2, 0),
    "false_positive_volume": (0, 6 * ML, 0),
}


def some_mask():
    mask = np.zeros(SHAPE, bool)
    mask[0, 0, 0:2] = mask[3:5, 3:5, 3] = True
    return mask


def limits(metric, shape=SHAPE, spacing=SPACING):
    """Smallest and largest possible value."""
    worst = worst_value(metric, shape, spacing)
    return (-worst, worst) if metric.direction == "zero" else tuple(sorted((metric.best, worst)))


def test_names_are_unique_and_every_metric_has_an_empty_case_here():
    assert len(set(NAMES)) == len(NAMES)
    assert set(EMPTY_CASES) == set(NAMES)


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_every_metric_states_itself(metric):
    assert metric.unit in UNITS
    assert metric.direction in {"higher", "lower", "zero"}
    assert len(metric.text) > 20
    worst = worst_value(metric.name, SHAPE, SPACING)
    assert math.isfinite(worst)
    assert worst < metric.best if metric.direction == "higher" else worst > metric.best


@pytest.mark.parametrize("metric", METRICS, ids=NAMES)
def test_empty_cases(metric):
    empty, some = np.zeros(SHAPE, bool), some_mask()
    pairs = ((empty, empty), (empty, some), (some, empty))
    found = [score_case(*pair, SPACING, metrics=[metric.name])[metric.name] for pair in pairs]
    assert found == pytest.approx(EMPTY_CASES[metric.name], nan_ok=True)
    # The function itself is never asked about two empty masks, and where it is it agrees with the rule or abstains.
    for rule, pair in zip((metric.empty.truth, metric.empty.prediction), pairs[1:], strict=True):
        raw = metric.function(Pair(*pair, SPACING))
        assert rule is None or raw == rule or (math.isnan(raw) and math.isnan(rule))


@settings(max_examples=25, deadline=None)
@given(arrays(bool, SHAPE), arrays(bool, SHAPE))
def test_random_masks_stay_in_range_and_identical_ones_are_best(truth, prediction):
    scores, perfect = score_case(truth, prediction, SPACING), score_case(truth, truth, SPACING)
    assert list(scores) == NAMES
    for metric in METRICS:
        assert perfect[metric.name] == metric.best
        low, high = limits(metric)
        assert type(scores[metric.name]) is float
        assert math.isnan(scores[metric.name]) or low - 1e-9 <= scores[metric.name] <= high + 1e-9


@settings(max_examples=20, deadline=None)
@given(arrays(bool, SHAPE), arrays(bool, SHAPE), st.permutations(range(3)), st.integers(0, 2))
def test_no_metric_depends_on_the_order_or_direction_of_axes(truth, prediction, order, axis):
    expected = score_case(truth, prediction, SPACING)
    turned = [np.flip(mask, axis).transpose(order) for mask in (truth, prediction)]
    found = score_case(*turned, [SPACING[a] for a in order])
    assert found == pytest.approx(expected, abs=1e-9, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(arrays(bool, (7, 6)), arrays(bool, (7, 6)))
def test_flat_images_have_all_metrics(truth, prediction):
    scores = score_case(truth, prediction, (0.5, 0.8))
    for metric in METRICS:
        low, high = limits(metric, (7, 6), (0.5, 0.8))
        assert math.isnan(scores[metric.name]) or low - 1e-9 <= scores[metric.name] <= high + 1e-9


def test_records_are_computed_once_and_only_when_asked(monkeypatch):
    from neoseg.metrics import surface

    calls = []
    original = surface.surface_distances
    monkeypatch.setattr(surface, "surface_distances", lambda *given: calls.append(1) or original(*given))
    score_case(some_mask(), some_mask(), SPACING, metrics=["dice", "lesion_f1"])
    assert not calls
    score_case(some_mask(), some_mask(), SPACING)
    assert len(calls) == 1


def test_tolerance_reaches_nsd():
    truth, prediction = np.zeros((2, 20, 6, 6), bool)
    truth[4], prediction[7] = True, True
    values = [score_case(truth, prediction, (1, 1, 1), metrics=["nsd"], tolerance_mm=t)["nsd"] for t in (1.0, 2.0, 3.0)]
    assert values[0] == 0 < values[1] < values[2] == 1


def test_worst_values():
    assert worst_value("dice", (10, 10, 10), (1, 1, 1)) == 0
    assert worst_value("hd95", (30, 40, 60), (1.0, 1.0, 2.0)) == pytest.approx(130.0)
    assert worst_value("false_positive_volume", (10, 10, 10), (1.0, 2.0, 5.0)) == pytest.approx(10.0)
    # The far corners of an image are the worst case of a distance, and reach the diagonal.
    truth, prediction = np.zeros((2, 5, 4, 3), bool)
    truth[0, 0, 0] = prediction[4, 3, 2] = True
    hd95 = score_case(truth, prediction, (1, 1, 1), metrics=["hd95"])["hd95"]
    assert 0.6 * worst_value("hd95", (5, 4, 3), (1, 1, 1)) < hd95 <= worst_value("hd95", (5, 4, 3), (1, 1, 1))


def test_errors_name_what_was_given():
    mask = some_mask()
    with pytest.raises(ConfigError, match=r"'dise'.*did you mean 'dice'"):
        score_case(mask, mask, SPACING, metrics=["dise"])
    with pytest.raises(ConfigError, match="tolerance_mm is -1"):
        score_case(mask, mask, SPACING, tolerance_mm=-1)
    with pytest.raises(GeometryError, match=r"\(6, 5, 4\).*\(6, 5, 3\)"):
        score_case(mask, mask[..., 1:], SPACING)
    with pytest.raises(InputError, match=r"uint8.*bool"):
        score_case(mask.astype(np.uint8), mask, SPACING)


def test_scores_survive_their_file(tmp_path):
    rows = [
        Score("case, 1", "lesion", "dice", 0.1 + 0.2, "ratio"),
        Score('a "b"', "lesion", "masd", nan, "mm"),
        Score("新生儿", "whole", "volume_difference", -1e-300, "mL"),
    ]
    path = tmp_path / "scores.csv"
    write_scores(rows, path)
    assert path.read_text(encoding="utf-8").splitlines()[0] == "case,label,metric,value,unit"
    found = read_scores(path)
    assert [row.value for row in found] == pytest.approx([row.value for row in rows], rel=0, abs=0, nan_ok=True)
    assert [(row.case, row.label, row.metric, row.unit) for row in found] == [
        (row.case, row.label, row.metric, row.unit) for row in rows
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,value\na,1\n", "the columns are"),
        ("", "the columns are"),
        ("case,label,metric,value,unit\na,b,dice,many,ratio\n", "line 2.*many"),
        ("case,label,metric,value,unit\na,b,dice,0.5\n", "line 2"),
        ("case,label,metric,value,unit\na,b,dice,0.5,ratio,more\n", "line 2"),
    ],
)
def test_broken_score_files_are_refused(tmp_path, text, words):
    path = tmp_path / "scores.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        read_scores(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_scores(tmp_path / "absent.csv")


def test_import_is_light():
    code = (
        "import sys, neoseg.metrics\n"
        "heavy = {'torch', 'monai', 'scipy', 'skimage', 'cc3d', 'SimpleITK', 'nibabel', 'pandas'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_scoring_loads_no_torch():
    code = (
        "import sys, numpy, neoseg.metrics as m\n"
        "a = numpy.zeros((4, 4, 4), bool); a[1:3, 1:3, 1:3] = True\n"
        "m.score_case(a, a, (1, 1, 1)); m.bonbid(a, a, (1, 1, 1))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_public_names_exist():
    assert all(hasattr(neoseg.metrics, name) for name in neoseg.metrics.__all__)
