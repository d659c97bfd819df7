"""What is off draws nothing, ranges that cannot be drawn from are refused, and the order is the one that is told."""

from __future__ import annotations

import tomllib

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from neoseg.augment.augmentation import AUGMENTATIONS, Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.transform import BatchInfo
from neoseg.config import config_from, recipe_text, recipes
from neoseg.errors import ConfigError

OFF_BY_DEFAULT = ("elastic", "anisotropy", "ghosting", "bias_field", "colour", "dropped_modality")
BY_NAME = {transform.name: transform for transform in AUGMENTATIONS}
INFO = BatchInfo(3, 2, (12, 10, 6), (1.0, 1.0, 2.0))


def a_batch():
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(0, 1, (3, 2, *INFO.shape)).astype(np.float32))
    return image, torch.from_numpy(generator.integers(0, 3, (3, *INFO.shape)).astype(np.uint8))


@pytest.mark.parametrize("name", OFF_BY_DEFAULT)
def test_what_is_off_leaves_the_generator_to_the_others(name):
    config = AugmentConfig()
    assert getattr(config, f"{name}_probability") == 0
    generator = np.random.default_rng(0)
    before = generator.bit_generator.state
    BY_NAME[name].sample(config, generator, INFO)
    assert generator.bit_generator.state == before


def test_the_default_is_bit_by_bit_that_of_the_eight_first_transforms():
    names = "affine", "flip", "blur", "low_resolution", "brightness", "contrast", "gamma", "noise"
    first = [BY_NAME[name] for name in names]
    config = AugmentConfig(rotation_probability=0.7, blur_probability=0.7, noise_probability=0.7)
    for seed in range(6):
        image, label = a_batch()
        found, mask = Augmentation(config)(image, label, np.random.default_rng(seed), spacing_mm=INFO.spacing_mm)
        generator = np.random.default_rng(seed)
        drawn = [transform.sample(config, generator, INFO) for transform in first]
        background = None
        for transform, parameters in zip(first, drawn, strict=True):
            if not transform.moves and background is None:
                background = (image == 0).all(dim=1, keepdim=True)
            image, label = transform.apply(image, label, parameters, INFO)
        image = torch.where(background, 0.0, image)
        assert torch.equal(found, image) and torch.equal(mask, label)


def test_the_numbers_that_the_default_draws_are_the_ones_it_always_drew():
    names = "rotation", "scaling", "blur", "low_resolution", "brightness", "contrast", "gamma", "noise"
    config = AugmentConfig(**{f"{name}_probability": 1.0 for name in names})
    drawn = Augmentation(config).sample(np.random.default_rng(3), INFO)
    for name, sums in RECORDED.items():
        assert {key: values.sum() for key, values in drawn[name].items()} == pytest.approx(sums, rel=1e-12), name


RECORDED = {
    "affine": {"degrees": -12.735069644202781, "zoom": 2.6769448413313097},
    "flip": {"flip": 5.0},
    "blur": {"sigma": 1.2022949205704712},
    "low_resolution": {"zoom": 5.054837018772996},
    "brightness": {"factor": 5.944288148833613},
    "contrast": {"factor": 6.592690718030903},
    "gamma": {"exponent": 5.427290021177585, "inverted": 0.0},
    "noise": {"sd": 0.29406905413138773, "seed": 8384398951922405.0},
}
"""Sums of what was drawn before there were transforms that are off by default."""


def test_moves_come_first_then_sharpness_and_artefacts_then_values():
    names = [transform.name for transform in AUGMENTATIONS]
    kinds = [
        ("affine", "elastic", "flip"),
        ("blur", "low_resolution", "anisotropy", "ghosting"),
        ("bias_field", "colour", "brightness", "contrast", "gamma", "noise"),
        ("dropped_modality",),
    ]
    assert names == [name for kind in kinds for name in kind]
    assert [transform.name for transform in AUGMENTATIONS if transform.moves] == list(kinds[0])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"elastic_probability": 1.5}, "less than or equal to 1"),
        ({"elastic_spacing_mm": 0.0}, "greater than 0"),
        ({"elastic_displacement_mm": (5.0, 2.0)}, "elastic_displacement_mm has to run from the smaller to the larger"),
        ({"elastic_displacement_mm": (-1.0, 2.0)}, "elastic_displacement_mm has to be at least 0 mm"),
        ({"elastic_displacement_mm": (1.0, 14.0)}, "beyond 0.4 of elastic_spacing_mm, here 12.8, the image may fold"),
        ({"elastic_displacement_mm": (1.0, float("inf"))}, "elastic_displacement_mm has to be two finite numbers"),
        ({"anisotropy_range": (0.5, 2.0)}, "anisotropy_range has to be at least 1 voxel"),
        ({"anisotropy_range": (3.0, 2.0)}, "anisotropy_range has to run from"),
        ({"ghosting_period": (1, 4)}, "ghosting_period has to be at least 2 lines"),
        ({"ghosting_period": (5, 4)}, "ghosting_period has to run from"),
        ({"ghosting_strength": (-0.1, 0.2)}, "ghosting_strength has to be at least 0"),
        ({"ghosting_strength": (0.1, 1.2)}, "ghosting_strength ends at 1.2"),
        ({"ghosting_axes": (0, 3)}, "ghosting_axes holds 3"),
        ({"ghosting_axes": (), "ghosting_probability": 0.1}, "ghosting_axes is empty"),
        ({"bias_field_ratio": (0.8, 1.2)}, "bias_field_ratio has to be at least 1"),
        ({"bias_field_ratio": (float("nan"), 1.2)}, "bias_field_ratio has to be two finite numbers"),
        ({"bias_field_order": 0}, "greater than or equal to 1"),
        ({"colour_range": (-0.1, 0.5)}, "colour_range has to be at least 0: it is a share"),
        ({"colour_range": (0.5, 1.5)}, "colour_range ends at 1.5"),
        ({"colour_range": (0.5, 0.1)}, "colour_range has to run from"),
        ({"dropped_modality_probability": -0.1}, "greater than or equal to 0"),
        ({"scaling_range": (0.0, 1.4)}, "scaling_range has to lie above 0: its logarithm is drawn"),
        ({"scaling_range": (1.4, 0.7)}, "scaling_range has to run from"),
        ({"gamma_range": (-0.5, 1.5)}, "gamma_range has to lie above 0"),
        ({"gamma_range": (0.7, float("inf"))}, "gamma_range has to be two finite numbers"),
        ({"brightness_range": (0.0, 1.0)}, "brightness_range has to lie above 0"),
        ({"brightness_range": (1.25, 0.75)}, "brightness_range has to run from"),
        ({"contrast_range": (-0.5, 1.0)}, "contrast_range has to lie above 0"),
        ({"contrast_range": (1.25, 0.75)}, "contrast_range has to run from"),
        ({"low_resolution_range": (0.0, 1.0)}, "low_resolution_range has to lie above 0"),
        ({"low_resolution_range": (1.0, 0.5)}, "low_resolution_range has to run from"),
        ({"low_resolution_range": (0.5, 1.5)}, "low_resolution_range ends at 1.5"),
        ({"blur_sigma": (-0.5, 1.0)}, "blur_sigma has to be at least 0 voxels"),
        ({"blur_sigma": (1.0, 0.5)}, "blur_sigma has to run from"),
        ({"noise_sd": (-0.1, 0.1)}, "noise_sd has to be at least 0"),
        ({"noise_sd": (0.1, 0.0)}, "noise_sd has to run from"),
        ({"rotation_degrees": (15.0, float("nan"), 30.0)}, "rotation_degrees has to be three finite .* 15, nan, 30"),
        ({"flip_axes": (0, 3)}, "flip_axes holds 3"),
        ({"flip_axes": (-1,)}, "flip_axes holds -1"),
    ],
)
def test_ranges_that_cannot_be_drawn_from_are_refused_in_words(wrong, message):
    with pytest.raises(ValidationError, match=message):
        AugmentConfig(**wrong)


def test_the_displacement_may_reach_the_bound():
    assert AugmentConfig(elastic_spacing_mm=20.0, elastic_displacement_mm=(0.0, 8.0)).elastic_spacing_mm == 20


@pytest.mark.parametrize("axes", [2, 3])
def test_the_default_and_every_recipe_can_be_drawn_from(axes):
    configs = [AugmentConfig(), *(config_from(tomllib.loads(recipe_text(n)), n).augment for n in recipes())]
    info = BatchInfo(3, 2, (12, 10, 6)[:axes], (1.0, 1.0, 2.0)[:axes])
    for config in configs:
        config.require_axes(axes)
        drawn = Augmentation(config).sample(np.random.default_rng(0), info)
        assert all(np.isfinite(values).all() for given in drawn.values() for values in given.values())


def test_axes_that_pictures_do_not_have_are_refused_where_none_is_left():
    for name in ("flip", "ghosting"):
        wrong = AugmentConfig(**{f"{name}_axes": (2,), f"{name}_probability": 0.5})
        wrong.require_axes(3)
        with pytest.raises(ConfigError, match=rf"augment\.{name}_axes = \[2\]: the images have 2 axes, counted"):
            wrong.require_axes(2)
        AugmentConfig(**{f"{name}_axes": (2,), f"{name}_probability": 0.0}).require_axes(2)
        AugmentConfig(**{f"{name}_axes": (1, 2), f"{name}_probability": 0.5}).require_axes(2)
    AugmentConfig(flip_axes=()).require_axes(2)


def test_deformations_that_move_a_patch_out_of_itself_are_refused():
    wide = AugmentConfig(elastic_probability=0.2)
    for patch, spacing in [((128, 128), (0.05, 0.05)), ((64, 200, 64), (0.1, 1.0, 0.1))]:
        with pytest.raises(ConfigError, match=r"elastic_displacement_mm ends at 8, but half of the patch is 3\.2 mm"):
            wide.require_room(patch, spacing)
        AugmentConfig().require_room(patch, spacing)
        wide.model_copy(update={"elastic_displacement_mm": (0.5, 3.0)}).require_room(patch, spacing)
    # thick slices leave few millimetres or many across them; nothing moves that way
    wide.require_room((2, 96, 96), (3.0, 1.0, 1.0))


@pytest.mark.parametrize(
    ("axes", "rules", "more", "kept"),
    [
        (2, ("case", "case", "case"), {}, True),
        (2, ("case", "percentile"), {}, False),
        (2, ("none",), {"keep_background": True}, True),
        (3, ("percentile",), {}, False),
        (3, ("range",), {}, True),
        (3, ("percentile", "range"), {}, True),
        (3, ("percentile", "case"), {}, True),
        (3, ("none",), {}, True),
    ],
)
def test_black_of_pictures_is_changed_where_it_is_the_fill_value(axes, rules, more, kept):
    off = {name: 0.0 for name in AugmentConfig.model_fields if name.endswith("_probability")}
    config = AugmentConfig(**off | {"noise_probability": 1.0}, **more).for_images(axes, rules)
    assert config.keep_background is kept
    image = torch.zeros(1, 1, *[8] * axes)
    image[0, 0, 4:] = 1
    label = torch.zeros(image.shape[1:], dtype=torch.uint8)
    found, _ = Augmentation(config)(image, label, np.random.default_rng(0), spacing_mm=(1.0,) * axes)
    assert bool((found[0, 0, :4] == 0).all()) is kept
