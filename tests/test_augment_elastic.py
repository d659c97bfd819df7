"""Elastic deformation: mm, one resampling with the affine, labels beside their tissue, and no folds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.interpolate import BSpline

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import LARGEST_MOVE, AugmentConfig
from neoseg.augment.elastic import displacement_mm, spline_matrix
from neoseg.augment.spatial import AFFINE, ELASTIC, rotation_matrix, warp
from neoseg.augment.transform import BatchInfo

STRONG = AugmentConfig(elastic_probability=1.0, elastic_spacing_mm=10.0, elastic_displacement_mm=(4.0, 4.0))
GRIDS = {"3-D": ((24, 20, 12), (1.0, 1.2, 2.5)), "2-D": ((40, 30), (1.0, 1.5))}


pytestmark = pytest.mark.usefixtures("one_thread")


def smooth_batch(kind, samples=2):
    shape, spacing = GRIDS[kind]
    generator = np.random.default_rng(0)
    image = np.stack([ndimage.gaussian_filter(generator.normal(0, 3, shape), 1.5) for _ in range(samples)])
    label = torch.from_numpy((image > 0.2).astype(np.uint8))
    return torch.from_numpy(image.astype(np.float32))[:, None], label, BatchInfo(samples, 1, shape, spacing, -1.0)


def field_of(parameters, info, sample=0):
    own = {key: values[sample] for key, values in parameters.items()}
    return displacement_mm(own, info, torch.device("cpu")).numpy().astype(np.float64)


def jacobian_determinants(field, spacing):
    """Return det(1 + Du) of each voxel by differences to the next one along each axis."""
    axes = field.ndim - 1
    sides = [n - 1 for n in field.shape[:axes]]
    inner = tuple(slice(side) for side in sides)
    slopes = np.stack([np.diff(field, axis=a)[inner] / spacing[a] for a in range(axes)], axis=-1)
    return np.linalg.det(np.eye(axes) + slopes)


def test_the_weights_are_cubic_b_splines_that_sum_to_one():
    matrix = spline_matrix(30, 1.5, 9, 8.0)
    place = (np.arange(30) - 14.5) * 1.5
    for k in range(9):
        middle = (k - 4) * 8.0
        spline = BSpline.basis_element(middle + 8.0 * np.arange(-2, 3), extrapolate=False)
        np.testing.assert_allclose(matrix[:, k], np.nan_to_num(spline(place)), atol=1e-12)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)


def test_control_points_that_move_alike_shift_the_image_by_so_many_mm():
    image, label, info = smooth_batch("3-D")
    parameters = dict(ELASTIC.sample(STRONG, np.random.default_rng(0), info))
    control = np.zeros_like(parameters["control_mm"])
    control[0, 2], control[1, 0] = 5.0, -3.0
    found, mask = ELASTIC.apply(image, label, parameters | {"control_mm": control}, info)
    # 5 mm are 2 voxels along z, and the value comes from there
    torch.testing.assert_close(found[0, 0, :, :, :-2], image[0, 0, :, :, 2:], atol=1e-4, rtol=0)
    torch.testing.assert_close(found[1, 0, 3:], image[1, 0, :-3], atol=1e-4, rtol=0)
    assert torch.equal(mask[0, :, :, :-2], label[0, :, :, 2:]) and torch.equal(mask[1, 3:], label[1, :-3])
    assert (found[0, 0, :, :, -2:] == info.fill).all() and not mask[0, :, :, -2:].any()


@pytest.mark.parametrize("kind", GRIDS)
def test_draws_stay_within_the_displacement_and_never_fold(kind):
    shape, spacing = GRIDS[kind]
    info = BatchInfo(12, 1, shape, spacing)
    parameters = ELASTIC.sample(STRONG, np.random.default_rng(1), info)
    assert np.abs(parameters["control_mm"]).max() == pytest.approx(4.0, rel=0.05)
    smallest = []
    for sample in range(12):
        field = field_of(parameters, info, sample)
        assert 0.5 < np.abs(field).max() <= 4.0
        smallest.append(jacobian_determinants(field, spacing).min())
    # they do bend: tissue shrinks to less than three quarters somewhere
    assert 0 < min(smallest) < 0.75


def worst_determinant(axes, bound, tries=40):
    """Search the control points, each moving by up to the bound in spacings, for the smallest det(1 + Du) at a point.

    The determinant is linear in each component of the displacement, so the worst choice of one, the others given, moves
    each control point by the bound; such choices are made in turn.
    """
    generator, step, smallest = np.random.default_rng(0), 1e-5, np.inf
    for _ in range(tries):
        point = generator.uniform(0, 1, axes)
        weights = []
        for axis in range(axes):
            product = np.ones(())
            for a in range(axes):
                here = (_splines(point[a] + step) - _splines(point[a] - step)) / (2 * step)
                product = np.multiply.outer(product, here if a == axis else _splines(point[a]))
            weights.append(product.ravel())
        gradients = np.stack(weights)  # (axis of the derivative, control point)
        jacobian = np.eye(axes) + np.sign(generator.normal(size=(axes, gradients.shape[1]))) @ gradients.T * bound
        for turn in range(6 * axes):
            component = turn % axes
            cofactors = np.linalg.det(jacobian) * np.linalg.inv(jacobian)[:, component]
            move = -bound * np.sign(cofactors @ gradients)
            jacobian[component] = np.eye(axes)[component] + gradients @ move
        smallest = min(smallest, np.linalg.det(jacobian))
    return smallest


def _splines(place):
    """Return the weights of the four control points around a place in 0..1, at -1, 0, 1 and 2."""
    return np.array([float(BSpline.basis_element(np.arange(-2.0, 3.0))(place - k)) for k in range(-1, 3)])


@pytest.mark.parametrize("axes", [2, 3])
def test_the_worst_control_points_at_the_bound_do_not_fold(axes):
    assert worst_determinant(axes, LARGEST_MOVE) > 0
    # the search would find a fold: beyond the bounds of Choi and Lee there is one
    assert worst_determinant(axes, {2: 0.53, 3: 0.45}[axes]) < 0


@pytest.mark.parametrize("kind", GRIDS)
def test_affine_and_elastic_are_one_linear_interpolation(kind):
    image, label, info = smooth_batch(kind)
    generator = np.random.default_rng(4)
    always = STRONG.model_copy(update={"rotation_probability": 1.0, "scaling_probability": 1.0})
    drawn = {t.name: t.sample(always, generator, info) for t in (AFFINE, ELASTIC)}
    found, mask = Augmentation(always).apply(image, label, drawn, info)
    assert all(map(torch.equal, (found, mask), warp(image, label, drawn["affine"], drawn["elastic"], info)))
    centre = (np.array(info.shape) - 1) / 2
    spacing = np.array(info.spacing_mm)
    place = (np.stack(np.indices(info.shape), axis=-1) - centre) * spacing
    for i in range(info.batch):
        pull = rotation_matrix(drawn["affine"]["degrees"][i]).T / drawn["affine"]["zoom"][i]
        index = (place + field_of(drawn["elastic"], info, i)) @ pull.T / spacing + centre
        wanted = ndimage.map_coordinates(
            image[i, 0].numpy(), np.moveaxis(index, -1, 0), order=1, mode="grid-constant", cval=-1.0
        )
        np.testing.assert_allclose(found[i, 0].numpy(), wanted, atol=1e-4)


def test_a_sample_without_deformation_is_that_of_the_affine_alone():
    image, label, info = smooth_batch("3-D")
    always = STRONG.model_copy(update={"rotation_probability": 1.0})
    affine = AFFINE.sample(always, np.random.default_rng(2), info)
    elastic = dict(ELASTIC.sample(always, np.random.default_rng(3), info))
    elastic["control_mm"] = elastic["control_mm"] * np.array([1.0, 0.0]).reshape(2, 1, 1, 1, 1)
    found, mask = warp(image, label, affine, elastic, info)
    alone, alone_mask = AFFINE.apply(image, label, affine, info)
    assert torch.equal(found[1], alone[1]) and torch.equal(mask[1], alone_mask[1])
    assert not torch.equal(found[0], alone[0])


@pytest.mark.parametrize("kind", GRIDS)
def test_a_label_stays_on_its_tissue(kind):
    _, label, info = smooth_batch(kind)
    image, info = label[:, None].float(), BatchInfo(2, 1, info.shape, info.spacing_mm)
    for seed in range(5):
        found, mask = ELASTIC.apply(image, label, ELASTIC.sample(STRONG, np.random.default_rng(seed), info), info)
        assert torch.equal(found[:, 0] > 0.5, mask == 1)
        assert not torch.equal(mask, label)


def test_several_classes_stay_on_their_tissue():
    label = torch.zeros((1, 40, 40), dtype=torch.uint8)
    label[:, 8:20, 8:32], label[:, 20:32, 8:32] = 1, 2
    image, info = label[:, None].float(), BatchInfo(1, 1, (40, 40), (1.0, 1.0))
    drawn = ELASTIC.sample(STRONG, np.random.default_rng(0), info)
    found, mask = ELASTIC.apply(image, label, drawn, info)
    # away from borders, where the image is between two classes, both say the same
    clear = (found[0, 0] - found[0, 0].round()).abs() < 1e-4
    assert clear.float().mean() > 0.6 and set(mask[0][clear].tolist()) == {0, 1, 2}
    assert torch.equal(found[0, 0][clear].round().to(torch.uint8), mask[0][clear])
