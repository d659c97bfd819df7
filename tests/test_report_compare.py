"""Runs against each other: order, paired differences, permutation and Holm p values, by hand and against scipy."""

from __future__ import annotations

import csv
import io
import json
import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import InputError
from neoseg.report.charts import forest
from neoseg.report.compare import RunScores, holm, permutation_p, standings
from neoseg.report.comparison_table import Comparison, RunCost, _large, tables, write_comparison
from neoseg.report.summary import paired_difference, summarise


def seeded(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def run_of(name: str, values: list[float | None], worst: float = 0.0, seed: int = 0) -> RunScores:
    cases = [f"c{i}" for i in range(len(values))]
    return RunScores(name, dict(zip(cases, values, strict=True)), dict.fromkeys(cases, worst), seed=seed, resamples=200)


def every_sign(differences: list[float]) -> float:
    """Return the share of sign patterns with a mean at least as far from 0: the p value by definition."""
    found = abs(sum(differences))
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(total >= found - 1e-12 for total in sums) / len(sums)


def test_the_best_stands_first_and_the_others_are_tested_against_it() -> None:
    a, b, c = [0.5, 0.6, 0.7, 0.8], [0.6, 0.7, 0.8, 0.9], [0.1, 0.6, 0.2, 0.3]
    found = standings([run_of("a", a), run_of("b", b), run_of("c", c)], better="higher")
    assert [s.name for s in found] == ["b", "a", "c"]
    best, second, third = found
    assert (best.difference, best.p, best.p_holm) == (None, None, None)
    assert second.difference is not None and second.difference.mean == pytest.approx(-0.1)
    assert third.difference == paired_difference(c, b, seeded(), resamples=200)
    assert second.p == third.p == 2 / 2**4
    assert second.p_holm == third.p_holm == 2 * 2 / 2**4
    lower = standings([run_of("a", a), run_of("b", b), run_of("c", c)], better="lower")
    assert [s.name for s in lower] == ["c", "a", "b"]


def test_a_summary_is_that_of_the_report_with_the_seed_of_the_run() -> None:
    values = list(seeded(1).random(9))
    found = standings([run_of("a", values, seed=7), run_of("b", [v - 0.1 for v in values])], better="higher")[0]
    assert found.summary == summarise(values, [0.0] * 9, generator=np.random.default_rng([7, 2]), resamples=200)


def test_a_tie_has_no_difference_and_the_first_one_stands_first() -> None:
    values = [0.2, 0.4, 0.9]
    first, second = standings([run_of("x", values), run_of("y", values)], better="higher")
    assert (first.name, second.name) == ("x", "y")
    assert second.difference is not None and second.difference.mean == 0 and second.difference.interval == (0, 0)
    assert second.p == second.p_holm == 1


def test_an_undefined_value_costs_the_worst_one_in_order_difference_and_test() -> None:
    sure, missing = run_of("sure", [5.0, 5.0, 5.0], worst=100.0), run_of("missing", [1.0, None, 1.0], worst=100.0)
    best, other = standings([missing, sure], better="lower")
    assert best.name == "sure"
    assert other.summary.mean == 1 and other.summary.n_undefined == 1
    assert other.summary.mean_worst == pytest.approx(34)
    assert other.difference is not None and other.difference.n == 3
    assert other.difference.mean == pytest.approx(29)


def test_the_order_of_the_runs_changes_nothing() -> None:
    draw = seeded(2)
    runs = [run_of(name, list(draw.random(20))) for name in "abcd"]
    assert standings(runs, better="higher") == standings(runs[::-1], better="higher")


@given(st.lists(st.integers(-4, 4), min_size=2, max_size=7))
def test_p_is_the_share_of_sign_patterns(differences: list[int]) -> None:
    values = np.array(differences, dtype=np.float64)
    found = permutation_p(values, np.zeros_like(values), seeded())
    assert found == pytest.approx(every_sign([float(d) for d in differences]))


def test_cases_doubled_under_their_subject_change_neither_p_nor_interval() -> None:
    draw = seeded(8)
    for count in (8, 30):
        a, b, whose = draw.random(count), draw.random(count), [str(i) for i in range(count)]
        p = permutation_p(a, b, seeded())
        assert permutation_p(a, b, seeded(), whose) == p
        assert permutation_p(np.tile(a, 2), np.tile(b, 2), seeded(), whose * 2) == p
        assert permutation_p(np.tile(a + 0.2, 2), np.tile(b, 2), seeded()) < permutation_p(a + 0.2, b, seeded())
    values = {name: list(draw.random(8)) for name in "abc"}
    once = standings([run_of(n, v) for n, v in values.items()], better="higher")
    own = {f"c{i}": f"s{i % 8}" for i in range(16)}
    twice = standings([run_of(n, v * 2) for n, v in values.items()], better="higher", subjects=own)
    assert [s.name for s in twice] == [s.name for s in once]
    assert [(s.p, s.p_holm, s.summary.interval) for s in twice] == [(s.p, s.p_holm, s.summary.interval) for s in once]
    gaps = [[s.difference.interval for s in found if s.difference is not None] for found in (once, twice)]
    assert gaps[0] == gaps[1] and len(gaps[0]) == 2
    alone = standings([run_of(n, v) for n, v in values.items()], better="higher", subjects=own)
    assert alone == once


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 3)), min_size=2, max_size=9))
def test_signs_change_by_subject(cases: list[tuple[int, int]]) -> None:
    differences, subjects = [float(d) for d, _ in cases], [str(s) for _, s in cases]
    sums = [sum(d for d, s in zip(differences, subjects, strict=True) if s == one) for one in set(subjects)]
    found = permutation_p(np.array(differences), np.zeros(len(cases)), seeded(), subjects)
    assert found == pytest.approx(every_sign(sums))


def test_drawing_patterns_in_parts_changes_no_p(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = seeded(5)
    a, b = draw.random(40), draw.random(40)
    whole = permutation_p(a, b, seeded())
    assert 0 < whole < 1
    for values in (400, 39):  # ten patterns at a time, and one
        monkeypatch.setattr("neoseg.report.compare.BATCH_VALUES", values)
        assert permutation_p(a, b, seeded()) == whole


def test_p_agrees_with_the_t_test_where_that_holds() -> None:
    from scipy.stats import ttest_rel

    draw = seeded(3)
    a = draw.normal(0.5, 0.1, 60)
    b = a - draw.normal(0.02, 0.08, 60)
    expected = ttest_rel(a, b).pvalue
    assert 0.005 < expected < 0.5
    assert permutation_p(a, b, seeded()) == pytest.approx(expected, abs=0.015)
    assert permutation_p(a, b, seeded(4)) == permutation_p(b, a, seeded(4))


def test_p_of_alike_runs_is_even() -> None:
    draw = seeded(5)
    found = [permutation_p(draw.normal(size=8), draw.normal(size=8), draw) for _ in range(300)]
    assert 0.02 <= np.mean(np.array(found) <= 0.05) <= 0.085


def test_holm_by_hand() -> None:
    # the example of R's p.adjust: sorted 0.01, 0.02, 0.03, 0.04 become 0.04, 0.06, 0.06, 0.06
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_other_cases_one_run_and_no_case_are_refused() -> None:
    with pytest.raises(InputError, match="two runs or more"):
        standings([run_of("a", [0.1])], better="higher")
    with pytest.raises(InputError, match="same cases"):
        standings([run_of("a", [0.1, 0.2]), run_of("b", [0.1])], better="higher")
    with pytest.raises(InputError, match="at least one"):
        standings([run_of("a", []), run_of("b", [])], better="higher")


def test_one_case_has_no_interval_and_p_1() -> None:
    other = standings([run_of("a", [0.9]), run_of("b", [0.1])], better="higher")[1]
    assert other.summary.interval is None and other.p == 1


def comparison_of(**changes: object) -> Comparison:
    found = standings([run_of("one", [1.0, 2.0, 3.0], 9.0), run_of("two|x", [2.0, None, 5.0], 9.0)], better="lower")
    costs = [
        RunCost("unetr_pp", "UNETR++", 42_952_850, 47_885_778_944, (64, 128, 128), 3.25, 1234.5, 0.5),
        RunCost("unetr_pp", "UNETR++", 1_000_000, 1_000_000, (8, 8), None, None, None),
    ]
    fields = {
        "metric": "masd", "title": "MASD", "unit": "mm", "better": "lower", "label": None, "split": "cv",
        "cases": ("c0", "c1", "c2"), "standings": found, "costs": tuple(costs), "false_alarms": (0, 1),
        "empty_cases": (), "folders": (Path("a"), Path("b")), "notes": ("First.", "Second."),
    }  # fmt: skip
    return Comparison(**{**fields, **changes})  # type: ignore[arg-type]


def test_cells_of_both_tables() -> None:
    scores, costs = tables(comparison_of())
    first, second = scores.rows
    assert first[:2] == ("one", "3") and first[3:] == ("2.00", "best", "-", "-")
    assert first[2].startswith("2.00 (")
    assert second[1] == "3 (1 undefined)" and second[3] == "5.33"
    assert second[4].startswith("+3.33 (+1.00 to +7.00)")
    assert costs.rows[0] == ("one", "UNETR++", "43 M", "47.9 G", "64×128×128", "3.25 GiB", "1234 s", "0.50 s")
    assert costs.rows[1][2:] == ("1 M", "1 M", "8×8", "-", "-", "-")
    assert tables(comparison_of(empty_cases=("e", "f")))[0].rows[1][-1] == "1 of 2"


@pytest.mark.parametrize(("count", "told"), [(7, "7"), (999, "999"), (32_312, "32.3 k"), (999_600, "1 M"),
                                             (2_373_800_000_000, "2.37 T"), (3 * 10**15, "3000 T")])  # fmt: skip
def test_large_counts_are_told_in_three_digits(count: int, told: str) -> None:
    assert _large(count) == told


def test_files_hold_the_same_and_are_whole(tmp_path: Path) -> None:
    base = tmp_path / "new" / "v1.2"
    written = write_comparison(comparison_of(), base)
    assert [p.name for p in written] == ["v1.2.csv", "v1.2.json", "v1.2.md", "v1.2.png"]
    assert sorted(p.name for p in base.parent.iterdir()) == sorted(p.name for p in written)
    whole = json.loads(written[1].read_text(encoding="utf-8"))
    rows = list(csv.DictReader(written[0].read_text(encoding="utf-8").splitlines()))
    for row, run in zip(rows, whole["runs"], strict=True):
        assert (row["run"], float(row["mean"]), float(row["mean_worst"])) == (
            run["run"],
            run["mean"],
            run["mean_worst"],
        )
        assert [float(row["mean_low"]), float(row["mean_high"])] == run["interval"]
    assert [float(rows[1][f"minus_best_{end}"]) for end in ("low", "high")] == whole["runs"][1]["minus_best"][
        "interval"
    ]
    assert rows[0]["p"] == rows[1]["peak_gib"] == ""
    assert rows[0]["patch"] == "64x128x128"
    about = comparison_of()
    assert (rows[0]["metric"], rows[0]["unit"], rows[0]["split"]) == (about.metric, about.unit, about.split)
    assert whole["title"] == rows[1]["metric_title"] == about.title and rows[1]["title"] == about.costs[1].title
    text = written[2].read_text(encoding="utf-8")
    assert "two\\|x" in text and "- Second." in text
    assert {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")} == {8, 9}
    assert written[3].read_bytes().startswith(b"\x89PNG")


def test_the_figure_has_a_place_for_each_run_and_the_same_bytes_each_time() -> None:
    from matplotlib.image import imread

    draw = seeded(6)
    few, many = (standings([run_of(f"${i}", list(draw.random(5))) for i in range(n)], better="higher") for n in (2, 9))
    small, large = forest(few, "Dice", "of 5 cases"), forest(many, "Dice", "of 5 cases")
    assert small == forest(few, "Dice", "of 5 cases")
    heights = [imread(io.BytesIO(p)).shape[0] for p in (small, large)]
    assert heights[1] > 2 * heights[0]
    assert math.isfinite(float(imread(io.BytesIO(large)).std())) and imread(io.BytesIO(large)).std() > 0.01
