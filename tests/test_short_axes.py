"""Convolutions of few voxels in two bytes: gradients are those of four bytes, whatever memory held before."""

import itertools
import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from memory_content import leave_in_memory
from neoseg.networks.blocks import short_axes
from neoseg.networks.blocks.short_axes import with_right_gradients
from neoseg.networks.build import build_network
from neoseg.networks.configs import MedNeXtConfig

LAYERS = {
    "plain": lambda layer, axes: layer[axes](16, 16, 3, padding=1),
    "stride": lambda layer, axes: layer[axes](16, 16, 3, stride=2, padding=1),
    "depthwise": lambda layer, axes: layer[axes](16, 16, 3, padding=1, groups=16, bias=False),
    "large kernel": lambda layer, axes: layer[axes](16, 16, 5, padding=2),
}
CONV = {2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
SIZES = [*itertools.product((1, 2, 5), (1, 4)), (2, 3, 3), (1, 1, 1), (4, 1, 1), (3, 1, 3), (4, 4, 4)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("layer", [CONV, TRANSPOSED], ids=["conv", "transposed"])
@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_few_voxels_in_bfloat16_are_those_of_float32(
    name: str, layer: dict[int, type[nn.Module]], size: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    last = torch.channels_last if len(size) == 2 else torch.channels_last_3d
    network = nn.Sequential(LAYERS[name](layer, len(size))).to(memory_format=last)
    assert type(with_right_gradients(network)[0]).__module__ == short_axes.__name__
    x = torch.randn(2, 16, *size, generator=generator).contiguous(memory_format=last)
    target = torch.randn(network(x).shape, generator=generator)

    def gradient(*, rough: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            y = network(x)
        assert y.dtype == (torch.bfloat16 if rough else torch.float32)
        leave_in_memory(math.nan)
        (y.float() * target).sum().backward()
        return network[0].weight.grad.clone()

    exact = gradient(rough=False)
    for _ in range(3):
        assert (gradient(rough=True) - exact).abs().max() < 0.02 * exact.abs().max()


@pytest.mark.parametrize("sizes", [(4, 3, 2), (5, 2), (2, 2, 2), (3, 6, 2)], ids=str)
def test_gradients_behind_a_stride_that_leaves_one_window_half_in_the_padding(sizes: tuple[int, ...]) -> None:
    network = with_right_gradients(nn.Sequential(CONV[len(sizes)](16, 16, 2, stride=3, padding=1, bias=False)))
    x = torch.randn(2, 16, *sizes, generator=torch.Generator().manual_seed(0))

    def gradient(*, rough: bool) -> torch.Tensor:
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=rough):
            y = network(x)
        leave_in_memory(math.nan)
        y.float().square().sum().backward()
        return network[0].weight.grad.clone()

    exact = gradient(rough=False)
    for _ in range(3):
        assert (gradient(rough=True) - exact).abs().max() < 0.02 * exact.abs().max()


def test_networks_whose_weights_are_bfloat16_too() -> None:
    network = with_right_gradients(nn.Sequential(nn.Conv3d(16, 16, 3, padding=1), nn.ConvTranspose3d(16, 16, 3)))
    x = torch.randn(2, 16, 2, 1, 1, generator=torch.Generator().manual_seed(0))
    exact = network(x)
    rough = network.bfloat16()(x.bfloat16())
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.02 * exact.abs().max()


def test_results_are_torchs_where_axes_are_long() -> None:
    x = torch.randn(1, 4, 6, 5, 4, generator=torch.Generator().manual_seed(0))
    layers = nn.Sequential(nn.Conv3d(4, 8, 3, stride=2), nn.ConvTranspose3d(8, 4, 3, stride=2, output_padding=1))
    before = layers(x)
    assert torch.equal(with_right_gradients(layers)(x), before)
    assert layers[1](torch.zeros(1, 8, 3, 3, 3), [7, 7, 7]).shape == (1, 4, 7, 7, 7)


STRIDED = """
import torch
from torch import nn
from neoseg.networks.blocks.short_axes import with_right_gradients

for inside, outside, side in ((8, 16, 64), (12, 24, 128), (15, 16, 257), (4, 8, 128)):
    conv = with_right_gradients(nn.Sequential(nn.Conv2d(inside, outside, 1, 2))).to(memory_format=torch.channels_last)
    exact = nn.Conv2d(inside, outside, 1, 2).double()
    exact.load_state_dict(conv[0].state_dict())
    for _ in range(5):
        x = torch.randn(2, inside, side, side).to(memory_format=torch.channels_last).requires_grad_()
        y, again = conv(x), exact(x.double())
        assert torch.allclose(y.double(), again, atol=1e-5)
        found = torch.autograd.grad(y.square().mean(), [x, *conv.parameters()])
        wanted = torch.autograd.grad(again.square().mean(), [x, *exact.parameters()])
        assert all(torch.allclose(a.double(), b.double(), atol=1e-6) for a, b in zip(found, wanted))
        several = [torch.randn(1000) for _ in range(200)]
"""


def test_single_pixels_with_a_stride_write_nothing_beyond_their_memory() -> None:
    """In a process of its own, since torch's own convolution ends it."""
    ended = subprocess.run([sys.executable, "-c", STRIDED], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_mednext_of_planes_and_few_channels_trains() -> None:
    network = build_network(
        MedNeXtConfig(width=6, spatial_dims=2, deep_supervision=False), in_channels=1, classes=2, patch=(64, 64)
    )
    (logits,) = network(torch.randn(2, 1, 64, 64))
    logits.square().mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
