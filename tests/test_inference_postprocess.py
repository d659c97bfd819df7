import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from neoseg.inference.configs import PostprocessSearch
from neoseg.inference.postprocess import PostprocessConfig, apply, dice_by_volume, remove_small


def two_classes(foreground):
    return np.stack([1 - foreground, foreground]).astype(np.float32)


def test_the_threshold_itself_is_foreground():
    found = apply(two_classes(np.array([[[0.49, 0.5, 0.51]]])), (1, 1, 1), PostprocessConfig(threshold=0.5))
    assert found.tolist() == [[[0, 1, 1]]] and found.dtype == np.uint8


def test_the_smallest_volume_is_in_mm3_and_itself_kept():
    mask = np.zeros((10, 10, 10))
    mask[0, 0, 0:3] = 1  # 3 voxels of 0.7 mm3
    mask[5:7, 5, 5] = 1  # 2 voxels
    probabilities = two_classes(mask)
    spacing = (0.7, 0.5, 2.0)
    kept = {mm3: int(apply(probabilities, spacing, PostprocessConfig(minimum_lesion_mm3=mm3)).sum())
            for mm3 in (0.0, 1.4, 1.41, 2.1, 2.11)}  # fmt: skip
    assert kept == {0.0: 5, 1.4: 5, 1.41: 3, 2.1: 3, 2.11: 0}


def test_components_meet_at_corners_and_never_across_classes():
    corner = np.zeros((4, 4, 4), dtype=np.uint8)
    corner[0, 0, 0] = corner[1, 1, 1] = 1
    np.testing.assert_array_equal(remove_small(corner, 2), corner)
    corner[1, 1, 1] = 2
    assert not remove_small(corner, 2).any()
    flat = np.eye(3, dtype=np.uint8)
    np.testing.assert_array_equal(remove_small(flat, 3), flat)


def test_with_more_classes_the_most_probable_one_is_taken():
    probabilities = np.array([[0.2, 0.4], [0.3, 0.35], [0.5, 0.25]], dtype=np.float32).reshape(3, 2, 1, 1)
    assert apply(probabilities, (1, 1, 1), PostprocessConfig(threshold=0.9)).ravel().tolist() == [2, 0]


def naive_dice(mask, truth, classes):
    scores = []
    for index in range(1, classes):
        a, b = mask == index, truth == index
        total = a.sum() + b.sum()
        scores.append(2 * (a & b).sum() / total if total else 1.0)
    return np.mean(scores)


masks = hnp.arrays(np.uint8, (6, 5, 4), elements=st.sampled_from([0, 0, 0, 0, 1, 2]))


@given(masks, masks, st.lists(st.floats(0, 12), min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_dice_by_volume_equals_removing_and_counting(mask, truth, sizes):
    found = dice_by_volume(mask, truth, 3, sizes)
    wanted = [naive_dice(remove_small(mask, size), truth, 3) for size in sizes]
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_an_empty_case_scores_one_once_the_false_alarm_is_removed():
    mask = np.zeros((5, 5, 5), dtype=np.uint8)
    mask[1:3, 1, 1] = 1
    assert dice_by_volume(mask, np.zeros_like(mask), 2, [0, 2, 3]).tolist() == [0, 0, 1]


def test_apply_leaves_its_input():
    probabilities = two_classes(np.zeros((3, 3, 3)))
    before = probabilities.copy()
    assert not apply(probabilities, (1, 1, 1), PostprocessConfig(minimum_lesion_mm3=9)).any()
    np.testing.assert_array_equal(probabilities, before)


def test_the_search_holds_the_values_of_doing_nothing():
    assert 0.5 in PostprocessSearch().thresholds and 0.0 in PostprocessSearch().minimum_lesion_mm3
    with pytest.raises(ValueError, match="less than 1"):
        PostprocessSearch(thresholds=(1.5,))
