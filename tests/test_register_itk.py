"""RAS against LPS: images and transforms keep their place in the world on the way to SimpleITK and back."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.transform import Rotation

from neoseg.errors import GeometryError
from neoseg.register.itk import affine_from_itk, affine_to_itk, image_to_itk, lps
from neoseg.register.transforms import Affine, resample
from neoseg.volume import Grid, Volume


def oblique_volume(seed: int, flip: bool) -> Volume:
    rng = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_rotvec(rng.normal(0, 0.5, 3)).as_matrix() @ np.diag([1.4, 1.6, 3.1])
    if flip:
        affine[:3, 1] *= -1
    affine[:3, 3] = -affine[:3, :3] @ [10, 9, 5] + rng.normal(0, 2, 3)
    grid = Grid((21, 19, 11), affine)
    return Volume(rng.normal(size=(1, *grid.shape)).astype(np.float32), grid)


@pytest.mark.parametrize("flip", [False, True])
def test_every_voxel_lies_at_the_same_place(flip: bool) -> None:
    volume = oblique_volume(1, flip)
    image = image_to_itk(volume)
    for index in [(0, 0, 0), (20, 3, 7), (5, 18, 10)]:
        assert image.GetPixel(index) == volume.array[(0, *index)]
        place = image.TransformIndexToPhysicalPoint(index)
        assert np.allclose(lps(np.array(place)), volume.grid.to_world(np.array(index)))


def test_affine_survives_the_way_there_and_back() -> None:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.2, -0.3, 0.4]).as_matrix() @ np.diag([1.1, 0.9, 1.05])
    matrix[:3, 3] = [4, -7, 9]
    back = affine_from_itk(affine_to_itk(Affine(matrix), np.array([3.0, 5.0, -8.0])))
    assert np.allclose(back.matrix, matrix)


def test_the_two_conventions_differ_by_the_signs_of_x_and_y() -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])
    affine[:3, 3] = [10, 20, 30]
    image = image_to_itk(Volume(np.zeros((1, 3, 3, 3), np.float32), Grid((3, 3, 3), affine)))
    assert image.GetOrigin() == (-10, -20, 30)
    assert image.GetDirection() == (-1, 0, 0, 0, -1, 0, 0, 0, 1)
    assert image.GetSpacing() == (2, 3, 4)
    euler = sitk.Euler3DTransform()
    euler.SetRotation(np.pi / 2, 0, 0)
    euler.SetTranslation((1, 2, 3))
    # LPS (0, -1, 0) turns to (0, 0, -1) and moves to (1, 2, 2).
    assert np.allclose(affine_from_itk(euler).points(np.array([[0.0, 1, 0]])), [[-1, -2, 2]])


@pytest.mark.parametrize("flip", [False, True])
def test_our_resampling_equals_itk(flip: bool) -> None:
    moving, fixed = oblique_volume(2, flip), oblique_volume(3, not flip)
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([0.1, 0.2, -0.1]).as_matrix()
    matrix[:3, 3] = [1, -2, 1.5]
    ours = resample(moving, fixed.grid, Affine(matrix)).array[0]
    transform = affine_to_itk(Affine(matrix), np.zeros(3))
    theirs = sitk.Resample(image_to_itk(moving), image_to_itk(fixed), transform, sitk.sitkLinear, 0.0)
    expected = sitk.GetArrayFromImage(theirs).transpose(2, 1, 0)
    assert (expected != 0).mean() > 0.3
    assert np.abs(ours - expected).max() < 1e-3


def test_two_channels_are_refused() -> None:
    volume = oblique_volume(4, False)
    with pytest.raises(GeometryError, match="one channel"):
        image_to_itk(Volume(np.repeat(volume.array, 2, axis=0), volume.grid))
