"""The summary of a run whose subjects have several cases: their means, and intervals that draw them whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neoseg.cli.results import show_summary
from neoseg.data.cases import Case
from neoseg.pipeline import summary
from neoseg.pipeline.evaluate import NETWORK, ScoredRow
from neoseg.pipeline.summary import CaseScore, judge
from neoseg.report.summary import paired_difference, summarise

SUBJECTS = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "c1": "c", "c2": "c", "c3": "c"}
DICE: Mapping[str, Mapping[str, float | None]] = {
    NETWORK: {"a1": 0.9, "a2": 0.8, "a3": 0.7, "b1": 0.2, "c1": 0.5, "c2": 0.3, "c3": None},
    "rule": {"a1": 0.4, "a2": 0.5, "a3": 0.6, "b1": 0.3, "c1": 0.1, "c2": 0.3, "c3": None},
}
ROWS = [
    ScoredRow("cv", method, case, "ball", metric, value, 0.0, unit)
    for method, values in DICE.items()
    for case, dice in values.items()
    for metric, value, unit in (("dice", 1.0 if dice is None else dice, "ratio"), ("volume_difference", 0.0, "mL"))
]


def judged(monkeypatch: pytest.MonkeyPatch, subjects: Mapping[str, str]) -> summary.Judged:
    """Judge the scores above with each case's volumes as if it was prepared."""

    def scores(_: Any, rows: Sequence[ScoredRow]) -> dict[str, CaseScore]:
        own = DICE[rows[0].method]
        return {case: CaseScore(dice=own[case], predicted_ml=0.0, percent=3.0) for case in own}

    monkeypatch.setattr(summary, "_case_scores", scores)
    monkeypatch.setattr(summary, "_detail", lambda *_: "")
    monkeypatch.setattr(summary, "_method_title", lambda _, method: method)
    session = SimpleNamespace(
        config=SimpleNamespace(seed=4, evaluate=SimpleNamespace(resamples=300)),
        cases=[Case(case=case, subject=subject, images={}) for case, subject in subjects.items()],
        targets=SimpleNamespace(overlapping=False),
        labels=SimpleNamespace(count=2),
    )
    found = judge(session, "cv", ROWS, {"postprocess": {}})  # type: ignore[arg-type]
    assert found is not None
    return found


def seeded() -> np.random.Generator:
    return np.random.default_rng([4, 2])


def of(method: str) -> list[float]:
    return [dice for dice in DICE[method].values() if dice is not None]


def test_the_headline_has_the_mean_over_subjects_and_draws_them_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, SUBJECTS)
    numbers, rule = found.numbers, found.numbers["rules"]["rule"]
    whose = list(SUBJECTS.values())[:6]
    assert (numbers["cases"], numbers["subjects"]) == (7, 3)
    drawn = summarise(of(NETWORK), [0.0] * 6, generator=seeded(), resamples=300, subjects=whose)
    assert numbers["dice"] == drawn.to_json()
    own, other = [0.8, 0.2, 0.4], [0.5, 0.3, 0.2]
    assert numbers["dice_by_subject"]["mean"] == pytest.approx(np.mean(own))
    assert numbers["dice_by_subject"]["n"] == 3
    assert set(numbers["dice_by_subject"]) == set(numbers["dice"])
    assert "network_minus_this_by_subject" not in numbers
    assert rule["dice_by_subject"]["mean"] == pytest.approx(np.mean(other))
    assert rule["network_minus_this_by_subject"]["mean"] == pytest.approx(np.mean(own) - np.mean(other))
    gap = paired_difference(of(NETWORK), of("rule"), seeded(), resamples=300, subjects=whose)
    assert rule["network_minus_this"] == gap.to_json()
    assert numbers["by_burden"][1]["interval"] == numbers["dice"]["interval"]
    line = numbers["metrics"]["ball.Dice"]
    expected = summarise([*of(NETWORK), 1.0], [0.0] * 7, generator=seeded(), resamples=300, subjects=[*whose, "c"])
    assert line == {"unit": "", **expected.to_json()}
    assert (found.evaluation.cases, found.evaluation.subjects, found.evaluation.several_a_subject) == (7, 3, True)


def test_with_one_case_a_subject_nothing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, {case: case for case in SUBJECTS})
    numbers = found.numbers
    assert numbers["dice"] == summarise(of(NETWORK), [0.0] * 6, generator=seeded(), resamples=300).to_json()
    gap = paired_difference(of(NETWORK), of("rule"), seeded(), resamples=300)
    assert numbers["rules"]["rule"]["network_minus_this"] == gap.to_json()
    assert "by_subject" not in " ".join([*numbers, *numbers["rules"]["rule"]])
    assert not found.evaluation.several_a_subject


def test_the_command_line_tells_the_mean_over_subjects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    for subjects, told in ((SUBJECTS, True), ({case: case for case in SUBJECTS}, False)):
        numbers = judged(monkeypatch, subjects).numbers
        show_summary({"cv": numbers, "held_out": None, "failed": {}}, tmp_path, as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith("Cross-validation: network Dice 0.567 [")
        means = [line for line in lines if "over 3 subjects" in line]
        assert len(means) == (2 if told else 0)
        if told:
            assert means[0].startswith("  mean over 3 subjects: Dice 0.467 [") and "minus" not in means[0]
            assert means[1].startswith("  mean over 3 subjects: Dice 0.333 [")
            assert "; network minus rule 0.133 [" in means[1]


def test_a_rule_without_any_case_to_compare_is_shown(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    nothing = summarise([], [], generator=seeded()).to_json()
    gap = paired_difference([], [], seeded()).to_json()
    rules = {"z": {"dice": nothing, "network_minus_this": gap}}
    numbers = {"dice": nothing, "rules": rules, "empty_cases": None}
    show_summary({"cv": numbers, "held_out": None, "failed": {}}, tmp_path, as_json=False)
    told = "  rule z: Dice undefined (no scored case holds any of the classes); network and rule cannot be compared\n"
    assert told in capsys.readouterr().out
