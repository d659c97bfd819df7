"""Colours mixed anew: weighted means that leave grey as it is."""

import numpy as np
import pytest
import torch

from neoseg.augment.colour import COLOUR
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.transform import BatchInfo

NO_LABEL = torch.zeros(())


def drawn(count: int, channels: int = 3, **fields: object) -> tuple[BatchInfo, np.ndarray]:
    info = BatchInfo(count, channels, (6, 5), (1.0, 1.0), 0.0)
    config = AugmentConfig.model_validate({"colour_probability": 1.0, **fields})
    return info, COLOUR.sample(config, np.random.default_rng(0), info)["mixture"]


def test_each_new_channel_is_a_weighted_mean_with_the_drawn_share():
    _, mixture = drawn(4000, colour_range=(0.3, 0.5))
    assert mixture.sum(axis=2) == pytest.approx(1)
    assert (mixture >= 0).all()
    own = mixture[:, np.arange(3), np.arange(3)]
    assert own.min() >= 0.5
    # the share is 0.4 in the mean, a third of it comes back from the channel itself
    assert own.mean() == pytest.approx(1 - 0.4 * 2 / 3, abs=0.005)
    assert mixture.mean(axis=0) == pytest.approx(np.where(np.eye(3), 1 - 0.8 / 3, 0.4 / 3), abs=0.01)


def test_half_of_the_draws_take_colour_away_and_the_others_change_it():
    _, mixture = drawn(4000, colour_range=(1.0, 1.0))
    same = (mixture == mixture[:, :1]).all(axis=(1, 2))
    assert same.mean() == pytest.approx(0.5, abs=0.03)


def test_as_many_samples_as_the_probability_says_are_touched_and_the_others_are_not():
    _, mixture = drawn(2000, colour_probability=0.25)
    untouched = (mixture == np.eye(3)).all(axis=(1, 2))
    assert untouched.mean() == pytest.approx(0.75, abs=0.03)


def test_pixels_are_multiplied_with_the_weights():
    info, mixture = drawn(2)
    image = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 6, 5)).astype(np.float32))
    found, _ = COLOUR.apply(image, NO_LABEL, {"mixture": mixture}, info)
    for sample in range(2):
        expected = np.tensordot(mixture[sample], image[sample].numpy(), axes=1)
        assert found[sample].numpy() == pytest.approx(expected, abs=1e-5)
    assert not torch.allclose(found, image, atol=0.05)


def test_grey_and_what_is_outside_stay():
    info, mixture = drawn(8)
    grey = torch.from_numpy(np.random.default_rng(1).normal(size=(8, 1, 6, 5)).astype(np.float32)).repeat(1, 3, 1, 1)
    found, _ = COLOUR.apply(grey, NO_LABEL, {"mixture": mixture}, info)
    assert torch.allclose(found, grey, atol=1e-6)


def test_nothing_is_drawn_for_one_channel():
    info, generator = BatchInfo(3, 1, (6, 5), (1.0, 1.0), 0.0), np.random.default_rng(0)
    before = generator.bit_generator.state
    parameters = COLOUR.sample(AugmentConfig(colour_probability=1.0), generator, info)
    assert generator.bit_generator.state == before
    image = torch.ones(3, 1, 6, 5)
    assert COLOUR.apply(image, NO_LABEL, parameters, info)[0] is image
