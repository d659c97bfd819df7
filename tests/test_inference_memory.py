"""Prediction within the memory allowed: sizes, forecasts, arrays in files without a name."""

import errno
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neoseg.errors import ConfigError, MachineError
from neoseg.inference.activations import activation_bytes
from neoseg.inference.configs import WindowConfig, bytes_of, shown_bytes
from neoseg.inference.memory import Demand, MemoryUse, fitting
from neoseg.inference.scratch import Scratch
from neoseg.pipeline.networks import FoldNetworks

MIB = 2**20


@pytest.mark.parametrize(
    ("text", "size"),
    [("4G", 4 * 2**30), ("1.5GiB", 3 * 2**29), ("600M", 600 * MIB), ("2048k", 2 * MIB), ("1TB", 2**40)],
)
def test_sizes_are_read_as_people_write_them(text, size):
    assert bytes_of(text) == size
    assert WindowConfig(max_memory=text).max_memory == text


@pytest.mark.parametrize("text", ["", "4", "G", "-1G", "4X", "1K", "nanG", "infG"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="such as 4G"):
        bytes_of(text)
    with pytest.raises(ValueError, match="such as 4G"):
        WindowConfig(max_memory=text)


def test_shown_sizes_suffice():
    for size in (1, 2**30, 2**30 + 1, 12345678901):
        assert bytes_of(shown_bytes(size)) >= size


def test_the_memory_allowed_is_no_decision():
    assert WindowConfig().decisions() == WindowConfig(max_memory="4G").decisions()
    assert WindowConfig().decisions() != WindowConfig(average="logits").decisions()


DEMANDS = st.builds(
    Demand,
    program=st.integers(0, 500 * MIB),
    network=st.integers(0, 200 * MIB),
    networks=st.integers(1, 5),
    window=st.integers(0, 500 * MIB),
    batch=st.sampled_from([1, 2, 3, 8]),
    patch=st.tuples(*[st.integers(8, 128)] * 3),
    native=st.integers(1, 400**3),
    prepared=st.tuples(*[st.integers(1, 300)] * 3),
    channels=st.integers(1, 4),
    classes=st.integers(2, 5),
    preparation=st.integers(0, 2**30),
    held=st.integers(0, 2**30),
    apart=st.booleans(),
    maps=st.integers(0, 5),
)


@given(DEMANDS, st.integers(100 * MIB, 40 * 2**30))
@settings(max_examples=100, deadline=None)
def test_the_first_way_that_fits_is_taken_and_none_means_none(demand, allowed):
    ways = list(demand.ways)
    assert ways[0] == MemoryUse()
    use = fitting(demand, allowed)
    if use is None:
        assert all(demand.peak(way) > allowed for way in ways) and demand.least > allowed
    else:
        assert use.sparing and demand.peak(use) <= allowed
        assert all(demand.peak(way) > allowed for way in ways[: ways.index(replace(use, sparing=False))])
    assert fitting(demand, None) == MemoryUse()
    # what is shown as enough is enough
    assert fitting(demand, bytes_of(shown_bytes(demand.least))) is not None


def test_each_way_needs_less_than_the_one_before_where_it_can():
    demand = Demand(
        program=300 * MIB, network=100 * MIB, networks=3, window=50 * MIB, batch=4, patch=(64, 64, 64), native=200**3,
        prepared=(200, 200, 200), channels=2, classes=3, held=200 * MIB,
    )  # fmt: skip
    peaks = [demand.peak(use) for use in demand.ways]
    assert peaks == sorted(peaks, reverse=True) and len(set(peaks)) == len(peaks)
    on_disk = MemoryUse(batch=1, on_disk=True)
    assert demand.peak(MemoryUse(batch=1)) - demand.peak(on_disk) == 3 * 200**3 * 4
    assert demand.peak(on_disk) - demand.peak(MemoryUse(batch=1, networks=1, on_disk=True)) == 200 * MIB


class TwoConvolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv3d(2, 4, 3, padding=1), nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, x):
        return (self.last(torch.relu(self.first(x))),)


def test_the_tensors_of_a_pass_are_counted():
    voxels = 4 * 8 * 10 * 12
    # the first convolution and its rectified copy live together, then that copy and the answer
    assert activation_bytes(TwoConvolutions().eval(), (1, 2, 8, 10, 12)) == voxels * (4 + 4)
    assert activation_bytes(TwoConvolutions().eval(), (3, 2, 8, 10, 12)) == 3 * voxels * (4 + 4)


def test_an_array_on_the_disk_keeps_its_values_and_leaves_no_name(tmp_path):
    scratch = Scratch(tmp_path / "new")
    array = scratch.array((3, 40, 50), np.float32)
    assert not array.any()
    array[:] = np.arange(6000).reshape(3, 40, 50)
    scratch.release(array)
    np.testing.assert_array_equal(array, np.arange(6000).reshape(3, 40, 50))
    assert not list((tmp_path / "new").iterdir())
    memory = Scratch().array((2, 3))
    assert type(memory) is np.ndarray
    Scratch.release(memory)


def test_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(MachineError, match="No space left on device"):
        Scratch(tmp_path).array((1000, 1000))
    assert not list(tmp_path.iterdir())


def test_networks_are_loaded_once_while_they_may_stay_and_the_oldest_goes_first():
    loaded = []

    def load(index):
        loaded.append(index)
        return nn.Identity()

    networks = FoldNetworks(load, [0, 1, 2])
    some = networks.of([2, 1])
    assert not loaded
    assert some[0] is networks[2] and some[1] is networks[1] and list(networks)[2] is some[0]
    assert loaded == [2, 1, 0] and len(some) == 2
    networks.keep(1)
    assert networks[2] is some[0] and loaded == [2, 1, 0]
    _ = networks[0], networks[0], networks[2]
    assert loaded == [2, 1, 0, 0, 2]
