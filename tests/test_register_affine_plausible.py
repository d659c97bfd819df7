"""Doubtful affine registrations are told about, good ones are not."""

from __future__ import annotations

import numpy as np
import pytest

from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.register.affine import register_affine
from neoseg.register.configs import AffineConfig
from neoseg.register.plausible import implausible, unlike, unlike_the_rest
from neoseg.register.transforms import Affine
from neoseg.volume import Volume

GOOD = {
    "affine_similarity": 0.7,
    "affine_overlap": 0.96,
    "affine_mirrored": 1.0,
    "affine_turn_degrees": 5.0,
    "affine_volume": 1.0,
    "affine_stretch": 1.08,
    "affine_rival": 0.7,
}


def drawn(generator: np.random.Generator, count: int) -> list[dict[str, float]]:
    """Facts that vary as those of heads of different people do."""
    return [
        {
            "affine_similarity": 0.7 * float(np.exp(generator.normal(0, 0.075))),
            "affine_overlap": 0.963 + float(generator.normal(0, 0.004)),
            "affine_mirrored": 1 + float(generator.normal(0, 0.022)),
            "affine_turn_degrees": float(generator.uniform(0, 12)),
            "affine_volume": float(np.exp(generator.normal(0, 0.08))),
            "affine_stretch": 1.08 + float(generator.normal(0, 0.03)),
            "affine_rival": float(generator.normal(0.7, 0.02)),
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("count", [1, 2, 4, 10, 30, 200])
def test_false_alarms_are_rare_and_wrong_optima_are_found_in_cohorts_of_any_size(count: int) -> None:
    generator = np.random.default_rng(count)
    alarms = found = 0
    for _ in range(200):
        case, *others = drawn(generator, count + 1)
        alarms += bool(unlike(case, others))
        found += bool(unlike({**case, "affine_similarity": 0.6 * case["affine_similarity"]}, others))
    assert alarms <= 6
    assert found >= (80 if count < 4 else 160)


def test_a_third_of_wrong_cases_does_not_hide_itself() -> None:
    cohort = {str(i): facts for i, facts in enumerate(drawn(np.random.default_rng(0), 12))}
    for name in "0123":
        cohort[name] = {**cohort[name], "affine_similarity": 0.38}
    assert set(unlike_the_rest(cohort)) == set("0123")
    assert "similarity" in unlike_the_rest(cohort)["0"][0]


@pytest.mark.parametrize(
    ("fact", "value", "words"),
    [
        ("affine_turn_degrees", 176.0, "turned the head by 176 degrees"),
        ("affine_overlap", 0.4, "overlap with a Dice of only 0.40"),
        ("affine_rival", 0.97, "reaches 97 %"),
        ("affine_mirrored", 1.2, "fits 20 % better"),
    ],
)
def test_some_things_are_suspicious_by_themselves(fact: str, value: float, words: str) -> None:
    assert implausible(GOOD) == ()
    (sentence,) = implausible({**GOOD, fact: value})
    assert words in sentence


@pytest.mark.parametrize(
    ("fact", "value"),
    [
        ("affine_similarity", 0.4),
        ("affine_overlap", 0.85),
        ("affine_volume", 0.5),
        ("affine_volume", 2.0),
        ("affine_stretch", 1.5),
        ("affine_mirrored", 1.3),
    ],
)
def test_others_make_a_case_suspicious(fact: str, value: float) -> None:
    assert unlike(GOOD, [GOOD] * 5) == ()
    (sentence,) = unlike({**GOOD, fact: value}, [GOOD] * 5)
    assert f"{value:.2f}" in sentence
    assert "other 5 case(s)" in sentence


def test_better_than_the_others_is_not_suspicious() -> None:
    assert unlike({**GOOD, "affine_similarity": 1.5, "affine_overlap": 0.999, "affine_stretch": 1.0}, [GOOD] * 5) == ()


def test_missing_facts_say_nothing() -> None:
    assert implausible({}) == ()
    assert unlike({}, [GOOD] * 3) == ()
    assert unlike(GOOD, []) == ()
    assert unlike({**GOOD, "affine_similarity": 0.1}, [{"bias_field_sd_adc": 0.1}]) == ()
    assert unlike({**GOOD, "affine_similarity": float("nan"), "affine_volume": "much"}, [GOOD]) == ()


def test_a_wrong_optimum_and_a_file_upside_down_are_told_about() -> None:
    fixed, *others = (make_head(g, HeadConfig()).adc for g in np.random.default_rng(31).spawn(3))
    config = AffineConfig(levels_mm=(6.0,))
    cohort = [register_affine(fixed, other, config=config).facts() for other in others]
    for k, facts in enumerate(cohort):
        assert implausible(facts) == ()
        assert unlike(facts, cohort[:k] + cohort[k + 1 :]) == ()
    moving = others[0]
    here, there = (v.grid.to_world(np.argwhere(v.array[0] != 0).mean(axis=0)) for v in (fixed, moving))
    for signs in ([1, -1, -1], [-1, 1, -1], [-1, -1, 1]):
        matrix = np.diag([*signs, 1.0])
        matrix[:3, 3] = there - matrix[:3, :3] @ here
        wrong = register_affine(fixed, moving, config=config, start=Affine(matrix)).facts()
        assert any("turned the head" in text for text in implausible(wrong))
        assert any("similarity" in text for text in unlike(wrong, cohort[1:]))
    upside_down = Volume(np.ascontiguousarray(moving.array[..., ::-1]), moving.grid)
    assert any(
        "turned the head" in text for text in implausible(register_affine(fixed, upside_down, config=config).facts())
    )
