from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.errors import GeometryError
from neoseg.volume import (
    Grid,
    Volume,
    canonical,
    grid_difference,
    repair_affine,
    rounded_length,
    same_grid,
    to_stored,
    upright,
)


def rotation(seed: int) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return q * np.sign(np.diag(r))


def affine_of(seed: int, d: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    affine = np.eye(d + 1)
    q, _ = np.linalg.qr(rng.normal(size=(d, d)))
    affine[:-1, :-1] = q * rng.uniform(0.5, 4.0, d)
    affine[:-1, -1] = rng.uniform(-100, 100, d)
    return affine


shapes = st.tuples(*[st.integers(1, 5)] * 3)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), shape=shapes, channels=st.integers(1, 2))
def test_canonical_keeps_every_voxel_at_its_world_position(seed: int, shape: tuple[int, ...], channels: int) -> None:
    affine = affine_of(seed)
    array = np.random.default_rng(seed).random((channels, *shape))
    volume = canonical(array, affine, file_format="nifti", name="x")
    index = np.array(np.unravel_index(np.arange(np.prod(shape)), shape)).T
    world = index @ affine[:3, :3].T + affine[:3, 3]
    there = volume.grid.to_index(world)
    assert np.abs(there - np.rint(there)).max() < 1e-9
    i, j, k = np.rint(there).astype(int).T
    assert np.array_equal(volume.array[:, i, j, k], array.reshape(channels, -1))
    np.testing.assert_array_equal(to_stored(volume), array)
    np.testing.assert_array_equal(volume.grid.stored.affine, affine)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 2**31), shape=shapes)
def test_canonical_axes_are_as_near_to_ras_as_they_can_be(seed: int, shape: tuple[int, ...]) -> None:
    grid = canonical(np.zeros((1, *shape)), affine_of(seed), file_format="mha", name="x").grid
    directions = grid.directions
    assert (np.diag(directions) >= 0).all()
    assert np.abs(directions).max() == pytest.approx(np.abs(np.diag(directions)).max())


@pytest.mark.parametrize("seed", range(4))
def test_planes_go_through_too(seed: int) -> None:
    array = np.random.default_rng(seed).random((1, 3, 4))
    volume = canonical(array, affine_of(seed, 2), file_format="mha", name="x")
    np.testing.assert_array_equal(to_stored(volume), array)
    assert volume.grid.ndim == 2


@pytest.mark.parametrize("columns", [(0.0, 1.5, 3.0), (1.0, 0.0)])
def test_an_axis_without_length_is_refused(columns: tuple[float, ...]) -> None:
    with pytest.raises(GeometryError, match="axes of some length"):
        Grid.of_spacing((4, 5, 6)[: len(columns)], columns)


def test_parallel_axes_are_refused_and_small_voxels_are_not() -> None:
    with pytest.raises(GeometryError, match="in different directions"):
        Grid((4, 4), np.array([[0.1, 0.3, 0], [0.7, 2.1, 0], [0, 0, 1.0]]))
    assert Grid.of_spacing((4, 5, 6), (1e-150, 1e-150, 1e-150)).ndim == 3


def test_las_storage_becomes_ras() -> None:
    array = np.arange(24).reshape(1, 2, 3, 4)
    affine = np.diag([-1.5, 2.0, 3.0, 1.0])
    volume = canonical(array, affine, file_format="nifti", name="x")
    assert volume.spacing == (1.5, 2.0, 3.0)
    np.testing.assert_array_equal(volume.array, array[:, ::-1])
    np.testing.assert_allclose(volume.grid.affine[:3, 3], [-1.5, 0, 0])


def test_rounded_directions_are_repaired_and_the_exact_affine_is_kept() -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.round(rotation(3), 3) * [1.0, 1.0, 3.0]
    grid = canonical(np.zeros((1, 2, 3, 4)), affine, file_format="nifti", name="x").grid
    np.testing.assert_allclose(grid.directions.T @ grid.directions, np.eye(3), atol=1e-12)
    assert np.abs(rotation(3).T @ rotation(3) - np.eye(3)).max() < 1e-12
    np.testing.assert_array_equal(grid.stored.affine, affine)
    # Repairing moves no direction by more than the rounding did, and keeps the voxel sizes.
    assert np.abs(repair_affine(affine, "x")[:3, :3] - affine[:3, :3]).max() < 3 * 2e-3
    np.testing.assert_allclose(sorted(grid.spacing), sorted(np.linalg.norm(affine[:3, :3], axis=0)))


@pytest.mark.parametrize("degrees", [1.0, 15.0])
def test_shear_is_refused_in_words(degrees: float) -> None:
    affine = np.eye(4)
    affine[0, 2] = np.sin(np.radians(degrees))
    affine[2, 2] = np.cos(np.radians(degrees))
    with pytest.raises(GeometryError, match=rf"scan\.nii: its axes are {degrees:.1f} degrees from right angles"):
        canonical(np.zeros((1, 2, 2, 2)), affine, file_format="nifti", name="scan.nii")


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.diag([1.0, 0.0, 1.0, 1.0]), np.full((4, 4), np.nan)])
def test_affine_without_lengths_is_refused(bad: np.ndarray) -> None:
    with pytest.raises(GeometryError, match=r"scan\.nii"):
        canonical(np.zeros((1, 2, 2, 2)), bad, file_format="nifti", name="scan.nii")


def test_shape_and_channels_must_fit() -> None:
    with pytest.raises(GeometryError, match="channels come first"):
        Volume(np.zeros((2, 2, 2)), Grid((2, 2, 2), np.eye(4)))
    with pytest.raises(GeometryError, match="at least one voxel"):
        Grid((2, 0, 2), np.eye(4))
    with pytest.raises(GeometryError, match="4 x 4"):
        Grid((2, 2, 2), np.eye(3))


def test_same_grid_allows_for_float32_headers_only() -> None:
    grid = Grid((128, 128, 40), affine_of(1))
    rounded = Grid(grid.shape, grid.affine.astype(np.float32))
    assert same_grid(grid, rounded)
    moved = grid.affine.copy()
    moved[0, 3] += 0.2 * min(grid.spacing)
    assert not same_grid(grid, Grid(grid.shape, moved))
    assert not same_grid(grid, Grid((128, 128, 41), grid.affine))


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*[st.integers(2, 40)] * 3))
def test_new_spacing_keeps_the_field_of_view(seed: int, shape: tuple[int, ...]) -> None:
    grid = Grid(shape, affine_of(seed))
    spacing = tuple(np.random.default_rng(seed).uniform(0.5, 3.0, 3))
    new = grid.with_spacing(spacing)
    np.testing.assert_allclose(new.spacing, spacing)
    np.testing.assert_allclose(new.centre, grid.centre, atol=1e-6)
    old_fov, new_fov = np.array(grid.shape) * grid.spacing, np.array(new.shape) * new.spacing
    assert (np.abs(old_fov - new_fov) < np.array(spacing)).all()


@given(seed=st.integers(0, 2**31))
def test_cropping_keeps_world_positions(seed: int) -> None:
    grid = Grid((7, 8, 9), affine_of(seed))
    cropped = grid.cropped((1, -2, 3), (4, 4, 4))
    np.testing.assert_allclose(cropped.to_world(np.array([2, 3, 1])), grid.to_world(np.array([3, 1, 4])))
    point = np.array([[1.5, 2.25, 0.5]])
    np.testing.assert_allclose(grid.to_index(grid.to_world(point)), point, atol=1e-9)


def test_volumes_travel_to_other_processes() -> None:
    volume = canonical(np.ones((1, 2, 3, 4)), affine_of(2), file_format="mha", name="x", header={"a": [1.0]})
    again = pickle.loads(pickle.dumps(volume))
    np.testing.assert_array_equal(to_stored(again), to_stored(volume))
    assert again.grid.stored.header["a"] == [1.0]


@given(seed=st.integers(0, 2**31))
def test_an_upright_grid_depends_on_the_voxels_alone(seed: int) -> None:
    affine = affine_of(seed)
    grid = Grid((5, 6, 7), affine)
    made = upright(grid)
    assert made.shape == grid.shape
    assert np.allclose(made.spacing, grid.spacing, atol=1e-4)
    assert np.allclose(made.centre, 0, atol=1e-9)
    assert np.allclose(made.directions, np.eye(3))
    again = upright(Grid((5, 6, 7), affine.astype(np.float32).astype(np.float64)))
    assert np.allclose(again.affine, made.affine, atol=4e-4)


@pytest.mark.parametrize("side", [2.5e-4, 1.1e-4, 3.25e-3, 4e-8, 0.35])
def test_an_upright_grid_keeps_the_size_of_voxels_under_a_microscope(side: float) -> None:
    made = upright(Grid((6, 7), np.diag([side, 2 * side, 1.0])))
    np.testing.assert_allclose(made.spacing, (side, 2 * side), rtol=1e-9)


def test_lengths_are_rounded_as_headers_in_single_precision_agree() -> None:
    assert [rounded_length(s) for s in (0.859375, 1.00000001, 3.2999999523, 0.00012345678)] == [
        0.8594, 1.0, 3.3, 0.0001235,
    ]  # fmt: skip


def changed(grid: Grid, *, spacing: float = 1.0, degrees: float = 0.0, shift: float = 0.0) -> Grid:
    """The grid with its third spacing stretched about its centre, turned about it, and moved along x."""
    angle = np.radians(degrees)
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = grid.affine.copy()
    affine[:3, :3] = turn @ affine[:3, :3] @ np.diag([1, 1, spacing])
    affine[:3, 3] += grid.centre - (affine[:3, :3] @ ((np.array(grid.shape) - 1) / 2) + affine[:3, 3])
    affine[0, 3] += shift
    return Grid(grid.shape, affine)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"spacing": 1.1}, r"^spacing \(1, 1, 3\.3\) mm against \(1, 1, 3\) mm, so corners lie up to 4\.35 mm apart$"),
        ({"spacing": 1.0004}, r"^spacing \(1, 1, 3\.0012\) mm against \(1, 1, 3\) mm, so corners .* 0\.0174 mm apart$"),
        ({"spacing": 1 + 2e-6}, r"^spacing \(1, 1, 3\.000006\) mm against \(1, 1, 3\) mm, "),
        ({"degrees": 5.0}, r"^axes turned by 5\.00 degrees, so "),
        ({"degrees": 0.02}, r"^axes turned by 0\.02 degrees, so "),
        ({"shift": 3.0}, r"^centre \(102\.5, 49\.5, 43\.5\) mm against \(99\.5, 49\.5, 43\.5\) mm, .* 3 mm apart$"),
        ({"shift": 1e-4}, r"^centre \(99\.5001, 49\.5, 43\.5\) mm against \(99\.5, 49\.5, 43\.5\) mm, "),
    ],
)
def test_the_difference_of_two_grids_is_told_in_numbers_that_differ(change: dict[str, float], words: str) -> None:
    grid = Grid.of_spacing((200, 100, 30), (1.0, 1.0, 3.0))
    told = grid_difference(changed(grid, **change), grid)
    assert re.search(words, told), told


def test_shapes_differ_before_all_else() -> None:
    one, other = Grid.of_spacing((4, 5, 6), (1, 1, 1)), Grid.of_spacing((4, 5), (1, 1))
    assert grid_difference(one, other) == "shape (4, 5, 6) against (4, 5)"
