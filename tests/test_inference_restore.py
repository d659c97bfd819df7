import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from neoseg.errors import GeometryError
from neoseg.inference import restore as restoring
from neoseg.inference.restore import largest_class, restore, restored_classes, restored_slabs
from neoseg.register.transforms import Affine
from neoseg.volume import Grid


def probabilities_of(shape, classes=3, seed=0):
    values = np.random.default_rng(seed).random((classes, *shape)).astype(np.float32)
    return values / values.sum(axis=0)


def turned_grid(shape, spacing, degrees=20.0):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = (-31.7, 12.3, 5.1)
    return Grid(shape, affine)


@given(
    st.tuples(*[st.integers(1, 12)] * 3),
    st.tuples(*[st.floats(0.3, 4.0)] * 3),
    st.tuples(*[st.integers(0, 5)] * 3),
    st.tuples(*[st.integers(0, 5)] * 3),
    st.floats(-40, 40),
)
@settings(max_examples=60, deadline=None)
def test_a_crop_comes_back_bit_by_bit(shape, spacing, before, after, degrees):
    native = turned_grid(tuple(b + n + a for b, n, a in zip(before, shape, after, strict=True)), spacing, degrees)
    given = probabilities_of(shape)
    found = restore(given, native.cropped(before, shape), native)
    wanted = np.zeros((3, *native.shape), dtype=np.float32)
    wanted[0] = 1
    wanted[(slice(None), *(slice(b, b + n) for b, n in zip(before, shape, strict=True)))] = given
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == np.float32


def test_a_larger_prepared_grid_is_cut():
    native = turned_grid((6, 7, 5), (1.0, 1.0, 2.5))
    given = probabilities_of((10, 11, 9))
    found = restore(given, native.cropped((-2, -2, -2), (10, 11, 9)), native)
    np.testing.assert_array_equal(found, given[:, 2:8, 2:9, 2:7])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_flipped_axis_is_turned_back(axis):
    native = turned_grid((6, 7, 5), (1.0, 1.0, 2.5))
    affine = native.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (native.shape[axis] - 1)
    affine[:3, axis] *= -1
    given = probabilities_of(native.shape)
    found = restore(given, Grid(native.shape, affine), native)
    np.testing.assert_array_equal(found, np.flip(given, axis + 1))


def test_permuted_axes_are_turned_back():
    native = turned_grid((6, 7, 5), (1.0, 1.0, 2.5))
    order = [2, 0, 1]
    prepared = Grid(tuple(native.shape[a] for a in order), native.affine[:, [*order, 3]])
    given = probabilities_of(prepared.shape)
    found = restore(given, prepared, native)
    np.testing.assert_array_equal(found, np.transpose(given, (0, 2, 3, 1)))


@pytest.mark.parametrize("degrees", [0.0, 25.0])
def test_a_linear_field_is_interpolated_exactly_inside(degrees):
    native = turned_grid((20, 18, 10), (1.0, 1.2, 2.0), degrees)
    prepared = native.with_spacing((1.7, 1.5, 1.1))
    assert prepared.shape != native.shape

    def field(grid):
        world = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
        share = 0.5 + world @ [0.003, -0.002, 0.004]
        return np.stack([1 - share, share]).astype(np.float32)

    found = restore(field(prepared), prepared, native)
    np.testing.assert_allclose(found[:, 1:-1, 1:-1, 1:-1], field(native)[:, 1:-1, 1:-1, 1:-1], atol=1e-6)
    # the outer half voxel repeats the border, it is not background
    assert found[1].min() > 0.3


def test_turned_grids_are_resampled_through_world_coordinates():
    native, prepared = turned_grid((16, 16, 8), (1.0, 1.0, 2.0), 0.0), turned_grid((30, 30, 10), (1.0, 1.0, 2.0), 12.0)
    centre = native.centre - prepared.centre
    affine = prepared.affine.copy()
    affine[:3, 3] += centre
    prepared = Grid(prepared.shape, affine)

    def field(grid):
        share = 0.5 + grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1)) @ [0.003, -0.002, 0.004]
        return np.stack([1 - share, share]).astype(np.float32)

    found = restore(field(prepared), prepared, native)
    np.testing.assert_allclose(found, field(native), atol=1e-6)
    outside = restore(field(native), native, prepared)
    corner = outside[:, 0, 0]
    np.testing.assert_array_equal(corner[0], 1)
    np.testing.assert_array_equal(corner[1], 0)
    np.testing.assert_allclose(outside.sum(axis=0), 1, atol=1e-6)


def test_grids_that_do_not_meet_give_background():
    native = turned_grid((4, 4, 4), (1.0, 1.0, 1.0))
    far = native.cropped((100, 0, 0), (4, 4, 4))
    found = restore(probabilities_of((4, 4, 4)), far, native)
    assert (found[0] == 1).all() and not found[1:].any()


def test_two_dimensions():
    native = Grid.of_spacing((6, 5), (1.0, 2.0))
    given = probabilities_of((3, 2))
    found = restore(given, native.cropped((1, 2), (3, 2)), native)
    np.testing.assert_array_equal(found[:, 1:4, 2:4], given)
    assert found[0].sum() == pytest.approx(30 - 6 + given[0].sum(), rel=1e-6)


def test_an_array_of_another_shape_is_refused():
    native = Grid.of_spacing((6, 5), (1.0, 2.0))
    with pytest.raises(GeometryError, match="cannot be restored"):
        restore(probabilities_of((5, 6)), native, native)


def directly(values, prepared, native, beyond=0.25):
    """Every native voxel by scipy's linear interpolation of the whole volume at once; outside, class 0.

    The field of view ends so many voxels beyond the outer faces.
    """
    index = prepared.to_index(native.to_world(np.moveaxis(np.indices(native.shape), 0, -1)))
    places = np.moveaxis(index, -1, 0)
    sources = np.array(prepared.shape).reshape(-1, *[1] * native.ndim)
    # a place on the border counts as inside, whatever its last bits
    reach = 0.5 + beyond + 1e-6
    inside = ((places >= -reach) & (places <= sources - 1 + reach)).all(axis=0)
    found = np.stack([map_coordinates(v.astype(np.float64), places, order=1, mode="nearest") for v in values])
    found[0][~inside], found[1:, ~inside] = 1, 0
    return found


shapes = st.tuples(*[st.integers(1, 9)] * 3)
spacings = st.tuples(*[st.sampled_from([0.5, 0.8, 1.0, 1.5, 3.0])] * 3)


@given(shapes, spacings, spacings, st.permutations(range(3)), st.integers(1, 400), st.booleans())
@settings(max_examples=60, deadline=None)
def test_slabs_equal_the_direct_interpolation_of_the_whole_volume(shape, there, here, order, slab, logits):
    prepared = turned_grid(shape, there)
    native = prepared.with_spacing(here)
    native = Grid(tuple(native.shape[a] for a in order), native.affine[:, [*order, 3]])
    values = probabilities_of(shape, classes=4, seed=sum(shape))
    values = np.log(values) if logits else values
    wanted = directly(values, prepared, native)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(restoring, "SLAB_VOXELS", slab)
        found = restore(values, prepared, native)
        classes = restored_classes(values, prepared, native)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(found, restore(values, prepared, native))
    np.testing.assert_array_equal(classes, found.argmax(axis=0))
    first, second = np.sort(wanted, axis=0)[-1], np.sort(wanted, axis=0)[-2]
    clear = first - second > 1e-4
    np.testing.assert_array_equal(classes[clear], wanted.argmax(axis=0)[clear])


@pytest.mark.parametrize("degrees", [0.0, 15.0])
def test_slabs_through_a_transform_equal_the_whole(degrees, monkeypatch):
    native, prepared = turned_grid((13, 11, 9), (1.0, 1.0, 2.0), degrees), turned_grid((20, 20, 14), (0.8, 0.8, 1.4), 0)
    c, s = np.cos(0.1), np.sin(0.1)
    transform = Affine([[c, -s, 0, 1.5], [s, c, 0, -0.7], [0, 0, 1.05, 0.4], [0, 0, 0, 1]])
    values = probabilities_of(prepared.shape)
    moved = Grid(native.shape, transform.matrix @ native.affine)
    whole = restore(values, prepared, native, transform)
    np.testing.assert_allclose(whole, directly(values, prepared, moved, beyond=0), atol=1e-5)
    for slab in (1, 250):
        monkeypatch.setattr(restoring, "SLAB_VOXELS", slab)
        np.testing.assert_allclose(restore(values, prepared, native, transform), whole, atol=1e-6)


def test_slabs_come_in_order_and_read_a_mapped_file(tmp_path, monkeypatch):
    monkeypatch.setattr(restoring, "SLAB_VOXELS", 100)
    native = turned_grid((9, 7, 5), (1.0, 1.0, 2.5))
    prepared = native.with_spacing((1.7, 1.5, 1.1))
    values = probabilities_of(prepared.shape)
    np.save(tmp_path / "values.npy", values)
    mapped = np.load(tmp_path / "values.npy", mmap_mode="r")
    parts = [(first, slab.copy()) for first, slab in restored_slabs(mapped, prepared, native)]
    assert [first for first, _ in parts] == [0, 2, 4, 6, 8]
    np.testing.assert_array_equal(np.concatenate([s for _, s in parts], axis=1), restore(values, prepared, native))


def test_the_lower_of_equal_classes_is_taken():
    values = np.array([[0.2, 0.4, 0.3], [0.4, 0.4, 0.3], [0.4, 0.2, 0.4]], dtype=np.float32)
    assert largest_class(values).tolist() == values.argmax(axis=0).tolist() == [1, 0, 2]


def full(grid):
    """Certain foreground everywhere."""
    values = np.zeros((2, *grid.shape), dtype=np.float32)
    values[1] = 1
    return values


ODD = [
    # voxels, spacing and spacing of the plan; 152 mm are 30.4 slices of 5 mm, of which 30 are made
    ((8, 8, 152), (1.0, 1.0, 1.0), (1.0, 1.0, 5.0)),
    ((152, 7, 9), (1.0, 1.0, 1.0), (5.0, 2.0, 3.0)),
    ((25, 31, 17), (0.5, 0.7, 0.3), (1.7, 1.7, 1.7)),
    # exactly half a voxel too long: the farthest that rounding goes
    ((25, 35, 45), (0.1, 0.1, 0.1), (1.0, 1.0, 1.0)),
    # rounded up, and one voxel where less than half of one would do
    ((26, 28, 3), (1.0, 1.0, 1.0), (10.0, 5.0, 10.0)),
    ((63, 21), (0.4, 0.9), (2.5, 2.0)),
]


@pytest.mark.parametrize(("shape", "spacing", "plan"), ODD)
@pytest.mark.parametrize("flipped", [False, True])
def test_a_mask_that_fills_the_volume_comes_back_filling_it(shape, spacing, plan, flipped):
    native = Grid.of_spacing(shape, spacing)
    prepared = native.with_spacing(plan)
    if flipped:
        affine = prepared.affine.copy()
        affine[:-1, -1] += affine[:-1, 0] * (prepared.shape[0] - 1)
        affine[:-1, 0] *= -1
        prepared = Grid(prepared.shape, affine)
    assert restored_classes(full(prepared), prepared, native).all()
    np.testing.assert_array_equal(restore(full(prepared), prepared, native), full(native))


@given(
    st.tuples(*[st.integers(1, 60)] * 2),
    st.tuples(*[st.floats(0.1, 3.0)] * 2),
    st.tuples(*[st.floats(0.1, 9.0)] * 2),
)
@settings(max_examples=200, deadline=None)
def test_no_spacing_of_a_plan_takes_a_border_away(shape, spacing, plan):
    native = Grid.of_spacing(shape, spacing)
    prepared = native.with_spacing(plan)
    assert restored_classes(full(prepared), prepared, native).all()


def test_the_border_is_kept_on_a_grid_that_is_turned_a_little():
    native = Grid.of_spacing((8, 8, 152), (1.0, 1.0, 1.0))
    prepared = native.with_spacing((1.0, 1.0, 5.0))
    angle, centre = 1e-5, native.centre
    turn = np.eye(4)
    turn[0, 1], turn[1, 0] = -angle, angle
    turn[:3, 3] = centre - turn[:3, :3] @ centre
    assert restored_classes(full(prepared), Grid(prepared.shape, turn @ prepared.affine), native).all()


def test_no_more_than_the_rounding_is_filled_and_the_interior_keeps_its_bits(monkeypatch):
    native = Grid.of_spacing((12, 11, 152), (1.0, 0.8, 1.0))
    prepared = native.with_spacing((1.3, 1.1, 5.0))
    values = probabilities_of(prepared.shape)
    found = restore(values, prepared, native)
    # the prepared grid ends at 150 mm and a quarter of 5 mm at either end, so the next native slice is beyond
    wider = native.cropped((0, 0, -6), (12, 11, 164))
    beyond = restore(values, prepared, wider)
    np.testing.assert_array_equal(beyond[..., 6:-6], found)
    border = np.zeros(3, np.float32)
    border[0] = 1
    for rim in (beyond[..., :6], beyond[..., -6:]):
        np.testing.assert_array_equal(rim, np.broadcast_to(border[:, None, None, None], rim.shape))
    monkeypatch.setattr(restoring, "_ROUNDED", 0.0)
    before = restore(values, prepared, native)
    np.testing.assert_array_equal(found[..., 1:-1], before[..., 1:-1])
    assert (before[0, ..., 0] == 1).all() and (before[0, ..., -1] == 1).all()
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    np.testing.assert_array_equal(found[..., -1], found[..., -2])


@pytest.mark.parametrize(("shape", "spacing", "plan"), ODD)
def test_a_ball_keeps_its_bits_and_its_border_is_the_nearest_plane(shape, spacing, plan, monkeypatch):
    native = Grid.of_spacing(shape, spacing)
    prepared = native.with_spacing(plan)
    away = prepared.to_world(np.moveaxis(np.indices(prepared.shape), 0, -1)) - native.centre
    radius = 0.3 * min(n * s for n, s in zip(shape, spacing, strict=True))
    ball = 1 / (1 + np.exp(4 * (np.linalg.norm(away, axis=-1) - radius) / radius))
    values = np.stack([1 - ball, ball]).astype(np.float32)
    found = restore(values, prepared, native)
    places = prepared.to_index(native.to_world(np.moveaxis(np.indices(native.shape), 0, -1)))
    ends = np.array(prepared.shape) - 1
    inside = ((places > -0.5) & (places < ends + 0.5)).all(axis=-1)
    with monkeypatch.context() as patched:
        patched.setattr(restoring, "_ROUNDED", 0.0)
        np.testing.assert_array_equal(found[:, inside], restore(values, prepared, native)[:, inside])
    nearest = np.moveaxis(np.clip(places, 0, ends)[~inside], -1, 0)
    for channel, source in zip(found, values, strict=True):
        np.testing.assert_allclose(channel[~inside], map_coordinates(source, nearest, order=1), atol=1e-5)


def test_a_template_ends_at_its_faces():
    native = Grid.of_spacing((8, 8, 152), (1.0, 1.0, 1.0))
    prepared = native.with_spacing((1.0, 1.0, 5.0))
    found = restored_classes(full(prepared), prepared, native, Affine.identity())
    assert found[..., 1:-1].all() and not found[..., 0].any() and not found[..., -1].any()
