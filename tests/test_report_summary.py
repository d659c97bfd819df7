"""Summaries against hand-worked numbers and against the normal theory of a mean."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neoseg.errors import InputError
from neoseg.metrics.scores import Score
from neoseg.report.content import ScoreRow
from neoseg.report.scores import metric_notes, score_lines, score_row
from neoseg.report.summary import by_burden, false_positives, paired_difference, subject_means, summarise


def seeded(seed=0):
    return np.random.default_rng(seed)


def test_numbers_worked_by_hand():
    summary = summarise([0.2, None, 0.6, float("nan"), 0.7], [0.0] * 5, generator=seeded())
    assert (summary.n, summary.n_undefined) == (5, 2)
    assert summary.mean == pytest.approx(0.5)
    assert summary.mean_worst == pytest.approx(0.3)
    assert summary.median == pytest.approx(0.6)
    assert summary.sd == pytest.approx(math.sqrt((0.3**2 + 0.1**2 + 0.2**2) / 2))
    assert summary.interval[0] < 0.5 < summary.interval[1]
    assert summary.interval_worst[0] < 0.3 < summary.interval_worst[1]


def test_worst_value_of_each_case_is_put_in_and_makes_a_distance_larger():
    summary = summarise([1.0, None, math.inf], [100.0, 200.0, 300.0], generator=seeded())
    assert summary.n_undefined == 2
    assert summary.mean == 1.0
    assert summary.mean_worst == pytest.approx((1 + 200 + 300) / 3)


def test_what_cannot_be_known_is_none_and_json_holds_no_nan():
    nothing = summarise([], [], generator=seeded())
    undefined = summarise([None], [3.0], generator=seeded())
    one = summarise([0.4], [0.0], generator=seeded())
    assert nothing.mean is None and nothing.mean_worst is None and nothing.interval is None
    assert undefined.mean is None and undefined.median is None and undefined.mean_worst == 3.0
    assert one.mean == 0.4 and one.sd is None and one.interval is None
    for summary in (nothing, undefined, one, summarise([0.1, 0.2], [0.0, 0.0], generator=seeded())):
        assert json.loads(json.dumps(summary.to_json(), allow_nan=False))["n"] == summary.n


def test_same_seed_same_interval_other_seed_other_interval():
    values, worst = list(seeded(1).random(20)), [0.0] * 20
    first, again, other = (summarise(values, worst, generator=seeded(s)) for s in (3, 3, 4))
    assert first == again
    assert first.interval != other.interval


def test_interval_agrees_with_normal_theory():
    values = list(seeded(5).normal(10.0, 2.0, 400))
    low, high = summarise(values, [0.0] * 400, generator=seeded(6), resamples=8000).interval
    half = 1.959964 * np.std(values) / math.sqrt(400)
    assert low == pytest.approx(np.mean(values) - half, abs=0.05 * half)
    assert high == pytest.approx(np.mean(values) + half, abs=0.05 * half)


def test_interval_covers_the_true_mean_about_95_times_in_100():
    draw, hits = seeded(7), 0
    for _ in range(400):
        low, high = summarise(list(draw.normal(0, 1, 40)), [0.0] * 40, generator=draw, resamples=500).interval
        hits += low <= 0 <= high
    assert 0.91 <= hits / 400 <= 0.975


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=1, max_size=12))
def test_worst_value_never_helps_and_means_lie_in_their_intervals(values):
    summary = summarise(values, [0.0] * len(values), generator=seeded(), resamples=100)
    if summary.mean is not None:
        assert summary.mean_worst <= summary.mean + 1e-12
    for interval in (summary.interval, summary.interval_worst):
        assert interval is None or -1e-12 <= interval[0] <= interval[1] <= 1 + 1e-12


def test_wrong_worst_values_are_refused():
    with pytest.raises(InputError, match="one finite worst value"):
        summarise([0.1, 0.2], [0.0], generator=seeded())
    with pytest.raises(InputError, match="one finite worst value"):
        summarise([0.1], [float("nan")], generator=seeded())


def test_paired_difference_is_over_common_cases_and_narrower_than_unpaired():
    base = seeded(8).random(30)
    paired = paired_difference([*(base + 0.1), None], [*base, 0.3], seeded())
    assert paired.n == 30
    assert paired.mean == pytest.approx(0.1)
    assert paired.interval == pytest.approx((0.1, 0.1))
    assert paired_difference([0.5], [0.2], seeded()).interval is None
    with pytest.raises(InputError, match="same cases"):
        paired_difference([0.5], [0.2, 0.1], seeded())


NAMES = [f"s{i}" for i in range(10)]


def test_cases_doubled_under_their_subject_change_no_interval():
    draw = seeded(11)
    values, worst = [*draw.random(9), None], list(draw.random(10))
    once = summarise(values, worst, generator=seeded())
    twice = summarise(values * 2, worst * 2, generator=seeded(), subjects=NAMES * 2)
    assert (twice.n, twice.n_undefined) == (20, 2)
    assert (twice.interval, twice.interval_worst) == (once.interval, once.interval_worst)
    assert (twice.mean, twice.mean_worst) == pytest.approx((once.mean, once.mean_worst))
    apart = summarise(values * 2, worst * 2, generator=seeded())
    assert np.ptp(apart.interval) < 0.8 * np.ptp(once.interval)  # 1 / sqrt(2) of it
    other = list(draw.random(10))
    once = paired_difference(values, other, seeded())
    assert paired_difference(values * 2, other * 2, seeded(), subjects=NAMES * 2).interval == once.interval
    percent = [*np.linspace(0.5, 12, 9), 0.0]
    bins = by_burden(values, worst, percent, generator=seeded())
    doubled = by_burden(values * 2, worst * 2, percent * 2, generator=seeded(), subjects=NAMES * 2)
    assert [b.summary.interval for b in doubled] == [b.summary.interval for b in bins]
    assert sum(b.summary.interval is not None for b in bins) > 1


def test_one_case_a_subject_is_as_without_subjects():
    draw = seeded(12)
    values, worst, percent = [None, *draw.random(9)], list(draw.random(10)), list(draw.uniform(0, 60, 10))
    rows = [
        ScoreRow(case=n, label="x", metric="Dice", value=v, worst=w)
        for n, v, w in zip(NAMES, values, worst, strict=True)
    ]
    assert summarise(values, worst, generator=seeded(), subjects=NAMES) == summarise(values, worst, generator=seeded())
    assert paired_difference(values, worst, seeded(), subjects=NAMES) == paired_difference(values, worst, seeded())
    assert by_burden(values, worst, percent, generator=seeded(), subjects=NAMES) == by_burden(
        values, worst, percent, generator=seeded()
    )
    own = {name: f"of {name}" for name in NAMES}
    assert score_lines(rows, generator=seeded(), subjects=own) == score_lines(rows, generator=seeded())
    together = score_lines(rows, generator=seeded(), subjects=dict.fromkeys(NAMES, "one"))
    assert together[0].summary.mean == pytest.approx(np.mean(values[1:])) and together[0].summary.interval is None


def test_a_drawn_subject_brings_all_its_cases():
    # of the subjects "a" with three cases and "b" with one: both once in half of the resamples, one twice in the others
    found = summarise([1.0, 1.0, 1.0, 0.0], [0.0] * 4, generator=seeded(), subjects=["a", "a", "a", "b"])
    assert found.mean == 0.75 and found.interval == (0.0, 1.0)
    values, subjects = [1.0, 0.0, 1.0, 0.0], ["a", "a", "b", "b"]
    assert summarise(values, [0.0] * 4, generator=seeded(), subjects=subjects).interval == (0.5, 0.5)
    assert paired_difference(values, [0.0] * 4, seeded(), subjects=subjects).interval == (0.5, 0.5)
    assert summarise(values, [0.0] * 4, generator=seeded(), subjects=["a"] * 4).interval is None


def test_intervals_over_subjects_cover_the_true_mean_where_those_over_cases_do_not():
    draw, hits, subjects = seeded(13), [0, 0], [str(i // 5) for i in range(150)]
    for _ in range(300):
        values = list(np.repeat(draw.normal(0, 1, 30), 5) + draw.normal(0, 0.3, 150))
        for which, whose in enumerate((subjects, None)):
            found = summarise(values, [0.0] * 150, generator=draw, resamples=200, subjects=whose)
            hits[which] += found.interval[0] <= 0 <= found.interval[1]
    assert 0.88 <= hits[0] / 300 <= 0.98
    assert hits[1] / 300 < 0.8


def test_means_of_subjects_by_hand():
    subjects = ["b", "a", "b", "c", "a", "d"]
    assert subject_means([0.2, 1.0, 0.4, None, float("nan"), 0.0], subjects) == pytest.approx([0.3, 1.0, None, 0.0])
    assert subject_means([], []) == []
    for call in (
        lambda: subject_means([0.1], ["a", "b"]),
        lambda: summarise([0.1], [0.0], generator=seeded(), subjects=[]),
        lambda: paired_difference([0.1], [0.0], seeded(), subjects=["a", "b"]),
        lambda: by_burden([0.1], [0.0], [3.0], generator=seeded(), subjects=[]),
    ):
        with pytest.raises(InputError, match="One subject is wanted for each of the 1 values"):
            call()


def test_burden_bins_hold_their_lower_edge_and_leave_lesion_free_cases_out():
    percent = [0.0, 0.5, 1.0, 4.999, 5.0, 10.0, 20.0, 50.0, 100.0]
    values = [1.0, 0.1, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    bins = by_burden(values, [0.0] * 9, percent, generator=seeded())
    assert [b.name for b in bins] == ["0–1 %", "1–5 %", "5–10 %", "10–20 %", "20–50 %", "50–100 %"]
    assert [b.summary.n for b in bins] == [1, 2, 1, 1, 1, 2]
    assert [b.summary.mean for b in bins] == pytest.approx([0.1, 0.3, 0.5, 0.6, 0.7, 0.85])
    for bad in ([*percent[:-1], 101.0], [*percent[:-1], float("nan")], percent[:-1]):
        with pytest.raises(InputError, match="percentage of the brain"):
            by_burden(values, [0.0] * 9, bad, generator=seeded())


def test_false_positives_count_any_predicted_voxel():
    found = false_positives([0.0, 0.003, 1.2])
    assert (found.n, found.n_false, found.largest_ml) == (3, 2, 1.2)
    assert found.mean_ml == pytest.approx(0.401)
    assert false_positives([]).to_json() == {"n": 0, "n_false": 0, "mean_ml": None, "largest_ml": None}


def test_score_lines_group_by_metric_and_class_in_order():
    rows = [
        ScoreRow(case=case, label=label, metric=metric, value=value, worst=0.0)
        for case, label, metric, value in [
            ("a", "anterior", "NSD", 0.5),
            ("a", "anterior", "Dice", 0.2),
            ("a", "posterior", "Dice", 0.6),
            ("b", "anterior", "Dice", 0.4),
        ]
    ]
    lines = score_lines(rows, generator=seeded())
    assert [(line.metric, line.label) for line in lines] == [
        ("NSD", "anterior"),
        ("Dice", "anterior"),
        ("Dice", "posterior"),
    ]
    assert lines[1].summary.mean == pytest.approx(0.3)


def test_rows_carry_the_rules_of_the_metric():
    row = score_row(Score("a", "lesion", "masd", float("nan"), "mm"), (30, 40, 10), (1.0, 1.0, 12.0))
    assert (row.metric, row.value, row.unit, row.better) == ("MASD", None, "mm", "lower")
    assert row.worst == pytest.approx(130.0)
    dice = score_row(Score("a", "lesion", "dice", 0.5, "ratio"), (30, 40, 10), (1.0, 1.0, 1.0))
    assert (dice.metric, dice.unit, dice.worst) == ("Dice", "", 0.0)


def test_metric_notes_tell_the_empty_rules():
    dice, masd = metric_notes(["dice", "masd"])
    assert dice.empty == "Both empty: 1; only the truth empty: 0; only the prediction empty: 0."
    assert dice.worst == "0"
    assert "only the prediction empty: undefined" in masd.empty
    assert masd.worst == "diagonal of the image"


def test_the_note_of_nsd_states_the_tolerance_of_the_run():
    (usual,) = metric_notes(["nsd"])
    assert "(2 mm unless stated)" in usual.definition
    for unit in ("mm", "px"):
        (note,) = metric_notes(["nsd"], length_unit=unit, tolerance=3.5)
        assert f"within the tolerance (3.5 {unit}) of the other" in note.definition
