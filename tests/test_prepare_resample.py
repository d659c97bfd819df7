"""Cropping and resampling: positions in the world, borders of labels, thick slices, and the way back."""

from __future__ import annotations

from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import maximum_filter, minimum_filter, zoom

from neoseg.data.foreground import bounding_box
from neoseg.errors import GeometryError
from neoseg.inference.restore import restore
from neoseg.prepare.resample import resample_image, resample_label, slice_axis
from neoseg.volume import Grid, Volume, same_grid

SHAPES = st.tuples(*[st.integers(6, 14)] * 3)
SPACINGS = st.tuples(*[st.floats(0.7, 2.0)] * 3)
THIN = st.tuples(*[st.floats(0.8, 1.3)] * 3)
SEEDS = st.integers(0, 2**32 - 1)
TURNS = list(product(permutations(range(3)), product((False, True), repeat=3)))


def rotation(degrees: tuple[float, float, float]) -> NDArray[np.float64]:
    result = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        a, b = [i for i in range(3) if i != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        result = turn @ result
    return result


def grid_at(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    *,
    directions: NDArray[Any] | None = None,
    centre: Any = (0, 0, 0),
) -> Grid:
    """Return a grid with its field of view around ``centre``."""
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if directions is None else directions) * np.asarray(spacing)
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    return Grid(shape, affine)


def stored_otherwise(volume: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """Return the same voxels at the same places in the world, with axes in another order and direction."""
    array = np.transpose(volume.array, (0, *(a + 1 for a in axes)))
    affine = volume.grid.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, list(axes)]
    for i, flip in enumerate(flips):
        if flip:
            array = np.flip(array, i + 1)
            affine[:3, 3] += affine[:3, i] * (array.shape[i + 1] - 1)
            affine[:3, i] *= -1
    return Volume(array, Grid(array.shape[1:], affine))


def blocks(shape: tuple[int, ...], seed: int, classes: int = 3) -> NDArray[np.uint8]:
    """Return a label of a few overlapping boxes."""
    generator = np.random.default_rng(seed)
    label = np.zeros(shape, dtype=np.uint8)
    for index in range(1, classes):
        low = [int(generator.integers(0, n - 3)) for n in shape]
        high = [int(generator.integers(a + 2, n + 1)) for a, n in zip(low, shape, strict=True)]
        label[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = index
    return label


def world(grid: Grid) -> NDArray[np.float64]:
    return grid.to_world(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1))


@given(shape=SHAPES, spacing=SPACINGS, seed=SEEDS)
def test_on_its_own_grid_nothing_changes(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    grid, label = grid_at(shape, spacing), blocks(shape, seed)[None]
    assert np.array_equal(resample_image(Volume(values, grid), grid).array, values)
    assert np.array_equal(resample_label(Volume(label, grid), grid).array, label)


@settings(deadline=None)
@given(shape=SHAPES, spacing=SPACINGS, seed=SEEDS, pad=st.integers(0, 4))
def test_a_crop_and_the_way_back_keep_every_bit(
    shape: tuple[int, ...], spacing: tuple[float, ...], seed: int, pad: int
) -> None:
    generator = np.random.default_rng(seed)
    label = np.pad(blocks(shape, seed), pad)
    image = np.where(label > 0, generator.normal(1000, 200, label.shape), 0).astype(np.float32)
    native = grid_at(label.shape, spacing, centre=(3.0, -20.0, 11.0))
    start, size = bounding_box(label > 0, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))
    cropped = native.cropped(start, size)
    # cropping is the same as asking for the voxels of the smaller grid
    assert np.array_equal(resample_image(Volume(image[None], native), cropped).array[0], image[box])
    assert np.array_equal(resample_label(Volume(label[None], native), cropped).array[0], label[box])
    # and back: outside the field of view a label is background, where the crop left nothing else
    back = resample_label(Volume(label[box][None], cropped), native)
    assert np.array_equal(back.array[0], label)
    shares = np.stack([label[box] == i for i in range(3)]).astype(np.float32)
    assert np.array_equal(restore(shares, cropped, native).argmax(axis=0), label)


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, spacing=SPACINGS, new=SPACINGS, seed=SEEDS)
def test_there_and_back_a_label_changes_near_its_borders_only(
    shape: tuple[int, ...], spacing: tuple[float, ...], new: tuple[float, ...], seed: int
) -> None:
    label, native = blocks(shape, seed), grid_at(shape, spacing)
    there = resample_label(Volume(label[None], native), native.with_spacing(new))
    assert set(np.unique(there.array)) <= set(np.unique(label))
    back = resample_label(there, native).array[0]
    # Each of the two linear interpolations looks one voxel of its own source far.
    reach = [2 * int(np.ceil((s + n) / s - 1e-9)) + 1 for s, n in zip(spacing, new, strict=True)]
    same = maximum_filter(label, reach, mode="nearest") == minimum_filter(label, reach, mode="nearest")
    covered = np.all(
        np.abs(native.to_index(world(native)) - (np.asarray(shape) - 1) / 2)
        <= np.asarray(there.grid.shape) * np.asarray(new) / np.asarray(spacing) / 2,
        axis=-1,
    )
    assert np.array_equal(back[same & covered], label[same & covered])


@settings(deadline=None, max_examples=40)
@given(shape=SHAPES, spacing=SPACINGS, new=SPACINGS, slope=st.tuples(*[st.floats(-3, 3)] * 3))
def test_a_ramp_in_the_world_keeps_its_values(
    shape: tuple[int, ...], spacing: tuple[float, ...], new: tuple[float, ...], slope: tuple[float, ...]
) -> None:
    native = grid_at(shape, spacing, centre=(5.0, 1.0, -7.0))
    target = native.with_spacing(new)
    assume(not same_grid(native, target))  # which are taken as equal up to a twentieth of a voxel
    ramp = (world(native) @ np.asarray(slope)).astype(np.float32)
    found = resample_image(Volume(ramp[None], native), target, order=1).array[0]
    place = native.to_index(world(target))
    inside = ((place >= 0) & (place <= np.asarray(shape) - 1)).all(axis=-1)
    assert found.shape == target.shape
    assert found[inside] == pytest.approx((world(target) @ np.asarray(slope))[inside], abs=3e-3)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (0, 0, 25), (12, -8, 30)])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (1.4, 1.4, 2.6), (0.8, 0.8, 4.0)])
def test_a_landmark_keeps_its_place_in_the_world(
    degrees: tuple[float, float, float], spacing: tuple[float, ...]
) -> None:
    shape = tuple(round(40 / s) for s in spacing)
    source = grid_at(shape, spacing, directions=rotation(degrees), centre=(10.0, -4.0, 2.0))
    target = grid_at((36, 36, 36), (1.2, 1.2, 1.2), centre=(10.0, -4.0, 2.0))
    landmark = np.array([14.0, -1.0, 0.0])
    ball = np.exp(-(np.linalg.norm(world(source) - landmark, axis=-1) ** 2) / (2 * 4.0**2)).astype(np.float32)
    for found in (
        resample_image(Volume(ball[None], source), target).array[0],
        resample_label(Volume((ball > 0.3)[None].astype(np.uint8), source), target).array[0],
    ):
        weight = np.maximum(found, 0).astype(np.float64)
        centroid = (world(target) * weight[..., None]).sum(axis=(0, 1, 2)) / weight.sum()
        # half of the coarser voxel of the two, along every axis of the world
        assert np.abs(centroid - landmark).max() <= max(*spacing, 1.2) / 2


@given(shape=SHAPES, spacing=SPACINGS, new=SPACINGS, level=st.floats(-3000, 3000, width=32))
@settings(deadline=None, max_examples=30)
def test_a_constant_image_stays_constant(
    shape: tuple[int, ...], spacing: tuple[float, ...], new: tuple[float, ...], level: float
) -> None:
    native = grid_at(shape, spacing)
    for target in (native.with_spacing(new), grid_at(shape, new, directions=rotation((5, 10, 20)))):
        found = resample_image(Volume(np.full((1, *shape), level, dtype=np.float32), native), target).array
        assert np.abs(found - level).max() <= 1e-5 * max(1.0, abs(level))
        ones = resample_label(Volume(np.ones((1, *shape), dtype=np.uint8), native), native.with_spacing(new)).array
        assert ones.min() == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.2, 1.5), (0.9, 0.9, 4.0)])
@pytest.mark.parametrize("new", [(1.5, 1.0, 1.1), (1.8, 1.8, 8.0)])
def test_the_order_and_direction_of_stored_axes_do_not_matter(
    spacing: tuple[float, ...], new: tuple[float, ...]
) -> None:
    generator = np.random.default_rng(4)
    shape = (12, 9, 8)
    image = Volume(generator.normal(size=(1, *shape)).astype(np.float32), grid_at(shape, spacing, centre=(1, 2, 3)))
    label = Volume(blocks(shape, 5)[None], image.grid)
    target = image.grid.with_spacing(new)
    smooth, classes = resample_image(image, target), resample_label(label, target)
    for axes, flips in TURNS:
        # another way to store the source
        again = resample_image(stored_otherwise(image, axes, flips), target)
        assert np.abs(again.array - smooth.array).max() < 1e-4
        assert np.array_equal(resample_label(stored_otherwise(label, axes, flips), target).array, classes.array)
        # another way to store the result
        other = stored_otherwise(smooth, axes, flips)
        assert np.abs(resample_image(image, other.grid).array - other.array).max() < 1e-4
        turned = stored_otherwise(classes, axes, flips)
        assert np.array_equal(resample_label(label, turned.grid).array, turned.array)


@pytest.mark.parametrize(
    ("spacing", "new", "axis"),
    [
        ((1.0, 1.0, 3.0), (1.0, 1.0, 3.0), None),
        ((1.0, 1.0, 3.1), (1.0, 1.0, 1.0), 2),
        ((1.0, 1.0, 1.0), (5.0, 1.0, 1.0), 0),
        ((0.24, 1.25, 1.25), (1.0, 1.0, 1.0), None),
        ((0.24, 1.25, 1.25), (1.0, 1.0, 4.0), None),
        ((1.0, 4.0, 1.0), (1.0, 1.0, 4.0), 1),
    ],
)
def test_slices_are_apart_where_one_axis_alone_is_much_coarser(
    spacing: tuple[float, ...], new: tuple[float, ...], axis: int | None
) -> None:
    assert slice_axis(spacing, new) == axis


def test_thick_slices_are_not_mixed() -> None:
    shape = (20, 22, 6)
    levels = np.array([10.0, 700.0, 30.0, 900.0, 50.0, 60.0], dtype=np.float32)
    source = grid_at(shape, (1.0, 1.0, 5.0))
    image = Volume(np.broadcast_to(levels, (1, *shape)), source)
    target = source.with_spacing((0.8, 1.3, 2.0))
    found = resample_image(image, target).array[0]
    middle = source.to_index(world(target))[0, 0, :, 2]
    assert found.shape == target.shape
    assert np.abs(found - levels[np.floor(middle + 0.5 + 1e-6).astype(int)]).max() < 1e-3
    # the same image with cubes for voxels is interpolated between its slices
    cubes = grid_at(shape, (1.0, 1.0, 1.0))
    mixed = resample_image(Volume(image.array, cubes), cubes.with_spacing((0.8, 1.3, 0.4))).array[0]
    assert len(np.unique(np.rint(mixed))) > len(levels)


def test_in_the_plane_of_thick_slices_the_spline_is_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(20, 18, 5)).astype(np.float32)
    source = grid_at(values.shape, (1.5, 1.5, 6.0))
    found = resample_image(Volume(values[None], source), source.with_spacing((1.0, 1.0, 6.0))).array[0]
    for index in range(5):
        plane = zoom(values[..., index], 1.5, order=3, mode="nearest", grid_mode=True)
        assert np.abs(found[..., index] - plane).max() < 1e-4


def test_interpolation_is_that_of_scipy_where_slices_are_thin() -> None:
    values = np.random.default_rng(1).normal(size=(10, 12, 8)).astype(np.float32)
    source = grid_at(values.shape, (1.5, 1.5, 1.5))
    found = resample_image(Volume(values[None], source), source.with_spacing((1.0, 1.0, 1.0))).array[0]
    assert np.abs(found - zoom(values, 1.5, order=3, mode="nearest", grid_mode=True)).max() < 1e-4


def test_half_way_between_two_slices_the_upper_one_is_taken() -> None:
    values = np.broadcast_to(np.arange(6, dtype=np.float32), (1, 4, 4, 6))
    source = grid_at((4, 4, 6), (1.0, 1.0, 4.0))
    target = source.with_spacing((1.0, 1.0, 8.0))
    assert resample_image(Volume(values, source), target).array[0, 0, 0].tolist() == [1, 3, 5]


@given(shape=SHAPES, new=THIN, degrees=st.tuples(*[st.floats(-40, 40)] * 3))
@settings(deadline=None, max_examples=25)
def test_a_grid_that_is_turned_reads_the_right_places(
    shape: tuple[int, ...], new: tuple[float, ...], degrees: tuple[float, float, float]
) -> None:
    source = grid_at(shape, (1.0, 1.0, 1.0), centre=(2.0, 0.0, -5.0))
    target = grid_at(shape, new, directions=rotation(degrees), centre=(2.0, 0.0, -5.0))
    assume(not same_grid(source, target))
    ramp = (world(source) @ np.array([1.0, -2.0, 0.5])).astype(np.float32)
    found = resample_image(Volume(ramp[None], source), target, order=1).array[0]
    place = source.to_index(world(target))
    inside = ((place >= 0) & (place <= np.asarray(shape) - 1)).all(axis=-1)
    assert found[inside] == pytest.approx((world(target) @ np.array([1.0, -2.0, 0.5]))[inside], abs=3e-3)
    label = resample_label(Volume(np.ones((1, *shape), dtype=np.uint8), source), target).array[0]
    beyond = ((place < -0.51) | (place > np.asarray(shape) - 0.49)).any(axis=-1)
    assert label[inside].min(initial=1) == 1
    assert label[beyond].max(initial=0) == 0


def test_a_volume_of_one_slice_is_resampled_in_its_plane() -> None:
    values = np.random.default_rng(2).normal(size=(1, 12, 10, 1)).astype(np.float32)
    source = grid_at((12, 10, 1), (2.0, 2.0, 5.0))
    found = resample_image(Volume(values, source), source.with_spacing((1.0, 1.0, 5.0)))
    assert found.array.shape == (1, 24, 20, 1)
    assert np.isfinite(found.array).all()
    finer = resample_label(Volume((values > 0).astype(np.uint8), source), source.with_spacing((2.0, 2.0, 1.0)))
    assert finer.array.shape == (1, 12, 10, 5)
    assert np.array_equal(finer.array, np.repeat(values > 0, 5, axis=-1))


def test_fields_of_view_that_do_not_overlap_are_named() -> None:
    source = grid_at((8, 8, 8), (1.0, 1.0, 1.0))
    target = grid_at((8, 8, 8), (1.0, 1.0, 1.0), centre=(100, 0, 0))
    volume = Volume(np.ones((1, 8, 8, 8), dtype=np.uint8), source)
    for resample in (resample_image, resample_label):
        with pytest.raises(GeometryError, match=r"do not overlap.*\(100, 0, 0\)"):
            resample(volume, target)
    with pytest.raises(GeometryError, match="2-D grid"):
        resample_image(volume, Grid.of_spacing((8, 8), (1.0, 1.0)))
