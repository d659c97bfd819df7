"""Voxelwise statistics over heads: numbers that can be worked out, and what robust ones are for."""

from __future__ import annotations

import numpy as np
import pytest

from neoseg.atlas.configs import AtlasConfig
from neoseg.atlas.statistics import centre, spread, vote

ESTIMATORS = ("mean", "trimmed", "median")


def config(estimator: str, **more: float) -> AtlasConfig:
    return AtlasConfig.model_validate({"estimator": estimator, **more})


def test_centre_of_what_is_known_only() -> None:
    values = np.array([[1, 5, 9], [2, 5, 9], [3, 90, 9], [40, 5, 9], [999, 5, 9]], np.float32)
    known = np.array([[1, 1, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    assert centre(values, known, config("mean")).tolist() == [11.5, 5, 0]
    assert centre(values, known, config("median")).tolist() == [2.5, 5, 0]
    assert centre(values, known, config("trimmed", trim=0.25)).tolist() == [2.5, 5, 0]


def test_spread_by_hand() -> None:
    residuals = np.array([[3, 1], [-4, -2], [0, 3], [5, 100]], np.float32)
    known = np.array([[1, 1], [1, 1], [1, 1], [0, 0]], bool)
    assert spread(residuals, known, config("mean")) == pytest.approx([25 / 3, 14 / 3])
    assert spread(residuals, known, config("median")) == pytest.approx([(3 * 1.4826) ** 2, (2 * 1.4826) ** 2], rel=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_all_estimators_agree_on_normal_values(estimator: str) -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(1200, 80, (40, 20000)).astype(np.float32)
    known = rng.random(values.shape) < 0.8
    middle = centre(values, known, config(estimator))
    assert middle.mean() == pytest.approx(1200, abs=0.5)
    variance = spread(values - 1200, known, config(estimator))
    assert np.sqrt(np.median(variance)) == pytest.approx(80, rel=0.05)


@pytest.mark.parametrize("estimator", ["trimmed", "median"])
def test_two_sick_heads_of_twenty_move_the_robust_ones_little(estimator: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(1200, 80, (20, 5000)).astype(np.float32)
    values[:2] -= 600
    known = np.ones(values.shape, bool)
    naive, robust = (centre(values, known, config(e)).mean() for e in ("mean", estimator))
    assert naive == pytest.approx(1140, abs=3)
    assert robust > 1180
    about = values - robust
    wide, narrow = (float(np.sqrt(spread(about, known, config(e)).mean())) for e in ("mean", estimator))
    assert wide > 190
    assert narrow < 110


def test_vote_takes_the_majority_and_of_equals_the_smallest() -> None:
    labels = np.array([[0, 3, 7, 0], [4, 3, 2, 0], [4, 9, 2, 0], [0, 9, 7, 0]], np.uint16)
    assert vote(labels).tolist() == [0, 3, 2, 0]
    assert vote(labels[:3]).tolist() == [4, 3, 2, 0]
