"""Surface distances: drawn masks, properties, and two independent programs as references."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from neoseg.metrics import assd, element_areas, hausdorff, masd, nsd, surface_distances

SCORES = {
    "hd95": hausdorff,
    "masd": masd,
    "assd": assd,
    "nsd": nsd,
}


def scores(truth, prediction, spacing):
    record = surface_distances(truth, prediction, spacing)
    return {name: function(record) for name, function in SCORES.items()}


def blobs(seed, shape=(17, 15, 12)):
    """Two smooth random masks that overlap in part."""
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    noise = gaussian_filter(generator.standard_normal((2, *shape)), (0, *[1.5] * len(shape)))
    noise[1] = 0.6 * noise[0] + 0.4 * noise[1]
    return noise > 0.8 * noise.std()


def filled(shape=(5, 6, 4)):
    return arrays(bool, shape).filter(lambda mask: mask.any())


SPACING = st.tuples(*[st.sampled_from([0.5, 0.75, 1.0, 1.375, 2.0, 4.0])] * 3)


def test_one_voxel_is_an_octahedron():
    one = np.ones((1, 1, 1), bool)
    record = surface_distances(one, one, (2.0, 2.0, 2.0))
    # Its 8 corners each carry a triangle between the middles of three edges, side sqrt(2) mm.
    np.testing.assert_allclose(record.truth_areas, [math.sqrt(3) / 2] * 8)
    assert scores(one, one, (2.0, 2.0, 2.0)) == {"hd95": 0, "masd": 0, "assd": 0, "nsd": 1}


def test_one_pixel_is_a_diamond():
    one = np.ones((1, 1), bool)
    record = surface_distances(one, one, (3.0, 4.0))
    np.testing.assert_allclose(record.truth_areas, [2.5] * 4)


def test_contour_lengths():
    # Patterns, first axis in the high bits: one corner, a side along each axis, two opposite corners, three corners.
    lengths = element_areas((3.0, 4.0))
    assert lengths.shape == (16,)
    assert [lengths[code] for code in (0b0001, 0b1010, 0b1100, 0b1001, 0b0111)] == [2.5, 3.0, 4.0, 5.0, 2.5]
    assert lengths[0] == lengths[15] == 0


def test_flat_element_has_the_area_of_a_voxel_face():
    areas = element_areas((2.0, 3.0, 5.0))
    assert [areas[code] for code in (0b11110000, 0b11001100, 0b10101010)] == pytest.approx([15.0, 10.0, 6.0])
    assert (areas[1:255] > 0).all()
    np.testing.assert_allclose(areas, areas[::-1])


def test_shifted_slab_by_hand():
    # Slabs that fill the image in x and y, one thick slice apart.
    truth, prediction = np.zeros((2, 40, 40, 12), bool)
    truth[..., 2:6], prediction[..., 3:7] = True, True
    record = surface_distances(truth, prediction, (1.0, 1.0, 3.0))
    assert hausdorff(record, 100) == 3.0
    assert hausdorff(record) == 3.0
    assert nsd(record, 3.0) == 1.0
    # Farther than 2 mm: the whole lower face of the truth, and of the upper face all but the outer three rows, which
    # are 0, 1 and 2 mm from the side of the other slab. The same holds for the prediction, upside down.
    far = record.truth_areas[record.truth_to_prediction > 2.0]
    rim = 4 * 39 * math.hypot(0.5, 1.5) + 4 * math.sqrt(3**2 + 3**2 + 1) / 8
    assert far.sum() == pytest.approx(39 * 39 + rim + 35 * 35)
    side = 3 * (4 * 39 * 3 + 4 * 3 * math.sqrt(0.5))
    total = 2 * (39 * 39 + rim) + side
    assert record.truth_areas.sum() == pytest.approx(total)
    assert nsd(record, 2.0) == pytest.approx(1 - far.sum() / total)


def test_directed_values_differ_and_are_averaged_or_pooled():
    # One far false positive: the way there is 0, the way back is not.
    truth, prediction = np.zeros((2, 30, 6, 6), bool)
    truth[2:4, 2:4, 2:4] = prediction[2:4, 2:4, 2:4] = True
    prediction[24, 2, 2] = True
    record = surface_distances(truth, prediction, (1.0, 1.0, 1.0))
    assert not record.truth_to_prediction.any()
    voxel = 8 * math.sqrt(3) / 8
    block = record.truth_areas.sum()
    # The voxel's eight corners are 20 and 21 mm from the block, one row of whose corners lies straight opposite.
    away = voxel * (20 + 21) / 2
    assert masd(record) == pytest.approx(away / (block + voxel) / 2)
    assert assd(record) == pytest.approx(away / (2 * block + voxel))
    assert nsd(record) == pytest.approx(2 * block / (2 * block + voxel))
    assert hausdorff(record, 100) == 21
    assert hausdorff(record, 50) == 0


def test_percentile_of_an_exact_tie():
    # 19 of 20 equal elements are 95 %: the twentieth does not count, however the sum is rounded.
    from neoseg.metrics import SurfaceDistances

    for area in (0.1, 0.3, 1 / 3, 0.7):
        areas = np.full(20, area)
        record = SurfaceDistances(np.arange(20.0), areas, np.zeros(20), areas)
        assert hausdorff(record) == 18.0


def test_tolerance_is_inclusive():
    truth, prediction = np.zeros((2, 6, 6, 30), bool)
    truth[..., 5], prediction[..., 10] = True, True
    for spacing, tolerance in ((0.4, 2.0), (0.66, 3.3), (float(np.float32(0.4)), 2.0)):
        record = surface_distances(truth, prediction, (1.0, 1.0, spacing))
        assert nsd(record, tolerance) == 1.0
        # The near sides of two plates of one voxel are four steps apart, the far sides five.
        assert 0 < nsd(record, tolerance * 0.99) < 1.0


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 4)])
def test_empty_masks(shape):
    empty, some = np.zeros((2, *shape), bool)
    some[1:3, 2] = True
    spacing = (1.5,) * len(shape)
    nothing = surface_distances(empty, empty, spacing)
    assert all(array.size == 0 for array in (nothing.truth_areas, nothing.truth_to_prediction))
    assert all(math.isnan(function(nothing)) for function in SCORES.values())
    for pair in ((some, empty), (empty, some)):
        record = surface_distances(*pair, spacing)
        assert nsd(record) == 0.0
        assert all(math.isnan(function(record)) for name, function in SCORES.items() if name != "nsd")
    missed = surface_distances(some, empty, spacing)
    assert np.isinf(missed.truth_to_prediction).all()
    assert missed.prediction_to_truth.size == 0


@settings(max_examples=60, deadline=None)
@given(filled(), filled(), SPACING)
def test_symmetric(truth, prediction, spacing):
    there, back = scores(truth, prediction, spacing), scores(prediction, truth, spacing)
    assert there == pytest.approx(back, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(filled(), SPACING)
def test_identical_masks_agree_completely(mask, spacing):
    assert scores(mask, mask, spacing) == {"hd95": 0.0, "masd": 0.0, "assd": 0.0, "nsd": 1.0}


@settings(max_examples=60, deadline=None)
@given(filled(), filled(), SPACING, st.permutations(range(3)), st.tuples(*[st.integers(0, 3)] * 3))
def test_moving_flipping_and_turning_change_nothing(truth, prediction, spacing, order, offset):
    expected = scores(truth, prediction, spacing)
    wider = [(n, 4 - n) for n in offset]
    assert scores(np.pad(truth, wider), np.pad(prediction, wider), spacing) == pytest.approx(expected, abs=1e-9)
    for axis in range(3):
        flipped = scores(np.flip(truth, axis), np.flip(prediction, axis), spacing)
        assert flipped == pytest.approx(expected, abs=1e-9)
    turned = scores(truth.transpose(order), prediction.transpose(order), [spacing[axis] for axis in order])
    assert turned == pytest.approx(expected, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(filled(), filled(), SPACING, st.floats(0.1, 10))
def test_distances_scale_with_the_spacing(truth, prediction, spacing, factor):
    small = surface_distances(truth, prediction, spacing)
    large = surface_distances(truth, prediction, [s * factor for s in spacing])
    assert masd(large) == pytest.approx(factor * masd(small), rel=1e-9, abs=1e-12)
    assert nsd(large, 2.0 * factor) == pytest.approx(nsd(small, 2.0), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(filled(), filled(), SPACING)
def test_nsd_grows_with_the_tolerance(truth, prediction, spacing):
    record = surface_distances(truth, prediction, spacing)
    values = [nsd(record, tolerance) for tolerance in (0.25, 0.5, 1, 2, 4, 8, 100)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1.0)
    assert values[0] >= 0


@settings(max_examples=40, deadline=None)
@given(filled(), filled(), SPACING)
def test_distances_are_the_smallest_over_all_elements(truth, prediction, spacing):
    from neoseg.metrics.surface import surface_elements

    points = [np.argwhere(surface_elements(mask)[0]) * spacing for mask in (truth, prediction)]
    table = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    record = surface_distances(truth, prediction, spacing)
    np.testing.assert_allclose(np.sort(record.truth_to_prediction), np.sort(table.min(axis=1)), atol=1e-9)
    np.testing.assert_allclose(np.sort(record.prediction_to_truth), np.sort(table.min(axis=0)), atol=1e-9)


@pytest.mark.parametrize("shape", [(17, 15, 12), (30, 26)])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_surface_distance_package(seed, shape):
    reference = pytest.importorskip("surface_distance")
    truth, prediction = blobs(seed, shape)
    spacing = (1.1, 0.7, 2.3)[: len(shape)]
    theirs = reference.compute_surface_distances(truth, prediction, spacing)
    ours = surface_distances(truth, prediction, spacing)
    for percentile in (50, 95, 100):
        assert hausdorff(ours, percentile) == pytest.approx(reference.compute_robust_hausdorff(theirs, percentile))
    assert masd(ours) == pytest.approx(np.mean(reference.compute_average_surface_distance(theirs)))
    for tolerance in (0.9, 1.7, 2.9):
        expected = reference.compute_surface_dice_at_tolerance(theirs, tolerance)
        assert nsd(ours, tolerance) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_monai_where_the_definitions_are_equal(seed):
    torch = pytest.importorskip("torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from monai.metrics import compute_dice, compute_iou, compute_surface_dice

    from neoseg.metrics import count_voxels, dice, iou

    truth, prediction = blobs(seed)
    spacing = (1.3, 0.9, 2.1)
    y, y_pred = (torch.from_numpy(mask)[None, None].float() for mask in (truth, prediction))
    theirs = compute_surface_dice(
        y_pred, y, class_thresholds=[1.7], include_background=True, spacing=spacing, use_subvoxels=True
    )
    assert nsd(surface_distances(truth, prediction, spacing), 1.7) == pytest.approx(theirs.item(), abs=1e-6)
    counts = count_voxels(truth, prediction, spacing)
    assert dice(counts) == pytest.approx(compute_dice(y_pred, y).item(), abs=1e-6)
    assert iou(counts) == pytest.approx(compute_iou(y_pred, y).item(), abs=1e-6)
