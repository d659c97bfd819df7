"""N4 on procedural heads, and the brain mask it is given."""

from __future__ import annotations

import numpy as np
import pytest

from neoseg.errors import GeometryError, InputError
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import Head, make_head
from neoseg.prepare.bias_field import BiasFieldConfig, correct_bias_field
from neoseg.prepare.brain_mask import brain_mask
from neoseg.volume import Grid, Volume


@pytest.fixture(scope="module")
def head() -> Head:
    return make_head(np.random.default_rng(11), HeadConfig())


def smooth_field(volume: Volume, inside: np.ndarray) -> np.ndarray:
    """A log field of sd 0.15 in the brain that changes over the size of the head."""
    place = volume.grid.to_world(np.argwhere(inside))
    place = (place - place.mean(axis=0)) / 50
    log_field = place @ [0.5, 0.3, -0.2] + 0.4 * place[:, 0] * place[:, 1] - 0.3 * place[:, 1] ** 2
    return 0.15 * (log_field - log_field.mean()) / log_field.std()


def test_a_written_field_is_found_and_the_mean_is_kept(head: Head) -> None:
    inside = head.brain.array[0] != 0
    truth = smooth_field(head.clean, inside)
    array = head.clean.array.copy()
    array[0][inside] *= np.exp(truth).astype(np.float32)
    volume = head.clean.with_array(array)
    found = correct_bias_field(volume, inside, BiasFieldConfig())
    assert np.corrcoef(found.log_field[inside], truth)[0, 1] >= 0.93
    assert (found.log_field[inside] - truth).std() <= 0.07
    assert found.corrected.array[0][inside].mean() == pytest.approx(array[0][inside].mean(), rel=1e-4)
    assert np.array_equal(found.corrected.array[0][~inside], array[0][~inside])
    assert np.array_equal(found.log_field[~inside], np.zeros((~inside).sum(), np.float32))
    rebuilt = found.corrected.array[0][inside] * np.exp(found.log_field[inside])
    assert np.allclose(rebuilt, array[0][inside], rtol=1e-4)


def test_without_a_field_little_is_changed(head: Head) -> None:
    inside = head.brain.array[0] != 0
    assert correct_bias_field(head.clean, inside, BiasFieldConfig()).log_field[inside].std() <= 0.03


def test_the_same_call_gives_the_same_bits(head: Head) -> None:
    inside = head.brain.array[0] != 0
    first, second = (correct_bias_field(head.adc, inside, BiasFieldConfig(iterations=3)) for _ in range(2))
    assert np.array_equal(first.log_field, second.log_field)


def test_bad_input_has_words() -> None:
    grid = Grid.of_spacing((20, 20, 10), (1.5, 1.5, 4.0))
    rng = np.random.default_rng(0)
    noise = Volume(rng.uniform(500, 1500, (1, 20, 20, 10)), grid)
    everywhere = np.ones(grid.shape, bool)
    config = BiasFieldConfig()
    with pytest.raises(InputError, match="all over its mask"):
        correct_bias_field(noise.with_array(np.full((1, 20, 20, 10), 3.0)), everywhere, config)
    few = np.zeros(grid.shape, bool)
    few[:3, :3, :3] = True
    with pytest.raises(InputError, match="has 27 voxels"):
        correct_bias_field(noise, few, config)
    broken = noise.array.copy()
    broken[0, 3, 3, 3] = np.nan
    with pytest.raises(InputError, match="not numbers"):
        correct_bias_field(noise.with_array(broken), everywhere, config)
    with pytest.raises(GeometryError, match="mask"):
        correct_bias_field(noise, np.ones((2, 2, 2), bool), config)


def test_a_single_slice_is_corrected_too(head: Head) -> None:
    middle = head.clean.grid.shape[2] // 2
    one = Volume(
        head.clean.array[..., middle : middle + 1],
        head.clean.grid.cropped((0, 0, middle), (*head.clean.grid.shape[:2], 1)),
    )
    inside = one.array[0] != 0
    found = correct_bias_field(one, inside, BiasFieldConfig())
    assert np.isfinite(found.corrected.array).all()
    assert found.log_field[inside].std() < 0.1


def test_brain_mask_of_a_stripped_head_is_the_brain(head: Head) -> None:
    found = brain_mask(head.adc)
    assert found.stripped
    assert found.warning is None
    assert np.array_equal(found.mask, head.brain.array[0] != 0)


def test_brain_mask_fills_holes_drops_specks_and_takes_any_background() -> None:
    array = np.full((1, 30, 30, 20), -1024.0)
    array[0, 8:22, 8:22, 5:15] = 1200
    array[0, 12:14, 12:14, 8:10] = -1024
    array[0, 1, 1, 1] = 50
    found = brain_mask(Volume(array, Grid.of_spacing((30, 30, 20), (1, 1, 1))))
    assert found.stripped
    assert found.mask.sum() == 14 * 14 * 10


def test_a_head_with_skull_is_noticed_and_a_constant_is_refused() -> None:
    grid = Grid.of_spacing((20, 20, 20), (1, 1, 1))
    noisy = Volume(np.random.default_rng(0).uniform(1, 2, (1, 20, 20, 20)), grid)
    found = brain_mask(noisy)
    assert not found.stripped
    assert found.warning is not None
    assert "skull" in found.warning
    with pytest.raises(InputError, match="everywhere"):
        brain_mask(noisy.with_array(np.zeros((20, 20, 20))))
