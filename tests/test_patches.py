import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.data.patches import VOXELS_PER_LESION, PatchSampler, clamped_start, cut
from neoseg.errors import InputError


def label_with(*boxes, shape=(30, 28, 12)):
    label = np.zeros(shape, dtype=np.uint8)
    for value, corner, size in boxes:
        label[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = value
    return label


axes = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(-6, 9)), min_size=2, max_size=3)


@given(axes)
@settings(max_examples=60, deadline=None)
def test_a_cut_equals_the_slice_of_a_padded_array(axes):
    shape, patch, start = zip(*axes, strict=True)
    array = np.arange(1, 1 + 2 * np.prod(shape), dtype=np.float32).reshape(2, *shape)
    wide = np.pad(array, [(0, 0)] + [(20, 20)] * len(shape), constant_values=-7)
    wanted = wide[(slice(None), *(slice(s + 20, s + 20 + p) for s, p in zip(start, patch, strict=True)))]
    found = cut(array, start, patch, -7)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == array.dtype
    assert not np.shares_memory(found, array)


def test_a_cut_is_filled_channel_by_channel():
    found = cut(np.ones((2, 2, 2), dtype=np.float32), (-1, 0), (3, 2), [5.0, 6.0])
    np.testing.assert_array_equal(found[:, 0], [[5, 5], [6, 6]])
    np.testing.assert_array_equal(found[:, 1:], 1)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 39)), min_size=2, max_size=3))
@settings(max_examples=100, deadline=None)
def test_a_start_keeps_the_patch_inside_or_the_image_in_the_middle(axes):
    axes = [(n, p, c % n) for n, p, c in axes]
    shape, patch, centre = zip(*axes, strict=True)
    for s, n, p, c in zip(clamped_start(centre, shape, patch), shape, patch, centre, strict=True):
        if n >= p:
            assert 0 <= s <= n - p
            assert s <= c < s + p
        else:
            before, after = -s, s + p - n
            assert before + after == p - n
            assert 0 <= before - after <= 1


def test_every_second_patch_of_a_pair_lies_on_a_lesion():
    label = label_with((1, (20, 20, 8), (3, 3, 2)))
    sampler = PatchSampler([label, np.zeros_like(label)], (8, 8, 4))
    generator = np.random.default_rng(0)
    for _ in range(50):
        first, second = sampler.draw(generator, 2)
        assert first.foreground and not second.foreground
        assert first.case == 0
        assert cut(label[None], first.start, (8, 8, 4)).any()


def test_the_share_of_lesion_patches_is_the_expected_one():
    label = label_with((1, (20, 20, 8), (3, 3, 2)))
    sampler = PatchSampler([label], (8, 8, 4), foreground_fraction=0.3)
    generator = np.random.default_rng(0)
    drawn = [p.foreground for _ in range(1000) for p in sampler.draw(generator, 1)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("power", "wanted"), [(0.0, 0.5), (0.5, 1 / 11), (1.0, 1 / 101)])
def test_small_lesions_are_drawn_by_the_power_of_their_volume(power, wanted):
    # 5 voxels and 500 voxels, too far apart for one patch
    label = label_with((1, (0, 0, 0), (5, 1, 1)), (1, (20, 18, 2), (10, 10, 5)))
    sampler = PatchSampler([label], (4, 4, 4), foreground_fraction=1.0, lesion_power=power)
    generator = np.random.default_rng(1)
    small = np.mean([p.start[0] < 10 for p in sampler.draw(generator, 4000)])
    assert small == pytest.approx(wanted, abs=0.025)


def test_classes_are_drawn_equally_often():
    label = label_with((1, (0, 0, 0), (4, 4, 4)), (2, (20, 20, 4), (1, 1, 1)))
    sampler = PatchSampler([label], (3, 3, 3), foreground_fraction=1.0)
    drawn = [p.start[0] > 10 for p in sampler.draw(np.random.default_rng(2), 2000)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.04)


def test_touching_corners_are_one_lesion():
    label = label_with((1, (0, 0, 0), (2, 2, 2)), (1, (2, 2, 2), (2, 2, 2)), (1, (20, 20, 8), (2, 2, 4)))
    sampler = PatchSampler([label], (1, 1, 1), foreground_fraction=1.0, lesion_power=0.0)
    drawn = [p.start[0] > 10 for p in sampler.draw(np.random.default_rng(3), 2000)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.04)


def test_without_any_lesion_patches_come_from_anywhere():
    sampler = PatchSampler([np.zeros((9, 9), dtype=np.uint8)], (4, 12))
    drawn = sampler.draw(np.random.default_rng(0), 200)
    assert not any(p.foreground for p in drawn)
    assert {p.start[0] for p in drawn} == set(range(6))
    assert {p.start[1] for p in drawn} == {-2}


def test_a_large_lesion_is_remembered_in_part_only():
    label = np.ones((20, 20, 20), dtype=np.uint8)
    sampler = PatchSampler([label], (1, 1, 1), foreground_fraction=1.0)
    drawn = {p.start for p in sampler.draw(np.random.default_rng(0), 6000)}
    assert 0.8 * VOXELS_PER_LESION < len(drawn) <= VOXELS_PER_LESION
    assert np.array(list(drawn)).mean(axis=0) == pytest.approx(9.5, abs=0.5)


def test_the_same_seed_draws_the_same_patches():
    labels = [label_with((1, (3, 3, 3), (5, 5, 5))) for _ in range(3)]
    drawn = [PatchSampler(labels, (8, 8, 8)).draw(np.random.default_rng(5), 20) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_no_case_is_refused():
    with pytest.raises(InputError, match="no case to draw"):
        PatchSampler([], (4, 4, 4))
