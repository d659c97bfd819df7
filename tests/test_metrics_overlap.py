"""Voxel counts and the scores made of them, on masks that can be drawn."""

import math

import numpy as np
import pytest

from neoseg.errors import GeometryError, InputError
from neoseg.metrics import (
    Counts,
    count_voxels,
    dice,
    iou,
    precision,
    relative_volume_difference,
    sensitivity,
    volume_difference,
)


def mask(text):
    """A 2-D mask from rows of # and . ."""
    return np.array([[mark == "#" for mark in row] for row in text.split()])


TRUTH = mask(".... .##. .##. ....")
PREDICTION = mask(".... ..## ..## ..##")


def test_counts_of_a_drawn_pair():
    counts = count_voxels(TRUTH, PREDICTION, (2.0, 5.0))
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (2, 4, 2, 8)
    assert all(type(n) is int for n in (counts.tp, counts.fp, counts.fn, counts.tn))
    assert dice(counts) == 2 * 2 / (4 + 6)
    assert iou(counts) == 2 / 8
    assert sensitivity(counts) == 2 / 4
    assert precision(counts) == 2 / 6
    assert relative_volume_difference(counts) == 2 * 2 / 10


def test_volume_is_in_millilitres_and_signed():
    truth, prediction = np.zeros((2, 10, 10, 10), bool)
    truth[:5], prediction[:2] = True, True
    counts = count_voxels(truth, prediction, (1.0, 2.0, 5.0))
    assert counts.voxel_ml == pytest.approx(0.01)
    assert volume_difference(counts) == pytest.approx(-300 * 0.01)
    assert volume_difference(count_voxels(prediction, truth, (1.0, 2.0, 5.0))) == pytest.approx(3.0)


def test_quotients_of_nothing_are_undefined():
    nothing = Counts(0, 0, 0, 9, 1.0)
    for function in (dice, iou, sensitivity, precision, relative_volume_difference):
        assert math.isnan(function(nothing))
    false_alarm = Counts(0, 3, 0, 6, 1.0)
    assert math.isnan(sensitivity(false_alarm))
    assert (precision(false_alarm), dice(false_alarm), relative_volume_difference(false_alarm)) == (0, 0, 2)
    missed = Counts(0, 0, 3, 6, 1.0)
    assert math.isnan(precision(missed))
    assert (sensitivity(missed), dice(missed), relative_volume_difference(missed)) == (0, 0, -2)


def test_large_counts_do_not_overflow():
    full = np.ones((300, 300, 300), bool)
    assert dice(count_voxels(full, full, (1, 1, 1))) == 1.0


@pytest.mark.parametrize(
    ("truth", "prediction", "spacing", "error", "words"),
    [
        (TRUTH, PREDICTION[1:], (1, 1), GeometryError, r"\(4, 4\).*\(3, 4\)"),
        (TRUTH, PREDICTION, (1, 1, 1), GeometryError, "2 positive numbers"),
        (TRUTH, PREDICTION, (1, -1), GeometryError, "2 positive numbers"),
        (TRUTH, PREDICTION, (1, math.nan), GeometryError, "2 positive numbers"),
        (TRUTH[0], PREDICTION[0], (1,), GeometryError, "wanted"),
        (TRUTH[:0], PREDICTION[:0], (1, 1), GeometryError, "with voxels"),
        (TRUTH.astype(np.uint8), PREDICTION, (1, 1), InputError, "truth mask has the type uint8"),
        (TRUTH, PREDICTION.astype(float), (1, 1), InputError, "prediction mask has the type float64"),
    ],
)
def test_unfit_masks_are_refused(truth, prediction, spacing, error, words):
    with pytest.raises(error, match=words):
        count_voxels(truth, prediction, spacing)
