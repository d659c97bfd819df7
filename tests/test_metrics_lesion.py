"""Lesion-wise detection on masks that can be drawn."""

import math

import numpy as np
import pytest

from neoseg.errors import ConfigError
from neoseg.metrics import detect_lesions, lesion_f1, lesion_precision, lesion_sensitivity


def lesions(shape, *boxes):
    mask = np.zeros(shape, bool)
    for box in boxes:
        mask[box] = True
    return mask


def test_counts_of_a_drawn_pair():
    shape = (20, 20, 6)
    truth = lesions(shape, np.s_[1:4, 1:4, 1:3], np.s_[8:12, 8:12, 1:5], np.s_[16:18, 16:18, 2:4])
    # One hit by a single voxel, one covered, one missed; two alarms elsewhere, of 1 and of 8 voxels.
    prediction = lesions(shape, np.s_[3:6, 3:6, 2:3], np.s_[8:12, 8:12, 1:5], np.s_[1, 18, 5], np.s_[10:12, 1:3, 0:2])
    found = detect_lesions(truth, prediction, (1.0, 2.0, 5.0))
    assert (found.truth_lesions, found.detected) == (3, 2)
    assert (found.predicted_lesions, found.false_positives) == (4, 2)
    assert found.missed_ml == pytest.approx(8 * 0.01)
    assert found.false_positive_ml == pytest.approx(9 * 0.01)
    assert lesion_sensitivity(found) == pytest.approx(2 / 3)
    assert lesion_precision(found) == pytest.approx(2 / 4)
    assert lesion_f1(found) == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))


def test_minimum_overlap_is_a_share_of_each_lesion():
    truth = lesions((12, 4, 4), np.s_[0:10, 1, 1])
    prediction = lesions((12, 4, 4), np.s_[0:3, 1, 1])
    # 3 of 10 true voxels are covered; all 3 predicted ones are.
    for overlap, detected in ((0.0, 1), (0.3, 1), (0.31, 0)):
        found = detect_lesions(truth, prediction, (1, 1, 1), minimum_overlap=overlap)
        assert (found.detected, found.false_positives) == (detected, 0)
    swapped = detect_lesions(prediction, truth, (1, 1, 1), minimum_overlap=0.5)
    assert (swapped.detected, swapped.false_positives, swapped.false_positive_ml) == (1, 1, pytest.approx(0.01))
    with pytest.raises(ConfigError, match=r"minimum_overlap is 1.5"):
        detect_lesions(truth, prediction, (1, 1, 1), minimum_overlap=1.5)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4)])
def test_touching_corners_belong_together(shape):
    mask = np.zeros(shape, bool)
    mask[(0,) * len(shape)] = mask[(1,) * len(shape)] = True
    assert detect_lesions(mask, mask, (1,) * len(shape)).truth_lesions == 1
    mask[(1,) * len(shape)], mask[(2,) * len(shape)] = False, True
    assert detect_lesions(mask, mask, (1,) * len(shape)).truth_lesions == 2


def test_one_predicted_lesion_may_detect_several():
    truth = lesions((20, 4, 4), np.s_[1:3, 1, 1], np.s_[15:17, 1, 1])
    bridge = lesions((20, 4, 4), np.s_[1:17, 1, 1])
    found = detect_lesions(truth, bridge, (1, 1, 1))
    assert (lesion_sensitivity(found), lesion_precision(found), lesion_f1(found)) == (1, 1, 1)


def test_empty_masks():
    empty, some = np.zeros((5, 5, 5), bool), lesions((5, 5, 5), np.s_[1:3, 1:3, 1:3])
    nothing = detect_lesions(empty, empty, (1, 1, 1))
    assert all(math.isnan(score(nothing)) for score in (lesion_sensitivity, lesion_precision, lesion_f1))
    alarm = detect_lesions(empty, some, (1, 1, 1))
    assert math.isnan(lesion_sensitivity(alarm))
    assert (lesion_precision(alarm), lesion_f1(alarm), alarm.false_positives) == (0, 0, 1)
    missed = detect_lesions(some, empty, (1, 1, 1))
    assert math.isnan(lesion_precision(missed))
    assert (lesion_sensitivity(missed), lesion_f1(missed), missed.missed_ml) == (0, 0, pytest.approx(0.008))


def test_components_equal_those_of_scipy():
    from scipy.ndimage import label

    truth, prediction = np.random.default_rng(0).random((2, 24, 22, 20)) < 0.04
    found = detect_lesions(truth, prediction, (1, 1, 1))
    components, count = label(truth, np.ones((3, 3, 3)))
    hit = np.unique(components[truth & prediction])
    assert (found.truth_lesions, found.detected) == (count, len(hit[hit > 0]))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_single_voxels_in_a_line_are_lesions_of_their_own(axis):
    truth, prediction = np.zeros((6, 6, 6), bool), np.zeros((6, 6, 6), bool)
    for place in (0, 2, 4):
        truth[tuple(place if a == axis else 1 for a in range(3))] = True
    prediction[tuple(2 if a == axis else 1 for a in range(3))] = True
    found = detect_lesions(truth, prediction, (1.0, 1.0, 1.0))
    assert (found.truth_lesions, found.detected, found.predicted_lesions) == (3, 1, 1)
