"""Into a template's space and back: geometry, labels, fallbacks in words; no network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from neoseg.errors import GeometryError, InputError
from neoseg.inference.restore import restore
from neoseg.io import write_volume
from neoseg.metrics import dice
from neoseg.metrics.overlap import count_voxels
from neoseg.prepare.resample import resample_image, resample_label
from neoseg.prepare.standardise import Registration, Space, Template, working_space
from neoseg.register.transforms import Affine, Chain, Ffd, Transform, grid_points, sample
from neoseg.volume import Grid, Volume

NATIVE = Grid((40, 44, 22), np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -33], [0, 0, 3, -32], [0, 0, 0, 1.0]]))


def some_transform(seed: int, amplitude: float = 2.0) -> Chain:
    """Scan to template, as registration gives it: a deformation, then an affine map."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.15, 3)).as_matrix() @ np.diag(rng.uniform(0.9, 1.1, 3))
    matrix[:3, 3] = rng.normal(0, 5, 3)
    ffd = Ffd([-40, -44, -40], [16, 16, 16], rng.normal(0, amplitude, (3, 6, 6, 6)))
    return Chain([ffd, Affine(matrix)])


def template() -> Template:
    """A brain that is an ellipsoid of 28 x 30 x 26 mm half axes."""
    inside = np.linalg.norm(grid_points(NATIVE) / [28, 30, 26], axis=1).reshape(NATIVE.shape) < 1
    return Template(Volume(inside[None] * np.float32(1000), NATIVE), inside)


def around(transform: Transform, spacing: tuple[float, ...]) -> Grid:
    """A grid along the axes of the template's world that holds the whole scan."""
    corners = transform.points(grid_points(NATIVE))
    low, high = corners.min(axis=0), corners.max(axis=0)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = low
    return Grid(tuple(int(n) for n in np.ceil((high - low) / spacing) + 1), affine)


def linear(points: np.ndarray) -> np.ndarray:
    return 0.5 + points @ [0.004, -0.003, 0.002]


@given(st.integers(0, 1000), st.sampled_from([(3.0, 3.0, 3.0), (2.5, 3.0, 4.0)]))
@settings(max_examples=6, deadline=None)
def test_there_and_back_ends_within_a_tenth_of_a_voxel(seed: int, spacing: tuple[float, ...]) -> None:
    transform = some_transform(seed)
    space = Space(around(transform, spacing), transform)
    gap = np.linalg.norm(transform.points(space.points) - grid_points(space.grid), axis=1)
    assert gap.max() <= 0.1 * min(spacing)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_a_linear_probability_comes_back_exactly(seed: int) -> None:
    transform = some_transform(seed)
    grid = around(transform, (2.0, 2.0, 2.5))
    share = linear(grid_points(grid)).reshape(grid.shape).astype(np.float32)
    found = restore(np.stack([1 - share, share]), grid, NATIVE, transform)
    wanted = linear(transform.points(grid_points(NATIVE))).reshape(NATIVE.shape)
    assert np.allclose(found[1], wanted, atol=1e-5)
    assert np.allclose(found.sum(axis=0), 1, atol=1e-5)


def test_a_voxel_that_the_template_does_not_reach_is_background() -> None:
    transform = some_transform(3)
    whole = around(transform, (2.0, 2.0, 2.0))
    part = whole.cropped((0, 0, 0), (10, *whole.shape[1:]))
    probabilities = np.zeros((2, *part.shape), dtype=np.float32)
    probabilities[1] = 1
    found = restore(probabilities, part, NATIVE, transform)
    index = part.to_index(transform.points(grid_points(NATIVE)))
    inside = ((index >= -0.5) & (index <= np.array(part.shape) - 0.5)).all(axis=1).reshape(NATIVE.shape)
    assert 0.02 < inside.mean() < 0.6
    assert np.array_equal(found[1], inside.astype(np.float32))
    assert np.array_equal(found[0], 1 - found[1])


@given(st.integers(0, 1000))
@settings(max_examples=8, deadline=None)
def test_a_linear_image_is_read_at_the_right_places(seed: int) -> None:
    transform = some_transform(seed)
    values = linear(grid_points(NATIVE)).reshape(1, *NATIVE.shape).astype(np.float32)
    space = Space(around(transform, (3.0, 3.0, 3.0)), transform)
    found = space.image(Volume(values, NATIVE), np.ones(NATIVE.shape, dtype=bool))
    index = NATIVE.to_index(space.points)
    # Two voxels from the border the spline does not feel that the image ends.
    deep = ((index >= 3) & (index <= np.array(NATIVE.shape) - 4)).all(axis=1)
    assert deep.sum() > 500
    assert np.abs(found[0].ravel() - linear(space.points))[deep].max() < 2e-3
    beyond = ((index < -0.5) | (index > np.array(NATIVE.shape) - 0.5)).any(axis=1)
    assert (found[0].ravel()[beyond] == 0).all()


def test_beyond_the_scan_stands_what_lies_outside_its_brain() -> None:
    mask = np.zeros(NATIVE.shape, dtype=bool)
    mask[8:-8, 8:-8, 4:-4] = True
    image = np.where(mask, np.float32(1.5), np.float32(-3.25))[None]
    transform = some_transform(5)
    space = Space(around(transform, (3.0, 3.0, 3.0)), transform)
    found = space.image(Volume(np.concatenate([image, -image]), NATIVE), mask)
    index = NATIVE.to_index(space.points)
    beyond = ((index < -0.5) | (index > np.array(NATIVE.shape) - 0.5)).any(axis=1).reshape(space.grid.shape)
    assert beyond.any()
    assert np.allclose(found[0][beyond], -3.25, atol=1e-5)
    assert np.allclose(found[1][beyond], 3.25, atol=1e-5)


@given(st.integers(0, 1000), st.floats(7, 14))
@settings(max_examples=4, deadline=None)
def test_a_large_label_survives_the_round_trip(seed: int, radius: float) -> None:
    transform = some_transform(seed)
    centre = np.random.default_rng(seed).uniform(-8, 8, 3)
    label = (np.linalg.norm(grid_points(NATIVE) - centre, axis=1) < radius).reshape(1, *NATIVE.shape)
    space = Space(around(transform, (2.0, 2.0, 2.0)), transform)
    there = space.label(Volume(label.astype(np.uint8), NATIVE))
    back = restore(np.stack([1 - there, there]).astype(np.float32), space.grid, NATIVE, transform)[1] >= 0.5
    assert dice(count_voxels(label[0], back, NATIVE.spacing)) > 0.93


def test_classes_keep_their_places_and_beyond_the_scan_is_none() -> None:
    index = np.indices(NATIVE.shape)[0]
    label = np.where(index < 13, 2, np.where(index < 26, 1, 4)).astype(np.uint8)[None]
    space = Space(around(Affine.identity(), (1.5, 1.5, 3.0)), Affine.identity())
    grown = Space(space.grid.cropped((-4, 0, 0), (48, 44, 22)), Affine.identity())
    assert np.array_equal(space.label(Volume(label, NATIVE))[:40], label[0])
    found = grown.label(Volume(label, NATIVE))
    assert (found[:4] == 0).all()
    assert (found[-4:] == 0).all()
    assert set(np.unique(found[4:-4])) == {1, 2, 4}


def test_the_native_space_is_a_resampling_and_no_more() -> None:
    mask = template().mask
    image = template().image
    label = image.with_array((np.indices(NATIVE.shape)[0] % 7 == 0).astype(np.uint8))
    space, warnings = working_space(image.grid, (3.0, 3.0, 5.0), template=None, registration=None, mask=mask)
    assert warnings == ()
    assert space.transform is None
    assert np.array_equal(space.image(image, mask), resample_image(image, space.grid).array)
    assert np.array_equal(space.label(label), resample_label(label, space.grid).array[0])


def test_the_grid_holds_the_brain_with_a_margin_at_the_planned_spacing() -> None:
    goal = template()
    grid = goal.grid((1.25, 2.0, 3.0))
    assert np.allclose(grid.spacing, (1.25, 2.0, 3.0))
    brain = goal.image.grid.to_world(np.argwhere(goal.mask))
    index = grid.to_index(brain) * grid.spacing
    assert index.min() >= 7
    assert (np.array(grid.shape) * grid.spacing - index.max(axis=0)).min() >= 7
    assert (np.array(grid.shape) * grid.spacing < np.ptp(brain, axis=0) + 40).all()
    with pytest.raises(GeometryError, match="3 axes"):
        goal.grid((1.0, 1.0))


def test_a_template_is_kept_and_read(tmp_path: Path) -> None:
    goal = template()
    goal.save(tmp_path / "run")
    again = Template.load(tmp_path / "run")
    assert np.array_equal(again.image.array, goal.image.array)
    assert np.array_equal(again.mask, goal.mask)
    assert np.array_equal(again.image.grid.affine, goal.image.grid.affine)
    write_volume(goal.image, tmp_path / "t.nii.gz")
    read = Template.read(tmp_path / "t.nii.gz")
    assert np.array_equal(read.mask, goal.mask)
    assert np.allclose(read.image.grid.affine[:3, :3], np.diag(goal.image.spacing))
    (tmp_path / "run" / "template.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match="copy the run folder again"):
        Template.load(tmp_path / "run")
    with pytest.raises(InputError, match="nowhere"):
        Template.read(tmp_path / "nowhere.nii.gz")
    write_volume(goal.image.with_array(np.zeros_like(goal.image.array)), tmp_path / "zero.nii.gz")
    with pytest.raises(InputError, match="all 0"):
        Template.read(tmp_path / "zero.nii.gz")


def test_a_deformation_that_folds_is_left_out_with_a_warning() -> None:
    goal = template()
    coefficients = np.random.default_rng(0).normal(0, 60, (3, 8, 8, 8))
    affine = Affine.identity()
    folded = Registration(Chain([Ffd([-56, -56, -56], [16, 16, 16], coefficients), affine]), affine, {}, ())
    space, warnings = working_space(NATIVE, (3, 3, 5), template=goal, registration=folded, mask=goal.mask)
    assert space.transform is affine
    assert any("affine alignment alone" in w for w in warnings)


def test_a_brain_beyond_the_template_is_reported() -> None:
    goal = template()
    matrix = np.eye(4)
    matrix[0, 3] = 60
    away = Registration(Affine(matrix), Affine(matrix), {}, ())
    _, warnings = working_space(NATIVE, (3, 3, 5), template=goal, registration=away, mask=goal.mask)
    assert any("outside the template" in w for w in warnings)


THICK = Grid((40, 44, 11), np.array([[1.5, 0, 0, -30], [0, 1.5, 0, -33], [0, 0, 6, -30], [0, 0, 0, 1.0]]))


def nearest_slice(grid: Grid, points: np.ndarray) -> np.ndarray:
    """The same points, moved across the slices to the middle of the nearest one."""
    index = grid.to_index(points)
    index[:, 2] = np.clip(np.rint(index[:, 2]), 0, grid.shape[2] - 1)
    return grid.to_world(index)


@pytest.mark.parametrize("degrees", [6, 12])
def test_thick_slices_are_interpolated_where_a_template_cuts_across_them(degrees: float) -> None:
    """The nearest-slice rule of native space would leave steps in a template that is turned against the scan."""
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("x", degrees, degrees=True).as_matrix()
    transform = Affine(matrix)
    centre = np.array([2.0, -3.0, 1.0])
    within = np.stack(np.meshgrid([0], [0], np.linspace(-2.5, 2.5, 6), indexing="ij"), -1).reshape(-1, 3)
    share = np.mean([np.linalg.norm(grid_points(THICK) + d - centre, axis=1) < 12 for d in within], axis=0)
    label = Volume((share >= 0.5).astype(np.uint8).reshape(1, *THICK.shape), THICK)
    space = Space(around(transform, (2.0, 2.0, 2.0)), transform)
    truth = np.linalg.norm(space.points - centre, axis=1).reshape(space.grid.shape) < 12
    steps = sample(label.with_array(label.array.astype(np.float32)), nearest_slice(THICK, space.points))[0] > 0.5
    found = space.label(label) > 0
    across = dice(count_voxels(truth, found, space.grid.spacing))
    assert across > 0.89
    assert across > dice(count_voxels(truth, steps.reshape(truth.shape), space.grid.spacing)) + 0.005
    slope = Volume((0.01 * grid_points(THICK)[:, 2]).reshape(1, *THICK.shape).astype(np.float32), THICK)
    image = space.image(slope, np.ones(THICK.shape, dtype=bool))[0].ravel()
    index = THICK.to_index(space.points)
    deep = ((index >= 3) & (index <= np.array(THICK.shape) - 4)).all(axis=1)
    assert deep.sum() > 500
    assert np.abs(image - 0.01 * space.points[:, 2])[deep].max() < 0.005 < 0.01 * 3
