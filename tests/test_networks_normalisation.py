"""Normalisations of images with channels-last memory are those of float64, however many voxels there are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.normalisation import VOXELS_AT_A_TIME, GroupNorm, InstanceNorm

SHAPES = [(96, 96, 80), (1024, 700), (17, 16, 16), (16, 16, 16), (5, 3, 2)]
KINDS = {"instance": lambda: InstanceNorm(8, affine=True), "plain": lambda: InstanceNorm(8, affine=False),
         "group": lambda: GroupNorm(2, 8), "one group": lambda: GroupNorm(1, 8)}  # fmt: skip


def last(axes: int) -> torch.memory_format:
    return torch.channels_last if axes == 2 else torch.channels_last_3d


@pytest.fixture(params=KINDS)
def norm(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(1)
    module: nn.Module = KINDS[request.param]()
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


def exact(norm: nn.Module, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """The same by torch's formula in float64, with contiguous memory."""
    x = x.double().contiguous().requires_grad_()
    own = [p.detach().double().requires_grad_() for p in norm.parameters()]
    groups = norm.num_groups if isinstance(norm, nn.GroupNorm) else x.shape[1]
    y = functional.group_norm(x, groups, *own)
    return [y.detach(), *torch.autograd.grad(y, [x, *own], gradient.double())]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("batch", [1, 2])
def test_large_images_are_normalised_exactly(norm: nn.Module, shape: tuple[int, ...], batch: int) -> None:
    torch.manual_seed(0)
    x = (3 * torch.randn(batch, 8, *shape) + 2).to(memory_format=last(len(shape))).requires_grad_()
    gradient = torch.randn(batch, 8, *shape) + 0.3
    y = norm(x)
    found = [y.detach(), *torch.autograd.grad(y, [x, *norm.parameters()], gradient)]
    assert y.is_contiguous(memory_format=last(len(shape)))
    # sums over all voxels are compared with the sum of what is added, not with what is left of it
    size = [1.0, 1.0, *([gradient.abs().sum().item() / 8] * 2)]
    for what, wanted, scale, allowed in zip(
        found, exact(norm, x.detach(), gradient), size, (5e-6, 5e-5, 2e-5, 2e-5), strict=False
    ):
        assert (what - wanted).abs().max() <= allowed * max(scale, wanted.abs().max() if scale == 1 else scale)
    assert norm(x.detach()).equal(y)


def test_a_mean_far_above_the_spread_is_taken_away(norm: nn.Module) -> None:
    torch.manual_seed(0)
    x = (torch.randn(1, 8, 64, 64, 48) + 100).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        y = norm(x)
    wanted = exact(norm, x, torch.zeros_like(x))[0]
    assert (y - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    norm = GroupNorm(2, 8)
    norm.weight.requires_grad_(False)
    x = torch.randn(1, 8, 32, 32, 16).to(memory_format=torch.channels_last_3d)
    norm(x).sum().backward()
    assert x.grad is None and norm.weight.grad is None and norm.bias is not None and norm.bias.grad is not None


def test_a_compiled_normalisation_is_the_same(norm: nn.Module) -> None:
    assert VOXELS_AT_A_TIME < 20 * 20 * 16
    x = torch.randn(2, 8, 20, 20, 16).to(memory_format=torch.channels_last_3d)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(norm, backend="eager", fullgraph=True)(x), norm(x))
