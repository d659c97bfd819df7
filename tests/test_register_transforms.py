"""Transforms: conventions, splines, inverses, composition, saving, resampling through any grid."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neoseg.errors import GeometryError, InputError
from neoseg.register.splines import basis
from neoseg.register.transforms import (
    Affine,
    Chain,
    Ffd,
    from_arrays,
    grid_points,
    jacobian_determinant,
    resample,
    to_arrays,
)
from neoseg.volume import Grid, Volume


def some_affine(seed: int) -> Affine:
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.3, 3)).as_matrix() @ np.diag(rng.uniform(0.8, 1.2, 3))
    matrix[:3, 3] = rng.normal(0, 10, 3)
    return Affine(matrix)


def some_ffd(seed: int, amplitude: float = 2.0) -> Ffd:
    rng = np.random.default_rng(seed)
    return Ffd([-40, -45, -38], [14, 15, 16], rng.normal(0, amplitude, (3, 7, 7, 6)))


def oblique_grid(seed: int, flip: bool = False) -> Grid:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.4, 3)).as_matrix() @ np.diag([1.5, 1.7, 3.0])
    if flip:
        affine[:3, 0] *= -1
    affine[:3, 3] = -affine[:3, :3] @ [15, 14, 7]
    return Grid((31, 29, 15), affine)


def test_basis_sums_to_one_and_derivatives_agree_with_differences() -> None:
    t = np.linspace(1.0, 6.0, 41)
    assert np.allclose(basis(t, 8).sum(axis=1), 1)
    for order in (1, 2):
        difference = (basis(t + 1e-5, 8, order - 1) - basis(t - 1e-5, 8, order - 1)) / 2e-5
        assert np.allclose(basis(t, 8, order), difference, atol=1e-4)


def test_linear_coefficients_give_a_linear_displacement() -> None:
    index = np.indices((9, 9, 9), dtype=float)
    coefficients = np.stack([0.5 * index[0], -0.25 * index[1], 0.1 * index[2] + 1])
    ffd = Ffd([-40, -40, -40], [10, 10, 10], coefficients)
    xyz = np.random.default_rng(0).uniform(-20, 20, (50, 3))
    lattice = (xyz + 40) / 10
    assert np.allclose(ffd.displacements(xyz), lattice * [0.5, -0.25, 0.1] + [0, 0, 1])


def test_displacement_is_zero_far_away_and_continuous_at_the_border() -> None:
    ffd = some_ffd(1)
    far = np.array([[500.0, 0, 0], [0, -500, 0], [1e6, 1e6, -1e6]])
    assert np.array_equal(ffd.displacements(far), np.zeros((3, 3)))
    line = np.column_stack([np.linspace(-90, 90, 4001), np.full(4001, 3.0), np.full(4001, -2.0)])
    assert np.abs(np.diff(ffd.displacements(line), axis=0)).max() < 0.05


def test_grid_evaluation_equals_point_evaluation() -> None:
    ffd = some_ffd(2)
    grid = Grid((12, 11, 10), np.array([[-7.0, 0, 0, 41], [0, 8, 0, -44], [0, 0, 8, -41], [0, 0, 0, 1.0]]))
    assert np.allclose(ffd.on_grid(grid), ffd.points(grid_points(grid)), atol=1e-10)
    axes = [grid.affine[i, 3] + grid.affine[i, i] * np.arange(n) for i, n in enumerate(grid.shape)]
    assert np.allclose(ffd.determinants_along(axes), jacobian_determinant(ffd, grid), atol=1e-10)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_jacobian_of_a_chain_agrees_with_differences(seed: int) -> None:
    chain = Chain([some_ffd(seed), some_affine(seed), some_ffd(seed + 1).inverse()])
    xyz = np.random.default_rng(seed).uniform(-30, 30, (20, 3))
    numeric = [(chain.points(xyz + d) - chain.points(xyz - d)) / 0.1 for d in 0.05 * np.eye(3)]
    assert np.allclose(chain.jacobians(xyz), np.stack(numeric, axis=-1), atol=0.05)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_inverse_of_a_chain_returns_every_point(seed: int) -> None:
    chain = Chain([some_ffd(seed, 3.0), some_affine(seed)])
    xyz = np.random.default_rng(seed).uniform(-60, 60, (500, 3))
    assert np.abs(chain.inverse().points(chain.points(xyz)) - xyz).max() < 0.02
    assert np.abs(chain.points(chain.inverse().points(xyz)) - xyz).max() < 0.02


def test_a_folded_deformation_has_no_silent_inverse() -> None:
    ffd = some_ffd(0, 60.0)
    xyz = np.random.default_rng(0).uniform(-30, 30, (500, 3))
    with pytest.raises(GeometryError, match="folds"):
        ffd.inverse().points(xyz)


def test_chain_applies_first_to_last_and_fuses_matrices() -> None:
    shift = Affine([[1, 0, 0, 5], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    double = Affine(np.diag([2.0, 2, 2, 1]))
    chain = Chain([shift, Chain([double])])
    assert np.array_equal(chain.points(np.array([[1.0, 1, 1]])), [[12, 2, 2]])
    assert len(chain.transforms) == 1


def test_saved_transforms_come_back_without_pickle() -> None:
    chain = Chain([some_ffd(3), some_affine(3), some_ffd(4).inverse()])
    stream = io.BytesIO()
    np.savez(stream, **to_arrays(chain))
    stream.seek(0)
    with np.load(stream, allow_pickle=False) as arrays:
        back = from_arrays(arrays)
    xyz = np.random.default_rng(0).uniform(-30, 30, (50, 3))
    assert np.array_equal(back.points(xyz), chain.points(xyz))
    with pytest.raises(InputError, match=r"0\.matrix"):
        from_arrays({"kinds": np.array(["affine"])})
    with pytest.raises(InputError, match="'spiral'"):
        from_arrays({"kinds": np.array(["spiral"])})


@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("order", [1, 3])
def test_resampling_reads_the_moving_image_at_the_mapped_world_point(flips: tuple[bool, bool], order: int) -> None:
    moving_grid, fixed_grid = oblique_grid(1, flips[0]), oblique_grid(2, flips[1])
    slope = np.array([3.0, -2.0, 5.0])
    world = grid_points(moving_grid) @ slope
    moving = Volume(world.reshape(1, *moving_grid.shape).astype(np.float32), moving_grid)
    transform = Chain([some_ffd(5), some_affine(6)])
    fixed = resample(moving, fixed_grid, transform, order=order, fill=np.nan)  # type: ignore[arg-type]
    places = transform.points(grid_points(fixed_grid))
    index = moving_grid.to_index(places)
    margin = 0 if order == 1 else 3
    inside = ((index >= margin) & (index <= np.array(moving_grid.shape) - 1 - margin)).all(axis=1)
    assert inside.sum() > 1000
    assert np.allclose(fixed.array.ravel()[inside], (places @ slope)[inside], atol=0.1)
    outside = ((index < -0.5) | (index > np.array(moving_grid.shape) - 0.5)).any(axis=1)
    assert np.array_equal(np.isnan(fixed.array.ravel()), outside)


def test_nearest_neighbour_keeps_type_and_labels_and_a_single_slice_works() -> None:
    label = Volume(
        np.random.default_rng(0).integers(0, 4, (1, 9, 8, 1)).astype(np.uint8),
        oblique_grid(3).cropped((0, 0, 0), (9, 8, 1)),
    )
    back = resample(label, label.grid, order=0)
    assert back.array.dtype == np.uint8
    assert np.array_equal(back.array, label.array)
    assert np.allclose(resample(label, label.grid, order=1).array, label.array, atol=1e-4)


def test_wrong_matrices_and_2d_grids_are_refused() -> None:
    with pytest.raises(GeometryError, match="4 x 4"):
        Affine(np.eye(3))
    with pytest.raises(GeometryError, match="invertible"):
        Affine(np.diag([1.0, 1, 0, 1]))
    flat = Volume(np.zeros((1, 4, 4)), Grid.of_spacing((4, 4), (1, 1)))
    with pytest.raises(GeometryError, match="three spatial axes"):
        resample(flat, flat.grid)
