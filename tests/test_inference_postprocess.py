import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.ndimage import label

from neoseg.inference.configs import PostprocessSearch
from neoseg.inference.postprocess import (
    Lesions,
    PostprocessConfig,
    apply,
    dice_by_volume,
    kept_components,
    remove_small,
    scores_by_size,
)
from neoseg.inference.uncertainty import entropy, range_ml, spread
from neoseg.methods.choice import Choice, best_choice, best_counts, class_table, score_table
from neoseg.metrics.lesion import detect_lesions, lesion_f1
from neoseg.pipeline.predict import post_config
from neoseg.targets import Targets

TWO = Targets.of_classes(2)


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


def naive_f1(mask, truth, classes):
    scores = []
    for index in range(1, classes):
        f1 = lesion_f1(detect_lesions(truth == index, mask == index, (1.0, 1.0, 1.0)))
        scores.append(1.0 if np.isnan(f1) else f1)
    return scores


def naive_largest(mask, counts):
    """Components by scipy, each class by itself, sorted by size."""
    result = np.zeros_like(mask)
    for index, count in enumerate(counts, start=1):
        found, number = label(mask == index, np.ones((3, 3, 3)))
        sizes = np.bincount(found.ravel(), minlength=number + 1)[1:]
        order = np.argsort(-sizes, kind="stable")[: count or None]
        result[np.isin(found, order + 1)] = index
    return result


@given(masks, masks, st.lists(st.floats(0, 12), min_size=1, max_size=3), st.permutations([0, 1, 2]))
@settings(max_examples=60, deadline=None)
def test_scores_of_every_way_equal_removing_and_scoring(mask, truth, sizes, counts):
    found = scores_by_size(mask, Lesions.of(truth), 3, sizes, counts)
    for i, size in enumerate(sizes):
        for j, count in enumerate(counts):
            left = kept_components(mask, size, (count, count))
            for index, scores in enumerate(found, start=1):
                one = np.uint8(1)
                own, real = (left == index) * one, (truth == index) * one
                np.testing.assert_allclose(scores.dice[i, j], naive_dice(own, real, 2), atol=1e-12)
                np.testing.assert_allclose(scores.lesion_f1[i, j], naive_f1(own, real, 2)[0], atol=1e-12)


@given(masks, st.tuples(*[st.integers(0, 3)] * 2))
@settings(max_examples=60, deadline=None)
def test_the_largest_components_of_each_class_stay(mask, counts):
    found = kept_components(mask, 0, counts)
    wanted = naive_largest(mask, counts)
    for index in (1, 2):
        # of components of one size any may stay
        sizes = [
            sorted(np.bincount(label(m == index, np.ones((3, 3, 3)))[0].ravel())[1:].tolist()) for m in (found, wanted)
        ]
        assert sizes[0] == sizes[1]
    assert ((found == mask) | (found == 0)).all()


def test_apply_keeps_the_largest():
    mask = np.zeros((12, 5, 5))
    mask[0:2], mask[4:7], mask[9] = 1, 1, 1
    found = apply(two_classes(mask), (1, 1, 1), PostprocessConfig(keep_largest=(2,)))
    assert found[:, 0, 0].tolist() == [1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0]


def a_case(seed):
    """A truth of one large and one small ball, and a probability with the large one, a false speck and noise."""
    generator = np.random.default_rng(seed)
    truth = np.zeros((20, 12, 12), dtype=np.uint8)
    truth[2:8, 2:8, 2:8], truth[14:16, 3:5, 3:5] = 1, 1
    probability = generator.uniform(0, 0.2, truth.shape) + 0.6 * truth
    probability[18, 9:11, 9:11] = 0.7
    return truth, probability.astype(np.float32)


def search_of(**changes):
    return PostprocessSearch(thresholds=(0.3, 0.5, 0.6), minimum_lesion_mm3=(0.0, 5.0, 20.0), **changes)


@pytest.mark.parametrize("criterion", ["dice", "lesion_f1", "both"])
def test_the_choice_has_the_best_mean_of_its_criterion(criterion):
    search = search_of(keep_largest=(0, 1), criterion=criterion)
    cases = [a_case(i) for i in range(3)]
    tables = [
        score_table(
            lambda t, p=p: (p >= t).astype(np.uint8), truth, thresholds=search.thresholds, search=search, voxel_mm3=1.0
        )
        for truth, p in cases
    ]
    assert tables[0].shape == (2, 3, 3, 2)
    chosen = best_choice(tables, thresholds=search.thresholds, search=search)
    config = PostprocessConfig(
        threshold=chosen.threshold, minimum_lesion_mm3=chosen.minimum_lesion_mm3, keep_largest=chosen.keep_largest
    )
    found = [apply(two_classes(p), (1, 1, 1), config) for _, p in cases]
    dice = np.mean([naive_dice(m, t, 2) for m, (t, _) in zip(found, cases, strict=True)])
    f1 = np.mean([naive_f1(m, t, 2)[0] for m, (t, _) in zip(found, cases, strict=True)])
    assert (chosen.dice, chosen.lesion_f1) == pytest.approx((dice, f1))
    assert (chosen.cases, chosen.criterion) == (3, criterion)
    # the speck of 4 voxels goes, and the small lesion of 8 stays
    assert (chosen.minimum_lesion_mm3, chosen.keep_largest) == (5.0, ()) and f1 == 1.0


def scored(dice):
    """Tables ``(2, thresholds, 1, 1)`` of one row of Dice a case."""
    return [np.broadcast_to(np.array(row)[None, :, None, None], (2, len(row), 1, 1)) for row in dice]


THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
ONE = PostprocessSearch(thresholds=THRESHOLDS, minimum_lesion_mm3=(0.0,))


def test_a_threshold_that_is_best_by_chance_is_not_taken():
    # some cases gain by a low threshold and others lose as much, but for a little
    gain = np.array([0.3, -0.25, 0.28, -0.29, 0.27, -0.26])
    rows = 0.5 + gain[:, None] * (np.array(THRESHOLDS) < 0.35)
    assert gain.mean() > 0
    assert best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE, usual=0.5).threshold == 0.5
    assert best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE).threshold == 0.2


def test_a_threshold_that_is_better_in_nearly_every_case_is_taken():
    gain = np.array([0.1, 0.12, 0.08, -0.01, 0.1, 0.09])
    rows = 0.5 + gain[:, None] * (np.array(THRESHOLDS) < 0.35)
    assert best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE, usual=0.5).threshold == 0.2


@given(st.integers(0, 10**6), st.integers(2, 8))
@settings(max_examples=60, deadline=None)
def test_no_choice_is_worse_than_the_best_by_more_than_a_standard_error(seed, cases):
    rows = np.random.default_rng(seed).uniform(0, 1, (cases, len(THRESHOLDS)))
    padded = np.pad(rows, ((0, 0), (1, 1)), mode="edge")
    smooth = (padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]) / 3
    best = smooth[:, smooth.mean(axis=0).argmax()]
    highest = best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE).threshold
    assert smooth[:, THRESHOLDS.index(highest)].mean() == pytest.approx(best.mean())
    chosen = THRESHOLDS.index(best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE, usual=0.5).threshold)
    for i in range(len(THRESHOLDS)):
        behind = best - smooth[:, i]
        good = behind.mean() <= behind.std(ddof=1) / cases**0.5 + 1e-9
        if i == chosen:
            assert good
        elif abs(THRESHOLDS[i] - 0.5) < abs(THRESHOLDS[chosen] - 0.5) - 1e-9:
            assert not good


def test_cases_of_one_subject_are_one_piece_of_evidence():
    gain = np.repeat([0.3, -0.25, 0.28], 6)
    rows, owners = 0.5 + gain[:, None] * (np.array(THRESHOLDS) < 0.35), list(np.repeat(["a", "b", "c"], 6))
    chosen = {
        name: best_choice(scored(rows), thresholds=THRESHOLDS, search=ONE, usual=0.5, subjects=subjects).threshold
        for name, subjects in (("apart", None), ("together", owners))
    }
    assert chosen == {"apart": 0.2, "together": 0.5}
    first = [0, 6, 12]  # six equal cases of a subject say what one of them says
    few = best_choice(scored(rows[first]), thresholds=THRESHOLDS, search=ONE, usual=0.5, subjects=owners[::6])
    assert few.threshold == 0.5


def test_components_are_not_taken_out_by_chance():
    search = PostprocessSearch(keep_largest=(0, 1))
    lucky, clear = np.zeros((6, 2, 1, 2)), np.zeros((6, 2, 1, 2))
    lucky[:, :, 0, 1] = np.array([0.3, -0.25, 0.28, -0.29, 0.27, -0.26])[:, None]
    clear[:, :, 0, 1] = 0.1
    assert best_counts(list(lucky), search=search).keep_largest == (0,)
    assert best_counts(list(clear), search=search).keep_largest == (1,)


def test_f1_may_choose_other_than_dice():
    search = PostprocessSearch(thresholds=(0.5, 0.65), minimum_lesion_mm3=(0.0,), keep_largest=(0, 1))
    picks = {}
    for criterion in ("dice", "lesion_f1"):
        one = search.model_copy(update={"criterion": criterion})
        table = np.zeros((2, 2, 1, 2))
        table[0, 1, 0, 1], table[1, 0, 0, 0] = 1, 1
        picks[criterion] = best_choice([table], thresholds=one.thresholds, search=one)
    assert picks["dice"].keep_largest == (1,) and picks["lesion_f1"].keep_largest == ()


def test_each_class_has_its_own_count_of_components():
    truth = np.zeros((24, 8, 8), dtype=np.uint8)
    truth[1:6, 1:7, 1:7], truth[10:14, 1:4, 1:4], truth[16:19, 1:4, 1:4] = 1, 2, 2
    mask = truth.copy()
    mask[21:23, 1:4, 1:4] = 1  # a false part of the organ; class 2 has two true parts
    search = PostprocessSearch(keep_largest=(0, 1))
    chosen = best_counts([class_table(mask, truth, search=search, classes=3)] * 2, search=search)
    assert chosen.keep_largest == (1, 0) and chosen.dice == 1.0 and chosen.lesion_f1 == 1.0
    np.testing.assert_array_equal(kept_components(mask, 0, chosen.keep_largest), truth)
    assert chosen.threshold == 0.5 and chosen.minimum_lesion_mm3 == 0


def test_without_a_difference_nothing_is_removed():
    table = np.ones((2, 3, 3, 2))
    search = search_of(keep_largest=(1, 0))
    chosen = best_choice([table], thresholds=search.thresholds, search=search)
    assert (chosen.threshold, chosen.minimum_lesion_mm3, chosen.keep_largest) == (0.5, 0.0, ())


def test_a_choice_of_an_older_run_still_loads():
    old = {"threshold": 0.45, "minimum_lesion_mm3": 20.0, "dice": 0.7, "cases": 9}
    config = post_config(Choice(**old))
    assert config == PostprocessConfig(threshold=0.45, minimum_lesion_mm3=20.0)
    new = json.loads(json.dumps(asdict(Choice(0.4, 5.0, 0.6, 3, (1,), 0.5, "both"))))
    assert post_config(Choice(**new)) == PostprocessConfig(threshold=0.4, minimum_lesion_mm3=5.0, keep_largest=(1,))


def test_entropy_and_spread_by_hand():
    p = np.array([[0.5, 1.0, 0.9], [0.5, 0.0, 0.1]], dtype=np.float32)
    h = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    np.testing.assert_allclose(entropy(p, TWO), [1.0, 0.0, h], atol=1e-6)
    np.testing.assert_allclose(entropy(np.full((5, 2), 0.2, dtype=np.float32), Targets.of_classes(5)), 1.0, atol=1e-6)
    members = np.stack([p, p[::-1], p])
    wanted = [0.0, np.std([0, 1, 0], ddof=1), np.std([0.1, 0.9, 0.1], ddof=1)]
    np.testing.assert_allclose(spread(members, TWO), wanted, atol=1e-6)
    mask = np.array([0, 1, 1, 2], dtype=np.uint8)
    assert range_ml([mask, np.ones_like(mask)], (1,), 0.5) == (1.0, 2.0)
