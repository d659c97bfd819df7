"""Thick slices: turns, zooms, bends and low resolution stay in their plane, and no slice is mixed with another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.resolution import LOW_RESOLUTION, low_resolution_matrix
from neoseg.augment.spatial import AFFINE, ELASTIC, rotation_matrix
from neoseg.augment.transform import THICK, BatchInfo
from neoseg.prepare import resample

OFF = {name: 0.0 for name in AugmentConfig.model_fields if name.endswith("_probability")}
BY_NAME = {
    "turn": {"rotation_probability": 1.0},
    "zoom": {"scaling_probability": 1.0},
    "bend": {"elastic_probability": 1.0, "elastic_spacing_mm": 12.0, "elastic_displacement_mm": (4.0, 4.8)},
    "low resolution": {"low_resolution_probability": 1.0, "channel_probability": 1.0},
}
BY_NAME["all"] = {key: value for given in BY_NAME.values() for key, value in given.items()}
SIDES = (20, 18, 7)


pytestmark = pytest.mark.usefixtures("one_thread")


def thick_info(axis: int, samples: int = 3) -> BatchInfo:
    """Return a batch with slices of 5 mm across an axis."""
    shape, spacing = list(SIDES[:2]), [1.0, 1.2]
    shape.insert(axis, SIDES[2])
    spacing.insert(axis, 5.0)
    return BatchInfo(samples, 2, tuple(shape), tuple(spacing))


@pytest.mark.parametrize("name", BY_NAME)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_takes_nothing_from_another(axis: int, name: str) -> None:
    info = thick_info(axis)
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(size=(3, 2, *info.shape)).astype(np.float32))
    label = torch.from_numpy(generator.integers(0, 3, (3, *info.shape)).astype(np.uint8))
    augmentation = Augmentation(AugmentConfig(**OFF | BY_NAME[name], keep_background=False))
    drawn = augmentation.sample(generator, info)
    found, mask = augmentation.apply(image, label, drawn, info)
    assert not torch.equal(found, image)
    # one slice becomes so bright that any share of it in another would show
    bright, marked = image.clone(), label.clone()
    bright.select(axis + 2, 3).fill_(1e9)
    marked.select(axis + 1, 3).fill_(7)
    changed, remarked = augmentation.apply(bright, marked, drawn, info)
    others = [k for k in range(SIDES[2]) if k != 3]
    index = torch.tensor(others)
    # 3-D low resolution and the first moves are exact, slice by slice
    assert torch.equal(changed.index_select(axis + 2, index), found.index_select(axis + 2, index))
    kept, before = (both.index_select(axis + 1, index) for both in (remarked, mask))
    assert torch.equal(kept, before)
    assert (changed.select(axis + 2, 3) > 1e8).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_only_turns_in_the_plane_are_drawn_and_by_its_limit(axis: int) -> None:
    info = thick_info(axis, samples=3000)
    config = AugmentConfig(rotation_probability=1.0, rotation_degrees=(10.0, 20.0, 30.0))
    degrees = AFFINE.sample(config, np.random.default_rng(0), info)["degrees"]
    assert np.abs(degrees[:, axis]).max() == pytest.approx(config.rotation_degrees[axis], rel=0.02)
    assert not np.delete(degrees, axis, axis=1).any()


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_bend_has_no_part_across_the_slices(axis: int) -> None:
    info = thick_info(axis)
    control = ELASTIC.sample(AugmentConfig(**OFF | BY_NAME["bend"]), np.random.default_rng(0), info)["control_mm"]
    assert not control[:, axis].any() and np.delete(control, axis, axis=1).all()


def test_a_zoom_enlarges_in_the_plane_only() -> None:
    info = BatchInfo(1, 1, (60, 60, 9), (1.0, 1.0, 5.0))
    label = torch.zeros((1, *info.shape), dtype=torch.uint8)
    label[:, 20:40, 20:40, 3:6] = 1
    _, mask = AFFINE.apply(label[:, None].float(), label, {"degrees": np.zeros((1, 3)), "zoom": np.array([1.4])}, info)
    assert [bool(mask[..., k].any()) for k in range(9)] == [3 <= k < 6 for k in range(9)]
    assert mask[..., 4].sum().item() == pytest.approx(400 * 1.4**2, rel=0.04)


def test_low_resolution_keeps_the_slices() -> None:
    info = thick_info(1)
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 2, *info.shape)).astype(np.float32))
    found, _ = LOW_RESOLUTION.apply(image, torch.zeros((3, *info.shape)), {"zoom": np.full((3, 2), 0.5)}, info)
    x, z = (torch.from_numpy(low_resolution_matrix(n, 0.5)).float() for n in (info.shape[0], info.shape[2]))
    torch.testing.assert_close(found, torch.einsum("ix,kz,bcxyz->bciyk", x, z, image))


def test_a_turn_in_the_plane_is_that_of_the_pictures() -> None:
    info = thick_info(2)
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(size=(3, 2, *info.shape)).astype(np.float32))
    label = torch.from_numpy(generator.integers(0, 3, (3, *info.shape)).astype(np.uint8))
    parameters = {"degrees": np.array([[0.0, 0.0, 25.0]] * 3), "zoom": np.full(3, 0.8)}
    found, mask = AFFINE.apply(image, label, parameters, info)
    flat = BatchInfo(3, 2, info.shape[:2], info.spacing_mm[:2])
    for k in range(SIDES[2]):
        own = {"degrees": np.full((3, 1), 25.0), "zoom": np.full(3, 0.8)}
        picture, marks = AFFINE.apply(image[..., k], label[..., k], own, flat)
        torch.testing.assert_close(found[..., k], picture, atol=1e-5, rtol=0)
        assert (mask[..., k] == marks).float().mean() > 0.999


def test_a_turn_out_of_the_plane_that_is_asked_for_is_made() -> None:
    info = BatchInfo(1, 1, (9, 9, 9), (1.0, 1.0, 5.0))
    image = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, 9, 9, 9)).astype(np.float32))
    half = {"degrees": np.array([[180.0, 0.0, 0.0]]), "zoom": np.ones(1)}
    found, _ = AFFINE.apply(image, torch.zeros((1, 9, 9, 9), dtype=torch.uint8), half, info)
    torch.testing.assert_close(found, image.flip(3, 4), atol=1e-4, rtol=0)
    np.testing.assert_allclose(rotation_matrix(half["degrees"][0]), np.diag([1.0, -1.0, -1.0]), atol=1e-12)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([0.5, 1.0, 1.5, 3.0, 3.001, 4.5, 9.0]), min_size=2, max_size=3))
def test_slices_are_thick_where_preparation_takes_them_as_they_are(spacing: list[float]) -> None:
    info = BatchInfo(1, 1, (4,) * len(spacing), tuple(spacing))
    assert info.slice_axis == resample.slice_axis(spacing, spacing)
    assert resample.THICK == THICK
