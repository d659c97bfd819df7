"""A few voxels far from all others are told, and what belongs to an image is not."""

from __future__ import annotations

import numpy as np
import pytest

from neoseg.data.extreme_voxels import extreme_voxels


@pytest.mark.parametrize("spike", [1e4, -1e4, 1e30])
def test_a_spike_is_told(spike: float) -> None:
    values = np.random.default_rng(0).normal(110, 20, (20, 20, 20)).astype(np.float32)
    assert extreme_voxels(values) is None
    values[3, 4, 5] = spike
    told = extreme_voxels(values)
    assert told is not None and f"reach {spike:.4g}" in told


def test_some_spikes_among_many_voxels_and_whole_numbers_are_told() -> None:
    values = np.random.default_rng(2).normal(110, 20, (64, 64, 64)).astype(np.int16)
    values[0, 0, :5] = -32768
    told = extreme_voxels(values)
    assert told is not None and "reach -3.277e+04" in told
    assert extreme_voxels(np.append(np.random.default_rng(3).normal(0, 1, 50), 1e6)) is None  # too few to tell


def test_a_bright_lesion_and_a_heavy_tail_are_no_spikes() -> None:
    generator = np.random.default_rng(1)
    values = generator.normal(100, 15, 40_000)
    values[:40] = 1000  # a thousandth of the voxels
    assert extreme_voxels(values) is None
    assert extreme_voxels(generator.standard_t(3, 40_000)) is None
    saturated = np.where(generator.random(40_000) < 0.001, 255, 10 + generator.integers(0, 4, 40_000))
    assert extreme_voxels(saturated) is None
    assert extreme_voxels(np.full(1000, 7.0)) is None and extreme_voxels(np.zeros(0)) is None
