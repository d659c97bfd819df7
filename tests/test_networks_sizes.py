"""Networks of any size, of planes, of several sizes in one training, and turned to another orientation."""

import math

import numpy as np
import pytest
import torch

from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.inference.configs import WindowConfig
from neoseg.inference.sliding_window import predict_probabilities
from neoseg.networks.blocks.paired_attention import PairedAttention
from neoseg.networks.blocks.paired_attention_block import PairedAttentionBlock
from neoseg.networks.blocks.printed_attention import PrintedAttention
from neoseg.networks.blocks.token_grid import TokenShape, pool_tokens, resize_rows, resize_table
from neoseg.networks.build import build_network
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.orientation import Turn
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.targets import Targets

SMALL = {"dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 4), "decoder_proj": 8, "feature_size": 8}
PATCH = (16, 16, 8)


def config_of(**fields: object) -> UnetrPPConfig:
    return UnetrPPConfig.model_validate({**SMALL, "stem": (2, 2, 1), **fields})


def network_of(seed: int = 0, **fields: object) -> UnetrPP:
    """Return a small network whose tables, gains and position convolutions do something."""
    torch.manual_seed(seed)
    network = UnetrPP(config_of(**fields), in_channels=1, classes=2, patch=PATCH)
    for name, parameter in network.named_parameters():
        if name.endswith(("position", "gain", "position_conv.weight")):
            torch.nn.init.normal_(parameter, std=0.3)
    return network


def image(*sizes: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, *sizes, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("projection", ["shared", "separate", "matrix"])
@pytest.mark.parametrize("grad", [True, False])
def test_flex_is_native_at_the_native_size_bit_for_bit(projection: str, grad: bool) -> None:
    native, flex = (network_of(size=size, token_projection=projection, conv_dropout=0.0) for size in ("native", "flex"))
    flex.load_state_dict(native.state_dict())
    with torch.set_grad_enabled(grad):
        assert all(torch.equal(a, b) for a, b in zip(native(image(*PATCH)), flex(image(*PATCH)), strict=True))


@pytest.mark.parametrize("size", ["flex", "free"])
def test_other_sizes_go_in_and_come_out(size: str) -> None:
    network = network_of(size=size).eval()
    for sizes in [(16, 16, 8), (8, 8, 8), (24, 32, 16), (17, 30, 9), (3, 50, 1)]:
        with torch.inference_mode():
            full, half, quarter = network(image(*sizes))
        assert full.shape == (2, 2, *sizes)
        assert half.shape[2:] == tuple(math.ceil(n / s) for n, s in zip(sizes, (2, 2, 1), strict=True))
        assert quarter.shape[2:] == tuple(math.ceil(n / s) for n, s in zip(sizes, (4, 4, 2), strict=True))
        assert torch.isfinite(full).all()


@pytest.mark.parametrize("size", ["flex", "free"])
def test_sizes_that_do_not_suit_are_padded_with_zeros_at_the_end(size: str) -> None:
    network = network_of(size=size).eval()
    x = image(14, 13, 8)
    padded = torch.zeros(2, 1, 16, 16, 8)
    padded[:, :, :14, :13] = x
    with torch.inference_mode():
        assert torch.equal(network(x)[0], network(padded)[0][:, :, :14, :13])
        assert torch.equal(network(x)[1], network(padded)[1][:, :, :7, :7])


@pytest.mark.slow
@pytest.mark.parametrize("size", ["flex", "free"])
def test_a_compiled_network_pads_a_size_that_it_was_not_traced_with(size: str) -> None:
    """By the backend that changes sizes to symbols; "eager" traces without."""
    network = network_of(size=size, deep_supervision=False).eval()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for sizes in (PATCH, (21, 16, 8), (24, 19, 9)):
            x = image(*sizes)
            torch.testing.assert_close(compiled(x)[0], network(x)[0])
    torch.compiler.reset()


def test_a_grids_parameters_are_kept_until_they_change() -> None:
    network, x = network_of(size="flex").eval(), image(8, 8, 8)
    cache = network.encoder[0][0].cache
    with torch.inference_mode():
        first = network(x)[0]
        (_, (kept,)), *others = cache._kept.values()
        assert not others
        assert torch.equal(network(x)[0], first)
        assert cache._kept[(4, 4, 8)][1][0] is kept
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(0.9)
        changed = network(x)[0]
    fresh = UnetrPP(config_of(size="flex"), in_channels=1, classes=2, patch=PATCH).eval()
    fresh.load_state_dict(network.state_dict())
    assert not torch.equal(changed, first)
    with torch.no_grad():
        assert torch.equal(fresh(x)[0], changed)
    network.train()
    network(x)[0].sum().backward()
    assert network.encoder[0][0].position.grad.any()
    network.double().eval()
    with torch.no_grad():
        assert network(x.double())[0].dtype == torch.float64


def test_tables_and_projections_keep_what_they_mean_on_another_grid() -> None:
    old, new = (8, 6, 4), (16, 12, 8)

    def field(grid: tuple[int, ...]) -> torch.Tensor:
        axes = [(torch.arange(n) + 0.5) / n for n in grid]
        x, y, z = torch.meshgrid(*axes, indexing="ij")
        return torch.sin(3 * x) + y * z

    table = resize_table(field(old).reshape(1, -1, 1), old, new)
    assert (table.reshape(new) - field(new)).abs().max() < 0.15
    rows, ones = field(old).reshape(1, -1), torch.ones
    ours = resize_rows(rows, old, new)
    assert (rows @ ones(math.prod(old))).item() == pytest.approx((ours @ ones(math.prod(new))).item(), rel=1e-5)
    assert (rows @ field(old).flatten()).item() == pytest.approx((ours @ field(new).flatten()).item(), rel=0.02)
    assert torch.equal(resize_rows(rows, old, old), rows)


GRID, FINE = (6, 6, 6), (12, 12, 12)
WAVES = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))


def smooth_tokens(sizes: tuple[int, ...]) -> torch.Tensor:
    """Return one smooth field at the cell centres of a grid."""
    axes = [(torch.arange(n) + 0.5) / n for n in sizes]
    places = torch.stack([torch.ones(sizes), *torch.meshgrid(*axes, indexing="ij")], dim=-1).reshape(-1, 4)
    return torch.sin(2 * places @ WAVES.T)[None].double()


def on_both_grids(attention: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what an attention makes of the field on a grid, and the means over its cells on the finer one."""
    finer = attention(smooth_tokens(FINE), FINE).reshape(6, 2, 6, 2, 6, 2, 16).mean(dim=(1, 3, 5))
    return attention(smooth_tokens(GRID), GRID).reshape(*GRID, 16), finer


@pytest.mark.parametrize("size", ["flex", "free"])
def test_attention_of_a_finer_grid_is_the_attention_of_the_field(size: str) -> None:
    """On smooth fields twice the tokens along each axis give nearly the same values."""
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(0)
    more = {"pool_cells": 3} if size == "free" else {}
    config = config_of(size=size, fusion="sum", branches="spatial", **more)
    attention = PairedAttention(TokenShape(216, 16, 8, GRID), config).double().eval()
    smooth = resize_rows(torch.randn(8, 27, dtype=torch.float64, generator=generator), (3, 3, 3), GRID)
    with torch.no_grad():
        attention.temperature_spatial.fill_(10.0)
        attention.qkvv.weight.copy_(torch.randn(48, 16, generator=generator) / 4)
        if size == "flex":
            attention.project_keys.weight.copy_(smooth / 3)
        coarse, finer = on_both_grids(attention)
        spread = (coarse - coarse.mean(dim=(0, 1, 2))).square().mean().sqrt()
        error = (finer - coarse).square().mean().sqrt() / spread
        assert error < 0.15
        attention.native_tokens = 12**3  # without the temperature's term the same comparison fails
        _, plain = on_both_grids(attention)
        if size == "flex":
            assert (plain - coarse).square().mean().sqrt() / spread > 3 * error


@pytest.mark.parametrize("size", ["flex", "free"])
def test_printed_channel_maps_of_a_finer_grid_are_those_of_the_field(size: str) -> None:
    config = config_of(size=size, as_printed=True, heads=1, fusion="sum", branches="channel")
    attention = PrintedAttention(TokenShape(216, 16, 8, GRID), config).double().eval()
    with torch.no_grad():
        attention.qkvv.weight.copy_(torch.randn(48, 16, generator=torch.Generator().manual_seed(1)) / 16)
        coarse, finer = on_both_grids(attention)
        assert (finer - coarse).square().mean().sqrt() / coarse.std() < 0.1
        attention.native_tokens = 12**3  # sums over eight times the tokens are eight times as large
        _, plain = on_both_grids(attention)
        assert (plain - coarse).square().mean().sqrt() / coarse.std() > 0.3


def test_pooling_is_the_mean_in_cells() -> None:
    x = torch.randn(2, 5 * 7 * 3, 4, generator=torch.Generator().manual_seed(0))
    volume = x.transpose(1, 2).reshape(2, 4, 5, 7, 3)
    expected = torch.nn.functional.adaptive_avg_pool3d(volume, 4).flatten(2).transpose(1, 2)
    torch.testing.assert_close(pool_tokens(x, (5, 7, 3), 4), expected)


def test_no_parameter_of_free_depends_on_the_size() -> None:
    for variant in PUBLISHED.values():
        config = UnetrPPConfig.model_validate({**variant.config.model_dump(), "layout": "aligned", "size": "free"})
        counts = []
        with torch.device("meta"):
            for factor in (1, 2):
                patch = tuple(n * factor for n in variant.patch)
                network = UnetrPP(config, in_channels=1, classes=2, patch=patch)
                counts.append(sum(parameter.numel() for parameter in network.parameters()))
        assert counts[0] == counts[1]
        if variant is PUBLISHED["synapse"]:
            assert 20.0e6 < counts[0] < 20.8e6


def test_pool_cells_decide_what_is_projected() -> None:
    counts = [sum(p.numel() for p in network_of(size="free", pool_cells=cells).parameters()) for cells in (2, 4)]
    blocks = [(8, 8), (8, 16), (4, 32), (8, 8), (8, 16)]
    assert counts[1] - counts[0] == sum(slots * (64 - 8) for slots, _ in blocks)


@pytest.mark.parametrize("size", ["native", "flex", "free"])
@pytest.mark.parametrize("fields", [{}, {"as_printed": True, "heads": 1, "fusion": "sum"}], ids=["code", "printed"])
def test_planes(size: str, fields: dict[str, object]) -> None:
    config = config_of(spatial_dims=2, stem=(2, 2), size=size, norm="instance", **fields)
    network = build_network(config, in_channels=3, classes=2, patch=(32, 16))
    x = torch.randn(2, 3, 32, 16)
    outputs = network(x)
    assert [tuple(o.shape[2:]) for o in outputs] == [(32, 16), (16, 8), (8, 4)]
    sum(o.square().mean() for o in outputs).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())
    with pytest.raises(GeometryError, match=r"3, 32, 16\)"):
        network(x[..., None])
    if size != "native":
        assert network(torch.randn(1, 3, 21, 40))[0].shape == (1, 2, 21, 40)


@pytest.mark.parametrize("fields", [{}, {"conv_blocks": 2, "token_projection": "separate"}], ids=["one", "two"])
def test_a_block_of_planes_is_a_block_of_volumes_one_voxel_deep(fields: dict[str, object]) -> None:
    """Of 3 x 3 x 3 kernels such a volume meets the middle slice alone."""
    torch.manual_seed(0)
    planes = PairedAttentionBlock(8, (5, 6), 4, config_of(spatial_dims=2, stem=(2, 2), **fields)).double().eval()
    volumes = PairedAttentionBlock(8, (5, 6, 1), 4, config_of(**fields)).double().eval()
    for parameter in planes.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    state, flat = volumes.state_dict(), planes.state_dict()
    for name, tensor in flat.items():
        if state[name].ndim == 5:
            state[name][..., state[name].shape[-1] // 2] = tensor
        else:
            state[name].copy_(tensor)
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)
    with torch.inference_mode():
        torch.testing.assert_close(volumes(x[..., None])[..., 0], planes(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("size", ["flex", "free"])
def test_training_on_several_sizes(size: str) -> None:
    network = build_network(
        config_of(size=size, layer_scale_init=0.1, norm="group", full_norm="group", conv_dropout=0.0),
        in_channels=1, classes=2, patch=PATCH, generator=torch.Generator().manual_seed(1),
    )  # fmt: skip
    optimiser = torch.optim.AdamW(network.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(2)

    def ball(sizes: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        axes = [torch.linspace(-1, 1, n) for n in sizes]
        target = (sum(g**2 for g in torch.meshgrid(*axes, indexing="ij")) < 0.5).long().expand(2, *sizes)
        return target[:, None] + 0.5 * torch.randn(2, 1, *sizes, generator=generator), target

    for step in range(36):
        x, target = ball([(16, 16, 8), (8, 24, 8), (16, 8, 12)][step % 3])
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x)[0], target).backward()
        optimiser.step()
    network.eval()
    for sizes in [(16, 16, 8), (20, 12, 10), (24, 24, 12)]:  # the last two were never seen
        x, target = ball(sizes)
        with torch.inference_mode():
            assert (network(x)[0].argmax(1) == target).float().mean() > 0.93, sizes


@pytest.mark.parametrize("size", ["flex", "free"])
def test_wrong_inputs_are_named(size: str) -> None:
    network = network_of(size=size)
    for wrong in (torch.zeros(1, 2, *PATCH), torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 0, 8)):
        with pytest.raises(GeometryError, match="channels and 3 axes"):
            network(wrong)
    with pytest.raises(GeometryError, match="16x16x8"):
        UnetrPP(config_of(size=size), in_channels=1, classes=2, patch=(17, 16, 8))
    alone = network_of(size=size, norm="instance")
    with pytest.raises(GeometryError, match="single voxel"):
        alone(image(5, 8, 4))
    with pytest.raises(GeometryError, match="single voxel"):
        network_of(size=size)(image(8, 8, 4, batch=1))
    kept = network_of(size=size, norm="group", dims=(8, 16, 16))
    with pytest.raises(GeometryError, match=r"single voxel .* fewer levels, or a wider lowest level"):
        kept(image(8, 8, 4))
    for sizes in ({"in_channels": 0, "classes": 2}, {"in_channels": 1, "classes": 0}):
        with pytest.raises(ConfigError, match="at least one"):
            UnetrPP(config_of(size=size), patch=PATCH, **sizes)


@pytest.mark.parametrize("orientation", ["SPL", "RAS", "IRP", "ALS"])
def test_turns_go_there_and_back(orientation: str) -> None:
    nibabel = pytest.importorskip("nibabel")
    turn = Turn(orientation)
    array = np.random.default_rng(0).normal(size=(3, 4, 5)).astype(np.float32)
    x = torch.from_numpy(array)[None, None]
    assert torch.equal(turn.back(turn.there(x)), x)
    codes = nibabel.orientations.axcodes2ornt(tuple(orientation))
    move = nibabel.orientations.ornt_transform(nibabel.orientations.axcodes2ornt("RAS"), codes)
    np.testing.assert_array_equal(turn.there(x)[0, 0].numpy(), nibabel.orientations.apply_orientation(array, move))


def test_weights_of_another_orientation_predict_in_ours() -> None:
    torch.manual_seed(0)
    native = UnetrPP(config_of(layout="legacy", stem=(1, 2, 2)), in_channels=1, classes=2, patch=(8, 24, 16)).eval()
    ours = UnetrPP(
        config_of(layout="legacy", stem=(2, 2, 1), native_orientation="SPL"),
        in_channels=1,
        classes=2,
        patch=(16, 24, 8),
    ).eval()
    ours.load_state_dict(native.state_dict())
    x = image(16, 24, 8, batch=1)
    with torch.inference_mode():
        stored = x.permute(0, 1, 4, 3, 2).flip(3, 4)
        expected = native(stored)[0].flip(3, 4).permute(0, 1, 4, 3, 2)
        assert torch.equal(ours(x)[0], expected)
        window = WindowConfig(precision="float32")
        found = predict_probabilities(ours, x[0], patch=ours.patch, targets=Targets.of_classes(2), config=window)
    torch.testing.assert_close(found, torch.softmax(expected[0], dim=0))


@pytest.mark.parametrize("size", ["native", "flex"])
def test_an_image_of_whole_numbers_is_refused_in_words(size: str) -> None:
    network = network_of(size=size)
    for given in (torch.zeros(1, 1, *PATCH, dtype=torch.int16), np.zeros((1, 1, *PATCH), np.float32)):
        with pytest.raises(InputError, match="takes a tensor of float32"):
            network(given)
