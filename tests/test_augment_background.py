"""Skull-stripped surroundings are known as empty after resampling, too, and nothing of the brain is taken for them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.transform import BatchInfo
from neoseg.prepare.resample import resample_image, resample_label
from neoseg.volume import Grid, Volume

OFF = {name: 0.0 for name in AugmentConfig.model_fields if name.endswith("_probability")}
NOISY = AugmentConfig(**OFF | {"noise_probability": 1.0, "noise_sd": (0.1, 0.1), "bias_field_probability": 1.0})


def resampled_head(fill: float = 0.0, noise: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, BatchInfo]:
    """Return a ball of normalised values in what was filled, and its mask, both on a finer grid."""
    shape, spacing = (40, 40, 24), (1.0, 1.0, 1.7)
    place = (np.indices(shape) - np.array(shape).reshape(3, 1, 1, 1) / 2) * np.array(spacing).reshape(3, 1, 1, 1)
    brain = (place**2).sum(axis=0) < 13**2
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(2, *shape)), (0, 1, 1, 1))
    values = 0.4 + noise * smooth / smooth.std() + place[0] / 13
    image = np.where(brain, values, 0).astype(np.float32)
    grid = Grid(shape, np.diag([*spacing, 1.0]))
    finer = grid.with_spacing((0.83, 0.83, 1.4))
    found = resample_image(Volume(image, grid), finer).array + np.float32(fill)
    mask = resample_label(Volume(brain[None].astype(np.uint8), grid), finer).array[0] > 0
    info = BatchInfo(1, 2, finer.shape, finer.spacing, fill)
    return torch.from_numpy(found)[None], torch.from_numpy(mask), info


@pytest.mark.parametrize("fill", [0.0, -2.0])
def test_resampled_surroundings_stay_empty_through_noise_and_bias_fields(fill: float) -> None:
    image, brain, info = resampled_head(fill)
    # ripples: most voxels are not exactly at the fill value
    assert (image == fill).all(dim=1)[0][~brain].float().mean() < 0.4
    found, _ = Augmentation(NOISY)(
        image,
        torch.zeros((1, *info.shape), dtype=torch.uint8),
        np.random.default_rng(0),
        spacing_mm=info.spacing_mm,
        fill=fill,
    )
    empty = (found == fill).all(dim=1)[0]
    assert empty[~brain].float().mean() > 0.6
    # beyond the first ripples nothing is left, at the borders and corners neither
    away = torch.from_numpy(ndimage.distance_transform_edt(~brain.numpy()))
    assert (away > 9).sum() > 1000 and empty[away > 9].all()
    assert not empty[brain].any()


@pytest.mark.parametrize("noise", [0.0, 0.05, 1.0])
def test_no_voxel_of_the_brain_is_taken_for_the_surroundings(noise: float) -> None:
    # with a slope from one side to the other, there is a plane of voxels near the fill value
    image, brain, info = resampled_head(noise=noise)
    near = (image[:, :1].abs() < 0.05)[0, 0]
    assert near[brain].sum() > 100
    assert not info.outside(image)[0, 0][brain].any()


def test_one_wild_voxel_does_not_empty_the_image() -> None:
    image, brain, info = resampled_head()
    before = info.outside(image)
    place = tuple(int(n) // 2 for n in info.shape)
    image[(0, slice(None), *place)] = 1e5
    after = info.outside(image)
    assert not after[0, 0][brain].any()
    assert (after | ~before).all()


def test_single_voxels_at_the_fill_value_are_empty_and_single_ones_near_it_are_not() -> None:
    info = BatchInfo(1, 1, (6, 6, 6), (1.0, 1.0, 1.0), -1.0)
    image = torch.ones(1, 1, 6, 6, 6)
    image[0, 0, 2, 2, 2], image[0, 0, 4, 4, 4] = -1.0, -1.0001
    wanted = torch.zeros(1, 1, 6, 6, 6, dtype=torch.bool)
    wanted[0, 0, 2, 2, 2] = True
    assert torch.equal(info.outside(image), wanted)
    # a block, one at the border of which only a part is seen, and one that is too thin
    image[0, 0, :2, :2, :2], image[0, 0, 3:6, 0:3, 3:6] = -1.0001, -1.0002
    image[0, 0, :2, 4:, 2:4], wanted[0, 0, :2, :2, :2], wanted[0, 0, 3:6, 0:3, 3:6] = -1.0002, True, True
    assert torch.equal(info.outside(image), wanted)


def test_in_pictures_only_the_fill_value_itself_is_empty() -> None:
    image = torch.rand(2, 3, 12, 12) + 1
    image[:, :, :5] = 1e-6
    image[0, :, 8:] = 0.0
    found = BatchInfo(2, 3, (12, 12), (1.0, 1.0)).outside(image)
    assert torch.equal(found, (image == 0).all(dim=1, keepdim=True)) and found.any()


def test_what_is_empty_does_not_hang_on_the_other_samples() -> None:
    image, _, info = resampled_head()
    two = torch.cat([image, 30 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))])
    both = BatchInfo(2, 2, info.shape, info.spacing_mm)
    assert torch.equal(both.outside(two)[:1], info.outside(image))


@pytest.mark.parametrize("kept", [True, False])
def test_a_channel_that_was_not_taken_stays_empty_whatever_black_means(kept: bool) -> None:
    image = torch.from_numpy(np.random.default_rng(0).random((1, 2, 8, 8, 8)).astype(np.float32))
    image[0, 0, :4], image[0, 1] = 0, 0
    found, _ = Augmentation(NOISY.model_copy(update={"keep_background": kept}))(
        image, torch.zeros((1, 8, 8, 8), dtype=torch.uint8), np.random.default_rng(0), spacing_mm=(1.0, 1.0, 1.0)
    )
    assert not found[0, 1].any()
    assert bool(found[0, 0, :4].any()) is not kept


def test_black_colours_of_a_picture_are_mixed_and_get_noise_where_black_is_a_value() -> None:
    image = torch.zeros((1, 3, 16, 16))
    image[0, 2] = torch.from_numpy(np.random.default_rng(0).random((16, 16)).astype(np.float32))
    found, _ = Augmentation(NOISY.model_copy(update={"keep_background": False}))(
        image, torch.zeros((1, 16, 16), dtype=torch.uint8), np.random.default_rng(0), spacing_mm=(1.0, 1.0)
    )
    assert found[0, 0].any() and found[0, 1].any()
