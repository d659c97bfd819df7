"""Thick slices, ghosts, bias field and dropped modality, each held against what theory predicts."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neoseg.augment.artefacts import BIAS_FIELD, GHOSTING, ghost_copies
from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.modality import DROPPED_MODALITY
from neoseg.augment.resolution import ANISOTROPY, thick_slice_matrix
from neoseg.augment.transform import BatchInfo

NO_LABEL = torch.zeros(0)


pytestmark = pytest.mark.usefixtures("one_thread")


def head(samples=1, channels=1, shape=(24, 20, 12), spacing=(1.0, 1.0, 1.0), fill=0.0):
    """Return standardised noise inside a box, the fill value around it."""
    image = torch.full((samples, channels, *shape), fill)
    inside = (slice(None), slice(None), *(slice(3, n - 3) for n in shape))
    values = np.random.default_rng(0).normal(0, 1, image[inside].shape)
    image[inside] = torch.from_numpy(values.astype(np.float32))
    return image, BatchInfo(samples, channels, shape, spacing, fill)


# ---- thick slices


@pytest.mark.parametrize("thickness", [1.5, 2.0, 2.7, 4.0, 30.0])
@pytest.mark.parametrize("n", [1, 5, 20])
def test_thick_slices_of_a_constant_are_constant(n, thickness):
    matrix = thick_slice_matrix(n, thickness)
    np.testing.assert_allclose(matrix.sum(axis=1), 1)
    assert matrix.min() >= 0
    np.testing.assert_allclose(matrix, matrix[::-1, ::-1], atol=1e-12)


def test_thick_slices_average_and_then_interpolate():
    np.testing.assert_array_equal(thick_slice_matrix(7, 1.0), np.eye(7))
    # slices of two voxels have the means 0.5, 2.5, 4.5; between their centres the values run straight
    np.testing.assert_allclose(thick_slice_matrix(6, 2.0) @ np.arange(6.0), [0.5, 1, 2, 3, 4, 4.5])
    assert np.ptp(thick_slice_matrix(20, 2.0) @ (np.arange(20) % 2)) < 1e-12
    # a slice of 2.5 voxels takes half of the voxel that it shares
    middle = thick_slice_matrix(5, 2.5)[0]
    np.testing.assert_allclose(middle, [0.4, 0.4, 0.2, 0, 0])


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_step_is_widened_along_the_axis_of_the_slices_only(axis):
    info = BatchInfo(1, 1, (24, 24, 24), (1.0, 1.0, 1.0))
    for side in range(3):
        image = torch.zeros((1, 1, 24, 24, 24))
        image.movedim(2 + side, 0)[11:] = 1.0
        parameters = {"axis": np.array([float(axis)]), "thickness": np.full((1, 1), 4.0)}
        found, _ = ANISOTROPY.apply(image, NO_LABEL, parameters, info)
        profile = found.movedim(2 + side, 0)[:, 0, 0, 12, 12]
        between = ((profile > 1e-6) & (profile < 1 - 1e-6)).sum()
        assert (between >= 4) if side == axis else torch.equal(found, image)


@pytest.mark.parametrize(
    ("spacing", "axes"),
    [
        ((1.0, 1.0, 3.0), {2}),
        ((4.0, 1.0, 1.0), {0}),
        ((1.0, 1.0, 1.0), {0, 1, 2}),
        ((1.0, 2.0, 1.999), {1, 2}),
        ((1.0, 1.5), {1}),
        ((0.9, 0.9), {0, 1}),
    ],
)
def test_slices_lie_across_the_thickest_voxels_or_an_axis_that_is_drawn(spacing, axes):
    info = BatchInfo(60, 1, (8,) * len(spacing), spacing)
    config = AugmentConfig(anisotropy_probability=1.0, channel_probability=1.0, anisotropy_range=(2.0, 3.0))
    drawn = ANISOTROPY.sample(config, np.random.default_rng(0), info)
    assert set(drawn["axis"]) == axes
    assert 2.0 <= drawn["thickness"].min() < 2.1 and 2.9 < drawn["thickness"].max() <= 3.0


# ---- ghosts


@pytest.mark.parametrize(
    ("period", "copies"), [(2, {2: 1}), (3, {22: 1, 6: -1}), (4, {20: 1, 8: -1}), (30, {15: 1, 13: -1})]
)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_ghosts_of_an_impulse_lie_a_share_of_the_field_away(period, copies, axis):
    image = torch.zeros((1, 1, 24, 24, 24))
    image[0, 0, 14, 14, 14] = 1.0
    nowhere = torch.zeros_like(image, dtype=torch.bool)
    info = BatchInfo(1, 1, (24, 24, 24), (1.0, 1.0, 1.0), background=nowhere)
    parameters = {"axis": np.array([float(axis)]), "period": np.array([float(period)]), "weight": np.full((1, 1), 0.2)}
    found, _ = GHOSTING.apply(image, NO_LABEL, parameters, info)
    wanted = image.clone()
    for place, sign in copies.items():
        wanted.select(2 + axis, place)[0, 0, 14, 14] = 0.2 * sign
    torch.testing.assert_close(found, wanted, atol=0, rtol=1e-6)


@pytest.mark.parametrize("period", [2, 3, 5])
def test_ghosts_are_a_periodic_factor_of_the_lines_of_k_space(period):
    n, weight = 30, -0.15
    image = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (1, 1, n, 8)).astype(np.float32))
    image[0, 0, 0, 0] = 0.0  # the level that signal counts from
    info = BatchInfo(1, 1, (n, 8), (1.0, 1.0), fill=-9.0)
    parameters = {"axis": np.zeros(1), "period": np.array([float(period)]), "weight": np.full((1, 1), weight)}
    found, _ = GHOSTING.apply(image, NO_LABEL, parameters, info)
    swing = 2 * np.pi * np.arange(n) / period
    factor = 1 + weight * np.cos(swing) if period == 2 else 1 - 2j * weight * np.sin(swing)
    wanted = np.fft.ifft(np.fft.fft(image[0, 0].numpy(), axis=0) * factor[:, None], axis=0)
    np.testing.assert_allclose(found[0, 0].numpy(), wanted, atol=1e-5)
    if period > 2:
        torch.testing.assert_close(found.mean(), image.mean())


def test_the_level_stays_where_no_ghost_falls_and_empty_surroundings_throw_none():
    image = torch.full((1, 1, 40, 10), 0.5)
    image[:, :, 10:20] += torch.from_numpy(np.random.default_rng(0).uniform(1, 2, (1, 1, 10, 10)).astype(np.float32))
    info = BatchInfo(1, 1, (40, 10), (1.0, 1.0), fill=0.5)
    parameters = {"axis": np.zeros(1), "period": np.full(1, 2.0), "weight": np.full((1, 1), 0.3)}
    found, _ = GHOSTING.apply(image, NO_LABEL, parameters, info)
    # 10 .. 19 is copied to 30 .. 39
    assert torch.equal(found[:, :, :30], image[:, :, :30])
    torch.testing.assert_close(found[:, :, 30:], 0.5 + 0.3 * (image[:, :, 10:20] - 0.5))
    # with the surroundings kept, nothing at all is left of that ghost
    kept, _ = Augmentation(AugmentConfig()).apply(image, NO_LABEL, {"ghosting": parameters}, info)
    assert torch.equal(kept, image)


def test_shifts_are_never_onto_the_image_itself():
    assert ghost_copies(20, 2) == [(10, 1.0)] and ghost_copies(21, 2) == [(10, 1.0)]
    assert ghost_copies(20, 4) == [(5, 1.0), (15, -1.0)]
    assert ghost_copies(1, 2) == ghost_copies(3, 100) == ghost_copies(2, 3) == []


def test_ghosts_are_drawn_within_their_ranges():
    config = AugmentConfig(ghosting_probability=0.5, ghosting_axes=(1, 2), ghosting_period=(3, 5))
    drawn = GHOSTING.sample(config, np.random.default_rng(0), BatchInfo(2000, 2, (4, 4, 4), (1.0, 1.0, 1.0)))
    assert set(drawn["axis"]) == {1, 2} and set(drawn["period"]) == {3, 4, 5}
    present = drawn["weight"] != 0
    assert present.any(axis=1).mean() == pytest.approx(0.5 * 0.75, abs=0.04)
    strength = np.abs(drawn["weight"][present])
    assert (strength.min(), strength.max()) == (pytest.approx(0.05, abs=0.01), pytest.approx(0.25, abs=0.01))
    assert (drawn["weight"][present] > 0).mean() == pytest.approx(0.5, abs=0.05)
    flat = BatchInfo(50, 2, (4, 4), (1.0, 1.0))
    assert set(GHOSTING.sample(config, np.random.default_rng(0), flat)["axis"]) == {1}
    only_z = AugmentConfig(ghosting_probability=1.0, ghosting_axes=(2,))
    # across slices that are excited one by one no phase is encoded; an axis that alone is named is taken
    for sides, axes in [((5.0, 1.0, 1.0), {1, 2}), ((1.0, 5.0, 1.0), {2})]:
        thick = BatchInfo(50, 2, (4, 4, 4), sides)
        assert set(GHOSTING.sample(config, np.random.default_rng(0), thick)["axis"]) == axes
    thick = BatchInfo(50, 2, (4, 4, 4), (1.0, 1.0, 5.0))
    assert set(GHOSTING.sample(only_z, np.random.default_rng(0), thick)["axis"]) == {2}
    assert not GHOSTING.sample(only_z, np.random.default_rng(0), flat)["weight"].any()


# ---- bias field


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("shape", [(24, 20, 12), (24, 20)])
def test_a_bias_field_has_mean_one_inside_and_the_ratio_that_was_drawn(shape, order):
    image, info = head(2, 2, shape, (1.0,) * len(shape))
    config = AugmentConfig(bias_field_probability=1.0, bias_field_order=order)
    drawn = BIAS_FIELD.sample(config, np.random.default_rng(1), info)
    assert drawn["ratio"].min() >= 1.1 and drawn["ratio"].max() <= 1.8
    found, _ = BIAS_FIELD.apply(image, NO_LABEL, drawn, info)
    outside = (image == 0).all(dim=1)
    for i in range(2):
        for j in range(2):
            low, inside = image[i, j].amin(), ~outside[i] & (image[i, j] > image[i, j].amin() + 0.5)
            field = ((found[i, j] - low) / (image[i, j] - low)).double()
            log = field[inside].log()
            # the few voxels next to the darkest one tell the field badly and are left out
            assert log.mean().item() == pytest.approx(0, abs=0.02)
            assert torch.exp(log.max() - log.min()).item() == pytest.approx(drawn["ratio"][i, j], rel=0.02)
            # a polynomial of that degree, no less and no more
            assert _misfit(log, inside, order) < 1e-4 < _misfit(log, inside, order - 1)
    assert torch.equal(found[:, 0][outside], image[:, 0][outside])


def _misfit(log, inside, order):
    place = torch.nonzero(inside).double()
    place = place / place.amax(dim=0) * 2 - 1
    powers = torch.cartesian_prod(*[torch.arange(order + 1)] * inside.ndim).reshape(-1, inside.ndim)
    powers = powers[powers.sum(dim=1) <= order]
    design = (place[:, None] ** powers).prod(dim=2)
    solution = torch.linalg.lstsq(design, log[:, None]).solution
    return (design @ solution - log[:, None]).abs().max().item()


def test_the_geometric_mean_of_a_bias_field_is_one_over_all_voxels_inside():
    image = torch.zeros((1, 1, 30, 20))
    image[:, :, 4:22, 3:15] = 2.0
    info = BatchInfo(1, 1, (30, 20), (1.0, 1.0))
    config = AugmentConfig(bias_field_probability=1.0, bias_field_ratio=(1.6, 1.6))
    found, _ = BIAS_FIELD.apply(image, NO_LABEL, BIAS_FIELD.sample(config, np.random.default_rng(0), info), info)
    log = (found[image > 0] / 2.0).log()
    assert log.mean().item() == pytest.approx(0, abs=1e-5)
    assert (log.max() - log.min()).item() == pytest.approx(np.log(1.6), rel=1e-4)


def test_a_bias_field_of_a_patch_with_a_voxel_or_two_is_finite():
    for size in (1, 2):
        image = torch.zeros((20, 1, 40, 40))
        image[:, :, 3 : 3 + size, 35] = 2.0
        info = BatchInfo(20, 1, (40, 40), (1.0, 1.0))
        config = AugmentConfig(bias_field_probability=1.0, bias_field_ratio=(1.8, 1.8), channel_probability=1.0)
        found, _ = BIAS_FIELD.apply(image, NO_LABEL, BIAS_FIELD.sample(config, np.random.default_rng(0), info), info)
        assert torch.isfinite(found).all()
        assert torch.equal(found[image == 0], image[image == 0])


def test_an_empty_patch_has_no_bias_field_and_no_ghost():
    image = torch.full((1, 1, 8, 8, 8), -2.0)
    info = BatchInfo(1, 1, (8, 8, 8), (1.0, 1.0, 1.0), fill=-2.0)
    for transform, name in ((BIAS_FIELD, "bias_field"), (GHOSTING, "ghosting")):
        config = AugmentConfig(**{f"{name}_probability": 1.0}, channel_probability=1.0)
        drawn = transform.sample(config, np.random.default_rng(0), info)
        assert torch.equal(transform.apply(image, NO_LABEL, drawn, info)[0], image)


def test_a_blur_before_does_not_let_the_surroundings_into_field_and_ghosts():
    image, _ = head(1, 1)
    label = torch.zeros((1, *image.shape[2:]), dtype=torch.uint8)
    names = ("blur", "ghosting", "bias_field")
    config = AugmentConfig(**{f"{name}_probability": 1.0 for name in names}, channel_probability=1.0)
    info = BatchInfo(1, 1, tuple(image.shape[2:]), (1.0, 1.0, 1.0))
    everything = Augmentation(config).sample(np.random.default_rng(0), info)
    drawn = {name: everything[name] for name in names}
    found, _ = Augmentation(config).apply(image, label, drawn, info)
    assert torch.equal(found[image == 0], image[image == 0])
    blurred, _ = Augmentation(config.model_copy(update={"keep_background": False})).apply(
        image, label, {"blur": drawn["blur"]}, info
    )
    told = BatchInfo(1, 1, info.shape, info.spacing_mm, background=image == 0)
    for transform in (GHOSTING, BIAS_FIELD):
        blurred, _ = transform.apply(blurred, label, drawn[transform.name], told)
    assert torch.equal(found[image != 0], blurred[image != 0])


# ---- dropped modality


def test_one_channel_is_dropped_and_never_all():
    image, info = head(400, 3, (7, 7), (1.0, 1.0), fill=0.25)
    config = AugmentConfig(dropped_modality_probability=0.5)
    drawn = DROPPED_MODALITY.sample(config, np.random.default_rng(0), info)
    found, _ = DROPPED_MODALITY.apply(image, NO_LABEL, drawn, info)
    empty = (found == info.fill).flatten(2).all(dim=2)
    assert set(empty.sum(dim=1).tolist()) == {0, 1}
    assert empty.any(dim=1).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert empty.float().mean(dim=0).numpy() == pytest.approx([1 / 6] * 3, abs=0.05)
    assert torch.equal(found[~empty], image[~empty])


def test_a_single_channel_is_never_dropped_and_nothing_is_drawn_for_it():
    image, info = head(5, 1)
    config, generator = AugmentConfig(dropped_modality_probability=1.0), np.random.default_rng(0)
    before = generator.bit_generator.state
    drawn = DROPPED_MODALITY.sample(config, generator, info)
    assert generator.bit_generator.state == before
    assert torch.equal(DROPPED_MODALITY.apply(image, NO_LABEL, drawn, info)[0], image)


def test_the_last_channel_that_holds_something_stays():
    image, info = head(1, 2)
    image[0, 0] = info.fill
    for channel in range(2):
        dropped = np.zeros((1, 2))
        dropped[0, channel] = 1.0
        found, _ = DROPPED_MODALITY.apply(image, NO_LABEL, {"dropped": dropped}, info)
        assert torch.equal(found, image)


def test_a_dropped_channel_is_empty_after_all_other_changes():
    image, info = head(3, 2)
    label = torch.zeros((3, *info.shape), dtype=torch.uint8)
    config = AugmentConfig(**{n: 1.0 for n in AugmentConfig.model_fields if n.endswith("_probability")})
    found, _ = Augmentation(config)(image, label, np.random.default_rng(0), spacing_mm=info.spacing_mm)
    empty = (found == 0).flatten(2).all(dim=2)
    assert (empty.sum(dim=1) == 1).all()


@pytest.mark.parametrize("seed", range(20))
def test_noise_does_not_let_the_only_channel_be_dropped(seed):
    image, info = head(1, 2)
    image[0, 1] = info.fill
    label = torch.zeros((1, *info.shape), dtype=torch.uint8)
    off = {n: 0.0 for n in AugmentConfig.model_fields if n.endswith("_probability")}
    config = AugmentConfig(**off | {"noise_probability": 1.0, "dropped_modality_probability": 1.0})
    found, _ = Augmentation(config)(image, label, np.random.default_rng(seed), spacing_mm=info.spacing_mm)
    assert (found[0, 0] != 0).any() and (found[0, 1] == 0).all()
