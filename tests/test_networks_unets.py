"""Convolutional U-Nets: published sizes, each field, and the parts of each network."""

import itertools
import math

import numpy as np
import pydantic
import pytest
import torch
from torch.nn import functional

from neoseg.errors import ConfigError, GeometryError, InputError
from neoseg.networks.blocks.attention_gate import AttentionGate
from neoseg.networks.blocks.conv_block import ConvBlock, Form, ResidualBlock
from neoseg.networks.blocks.normalisation import normalisation
from neoseg.networks.blocks.squeeze_excitation import SqueezeExcitation
from neoseg.networks.build import build_network
from neoseg.networks.configs import NETWORKS, ConvUNet, NetworkBase, UNetPlusPlusConfig, required_multiple
from neoseg.networks.facts import network_facts
from neoseg.networks.unet_plus_plus import load_unpruned, pruned_state

KINDS = ["unet", "wide_unet", "unet_plus_plus", "attention_unet"]
LEVELS = {"widths": (6, 8, 12), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}
FIVE = {"widths": (4, 6, 8, 8, 8), "strides": ((1, 1),) + 4 * ((2, 2),), "spatial_dims": 2}


def config_of(kind: str, **fields: object) -> ConvUNet:
    return NETWORKS[kind].config.model_validate({**LEVELS, **fields})


def network_of(kind: str, seed: int = 0, **fields: object) -> torch.nn.Module:
    config = config_of(kind, **fields)
    patch = tuple(4 * n for n in required_multiple(config)) if config.spatial_dims == 3 else (32, 32)
    generator = torch.Generator().manual_seed(seed)
    return build_network(config, in_channels=1, classes=2, patch=patch, generator=generator)


def image(*sizes: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 1, *sizes, generator=torch.Generator().manual_seed(3))


def on_meta(config: NetworkBase) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(config, in_channels=1, classes=1, patch=(32, 32))


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


# Tables of the UNet++ papers: 7.76 M, 9.13 M and 9.04 M. With transposed convolutions as wide as their level, as in the
# authors' code, the wide U-Net has 9,282,246, 1.7 % more; with those of the U-Net it has what is printed.
@pytest.mark.parametrize(
    ("kind", "printed", "exact", "deep_supervision"),
    [
        ("unet", 7.76e6, 7_759_521, False),
        ("wide_unet", 9.13e6, 9_130_476, False),
        ("unet_plus_plus", 9.04e6, 9_041_601, False),
        ("unet_plus_plus", 9.04e6, 9_041_700, True),
    ],
)
def test_published_parameter_counts(kind: str, printed: float, exact: int, deep_supervision: bool) -> None:
    """One input channel, one output channel, two 3x3 convolutions a level with biases and without normalisation."""
    fields = {"spatial_dims": 2, "strides": ((1, 1),) + 4 * ((2, 2),), "norm": "none", "activation": "relu"}
    if kind != "wide_unet":
        fields["widths"] = (32, 64, 128, 256, 512)
    config = NETWORKS[kind].config.model_validate({**fields, "down": "max", "deep_supervision": deep_supervision})
    if kind == "wide_unet":
        assert parameters(on_meta(config)) == 9_282_246
        config = config.model_copy(update={"up_channels": "unet"})
    assert parameters(on_meta(config)) == exact
    assert exact == pytest.approx(printed, rel=0.01)
    if not deep_supervision:
        assert network_facts(kind)["2-D, as printed"]["parameters"] == exact


@pytest.mark.parametrize(
    ("channels", "width"),
    [(8, 8), (24, 8), (320, 8), (35, 7), (12, 6), (20, 10), (26, 13), (30, 6), (13, 13), (4, 4), (2, 2), (1, 1)],
)
def test_groups_have_eight_channels_or_as_near_as_can_be(channels: int, width: int) -> None:
    norm = normalisation("group", channels)
    assert isinstance(norm, torch.nn.GroupNorm)
    assert (norm.num_channels, norm.num_groups) == (channels, channels // width)


def test_a_wide_unet_is_normalised_in_groups() -> None:
    strides = ((1, 1),) + 4 * ((2, 2),)
    config = NETWORKS["wide_unet"].config.model_validate({"spatial_dims": 2, "strides": strides, "norm": "group"})
    with torch.device("meta"):
        network = build_network(config, in_channels=1, classes=2, patch=(32, 32))
    norms = [module for module in network.modules() if isinstance(module, torch.nn.GroupNorm)]
    assert {norm.num_channels // norm.num_groups for norm in norms} == {7, 8}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "fields",
    [
        {"norm": "batch"},
        {"norm": "group"},
        {"norm": "none"},
        {"activation": "relu"},
        {"kernels": ((3, 3, 1), (3, 3, 3), (3, 3, 3))},
        {"skip_attention": "se"},
        {"skip_attention": "scse"},
        {"down": "other"},
    ],
)
def test_each_field_changes_what_comes_out(kind: str, fields: dict[str, object]) -> None:
    plain = config_of(kind)
    if fields == {"down": "other"}:
        fields = {"down": "max" if plain.down == "stride" else "stride"}
    x = image(16, 16, 8)
    base, other = network_of(kind), network_of(kind, **fields)
    # The same weights where both have them, so that a difference comes from the field and not from the drawing.
    own = other.state_dict()
    shared = {name: t for name, t in base.state_dict().items() if name in own and own[name].shape == t.shape}
    other.load_state_dict(shared, strict=False)
    assert len(shared) > 10
    with torch.no_grad():
        assert not torch.allclose(base(x)[0], other(x)[0], atol=1e-3)
    sum(output.square().mean() for output in other(x)).backward()
    # The few squeezed channels may all be silent behind their ReLU, the last layer's bias never.
    silent = {name for name, parameter in other.named_parameters() if not parameter.grad.any()}
    assert all(name.endswith(("squeeze.weight", "squeeze.bias", "excite.weight")) for name in silent)


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_drops_while_training_only(kind: str) -> None:
    network, x = network_of(kind, dropout=0.5), image(16, 16, 8)
    rows = [module for module in network.modules() if isinstance(module, torch.nn.Dropout3d)]
    decoders = {"unet_plus_plus": 3}.get(kind, 2)
    assert len(rows) == 3 + decoders
    torch.manual_seed(0)
    assert not torch.equal(network(x)[0], network(x)[0])
    torch.manual_seed(0)
    first = network.encoder(x)[0][0, :, :4].detach()
    torch.manual_seed(0)
    assert torch.equal(network.encoder(x)[0][0, :, :4], first)
    network.eval()
    without = network_of(kind).eval()
    with torch.no_grad():
        assert torch.equal(network(x)[0], without(x)[0])


def test_dropped_channels_are_nought() -> None:
    block = ConvBlock(1, 64, (3, 3), Form("instance", "relu"), dropout=0.5)
    torch.manual_seed(0)
    alive = block(image(8, 8)).detach().flatten(2).ne(0).any(2)
    assert 0.3 < alive.float().mean() < 0.7


@pytest.mark.parametrize("kind", KINDS)
def test_deep_supervision_adds_heads_and_changes_nothing_else(kind: str) -> None:
    fields = {"heads": "fast"} if kind == "unet_plus_plus" else {}
    deep, single = network_of(kind, **fields), network_of(kind, deep_supervision=False, **fields)
    single.load_state_dict({name: t for name, t in deep.state_dict().items() if name in single.state_dict()})
    x = image(16, 16, 8)
    with torch.no_grad():
        outputs, (only,) = deep(x), single(x)
    assert torch.equal(outputs[0], only)
    lower = (16, 16, 8) if kind == "unet_plus_plus" else (8, 8, 8)
    assert [tuple(output.shape[2:]) for output in outputs] == [(16, 16, 8), lower]


@pytest.mark.parametrize("kind", KINDS)
def test_weights_start_as_published_and_biases_at_nought(kind: str) -> None:
    network = network_of(kind, norm="none", widths=(64, 64, 64))
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv3d) and module.in_channels * module.out_channels > 4000:
            wanted = math.sqrt(2 / (1 + 0.01**2) / (module.in_channels * math.prod(module.kernel_size)))
            assert module.weight.std().item() == pytest.approx(wanted, rel=0.05), name
        if getattr(module, "bias", None) is not None:
            assert not module.bias.any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_biases_are_where_no_normalisation_follows(kind: str) -> None:
    for norm, biased in (("instance", False), ("none", True)):
        network = network_of(kind, norm=norm)
        convs = [m for m in network.encoder.modules() if isinstance(m, torch.nn.Conv3d)]
        assert {conv.bias is not None for conv in convs} == {biased}
        heads = network.heads.values() if kind == "unet_plus_plus" else network.heads
        assert all(head.bias is not None for head in heads)


@pytest.mark.parametrize(
    ("fields", "named"),
    [({"widths": None}, "network.widths"), ({"strides": None}, "network.strides")],
)
def test_what_is_not_set_is_named(fields: dict[str, object], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        build_network(config_of("unet", **fields), in_channels=1, classes=2, patch=(16, 16, 8))


def test_kernels_are_three_where_nothing_is_said() -> None:
    assert [level.kernel for level in config_of("unet").levels] == [(3, 3, 3)] * 3


def test_levels_that_a_plan_filled_in_wrongly_are_refused() -> None:
    config = config_of("unet", encoder_blocks=(2, 2, 2)).model_copy(update={"widths": (8, 8)})
    with pytest.raises(ConfigError, match="widths has 2"):
        config.levels  # noqa: B018
    with pytest.raises(ConfigError, match="encoder_blocks has 3"):
        config.blocks(2)
    pruned = config_of("unet_plus_plus", widths=None, strides=None, prune=3)
    with pytest.raises(ConfigError, match="prune = 3"):
        pruned.model_copy(update=LEVELS).depth  # noqa: B018
    with pytest.raises(pydantic.ValidationError, match="stride"):
        config_of("unet", encoder="residual", down="max")


@pytest.mark.parametrize("kind", KINDS)
def test_a_single_voxel_is_refused_when_it_comes_in(kind: str) -> None:
    network = network_of(kind)
    with pytest.raises(GeometryError, match="group"):
        network(image(3, 3, 1))
    batch = network_of(kind, norm="batch")
    with pytest.raises(GeometryError, match="group"):
        batch(image(4, 4, 2, batch=1))
    with torch.no_grad():
        assert batch.eval()(image(4, 4, 2, batch=1))[0].shape == (1, 2, 4, 4, 2)
        assert network_of(kind, norm="none")(image(3, 3, 1))[0].shape == (2, 2, 3, 3, 1)


def test_a_plain_unet_is_what_its_paper_draws() -> None:
    """The same network written down layer by layer with torch's own functions."""
    network, x = network_of("unet", down="max", activation="relu", norm="none"), image(16, 16, 8)
    weights = network.state_dict()

    def double(x: torch.Tensor, name: str) -> torch.Tensor:
        for number in "01":
            conv = f"{name}.{number}.conv."
            x = functional.relu(functional.conv3d(x, weights[conv + "weight"], weights[conv + "bias"], padding=1))
        return x

    def up(x: torch.Tensor, level: int, step: tuple[int, ...]) -> torch.Tensor:
        return functional.conv_transpose3d(x, weights[f"up.{level}.weight"], weights[f"up.{level}.bias"], stride=step)

    with torch.no_grad():
        first = double(x, "encoder.stages.0")
        second = double(functional.max_pool3d(first, (2, 2, 1)), "encoder.stages.1")
        lowest = double(functional.max_pool3d(second, 2), "encoder.stages.2")
        back = double(torch.cat((up(lowest, 1, (2, 2, 2)), second), 1), "decoder.1")
        full = double(torch.cat((up(back, 0, (2, 2, 1)), first), 1), "decoder.0")
        wanted = [
            functional.conv3d(feature, weights[f"heads.{level}.weight"], weights[f"heads.{level}.bias"])
            for level, feature in enumerate((full, back))
        ]
        for ours, theirs in zip(network(x), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_residual_blocks_are_nnu_nets() -> None:
    block = ResidualBlock(4, 6, (3, 3, 3), Form("instance", "leaky_relu"), stride=(2, 2, 1))
    torch.nn.init.normal_(block.norm.weight)
    x = torch.randn(2, 4, 8, 8, 4, generator=torch.Generator().manual_seed(0))

    def normed(x: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
        return functional.instance_norm(x, weight=norm.weight, bias=norm.bias)

    y = normed(functional.conv3d(x, block.first.conv.weight, stride=(2, 2, 1), padding=1), block.first.norm)
    y = normed(functional.conv3d(functional.leaky_relu(y, 0.01), block.conv.weight, padding=1), block.norm)
    pooled = functional.avg_pool3d(x, (2, 2, 1))
    y = y + normed(functional.conv3d(pooled, block.carry.weight), block.carry_norm)
    torch.testing.assert_close(block(x), functional.leaky_relu(y, 0.01), rtol=1e-4, atol=1e-5)


def test_a_residual_encoder_has_nnu_nets_blocks_and_starts_as_shortcuts() -> None:
    widths, strides = (6, 8, 12, 12, 12), LEVELS["strides"] + 2 * ((2, 2, 1),)
    network = network_of("unet", encoder="residual", widths=widths, strides=strides)
    assert [len(stage) for stage in network.encoder.stages] == [1, 3, 4, 6, 6]
    assert [len(row) for row in network.decoder] == [1] * 4
    assert network.encoder.stem.conv.stride == (1, 1, 1)
    blocks = [block for stage in network.encoder.stages for block in stage]
    assert [block.carry is not None for block in blocks].count(True) == 2
    assert not any(block.norm.weight.any() for block in blocks)
    x = image(64, 64, 8)
    with torch.no_grad():
        stem = network.encoder.stem(x)
        torch.testing.assert_close(network.encoder(x)[0], functional.leaky_relu(stem, 0.01))
    for block in blocks:
        torch.nn.init.ones_(block.norm.weight)
    sum(output.square().mean() for output in network(x)).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


def test_a_residual_encoder_without_normalisation_starts_as_shortcuts_too() -> None:
    network = network_of("unet", encoder="residual", norm="none", encoder_blocks=(2, 1, 1), decoder_blocks=3)
    assert [len(stage) for stage in network.encoder.stages] == [2, 1, 1]
    assert [len(row) for row in network.decoder] == [3, 3]
    assert not network.encoder.stages[0][1].conv.weight.any()
    assert network.encoder.stages[0][1].first.conv.weight.any()


@pytest.mark.parametrize("spatial", [False, True])
def test_squeeze_and_excitation_by_its_equations(spatial: bool) -> None:
    torch.manual_seed(0)
    module, x = SqueezeExcitation(6, 3, spatial=spatial), torch.randn(2, 6, 3, 4, 5)
    array = {name: t.detach().numpy().astype(float) for name, t in module.state_dict().items()}
    u = x.numpy().astype(float)
    mean = u.mean((2, 3, 4))
    hidden = np.maximum(mean @ array["squeeze.weight"].T + array["squeeze.bias"], 0)
    factor = 1 / (1 + np.exp(-(hidden @ array["excite.weight"].T + array["excite.bias"])))
    wanted = u * factor[:, :, None, None, None]
    if spatial:
        voxels = np.einsum("bcxyz,c->bxyz", u, array["voxels.weight"].ravel()) + array["voxels.bias"]
        wanted += u / (1 + np.exp(-voxels[:, None]))
    np.testing.assert_allclose(module(x).detach().numpy(), wanted, atol=1e-5)


# UNet++


def plus_plus(**fields: object) -> torch.nn.Module:
    network = network_of("unet_plus_plus", **{**FIVE, **fields})
    return network.eval()


@pytest.mark.parametrize("heads", ["fast", "accurate"])
@pytest.mark.parametrize("skip_attention", ["none", "scse"])
def test_a_pruned_network_is_the_whole_ones_head_bit_by_bit(heads: str, skip_attention: str) -> None:
    whole = plus_plus(heads="fast", skip_attention=skip_attention)
    for x in (image(32, 32), image(21, 35)):
        with torch.no_grad():
            by_head = dict(zip((4, 3, 2, 1), whole(x), strict=True))
            for prune in (1, 2, 3, 4):
                pruned = plus_plus(prune=prune, heads=heads, skip_attention=skip_attention)
                load_unpruned(pruned, whole.state_dict())
                outputs = pruned(x)
                if heads == "accurate" and prune > 1:
                    mean = torch.stack([by_head[j].softmax(1) for j in range(1, prune + 1)]).mean(0)
                    torch.testing.assert_close(outputs[0].softmax(1), mean)
                    outputs = outputs[1:]
                assert len(outputs) == prune
                for j, output in zip(range(prune, 0, -1), outputs, strict=True):
                    assert torch.equal(output, by_head[j])


def test_a_pruned_network_without_supervision_has_its_own_head_alone() -> None:
    whole, pruned = plus_plus(heads="fast"), plus_plus(prune=3, deep_supervision=False)
    load_unpruned(pruned, whole.state_dict())
    with torch.no_grad():
        (only,) = pruned(image(32, 32))
        assert torch.equal(only, whole(image(32, 32))[1])


@pytest.mark.parametrize("prune", [1, 2, 3, None])
def test_only_the_nodes_of_the_pruned_network_are_built(prune: int | None) -> None:
    depth, network = prune or 4, plus_plus(prune=prune)
    nodes = {f"{i}_{j}" for i, j in itertools.product(range(5), range(1, 5)) if i + j <= depth}
    assert set(network.nodes) == set(network.up) == nodes
    assert len(network.nodes) == depth * (depth + 1) // 2
    assert len(network.encoder.stages) == depth + 1
    assert set(network.heads) == {str(j) for j in range(1, depth + 1)}
    assert required_multiple(network.config) == (16, 16)


def test_weights_that_do_not_fit_a_pruned_network_are_named() -> None:
    whole, pruned = plus_plus(), plus_plus(prune=2)
    state = whole.state_dict()
    with pytest.raises(InputError, match=r"nodes\.0_1\.0"):
        pruned_state(pruned, {name: t for name, t in state.items() if not name.startswith("nodes.0_1.0.conv")})
    with pytest.raises(InputError, match="no place"):
        pruned_state(pruned, state | {"gates.0.psi.weight": torch.ones(1)})
    with pytest.raises(InputError, match=r"heads\.1"):
        pruned_state(pruned, plus_plus(deep_supervision=False).state_dict())
    with pytest.raises(InputError, match="shape"):
        load_unpruned(pruned, plus_plus(widths=(4, 8, 8, 8, 8)).state_dict())
    assert set(pruned_state(whole, state)) == set(state)


def test_nodes_follow_equation_1() -> None:
    """The equation as it is printed: a node of its own level's nodes and of the one below, found by recursion."""
    network, x = network_of("unet_plus_plus", heads="fast"), image(16, 16, 8)

    def node(i: int, j: int) -> torch.Tensor:
        if j == 0:
            return network.encoder(x)[i]
        beside = [node(i, k) for k in range(j)]
        return network.nodes[f"{i}_{j}"](torch.cat([*beside, network.up[f"{i}_{j}"](node(i + 1, j - 1))], dim=1))

    with torch.no_grad():
        for output, j in zip(network(x), (2, 1), strict=True):
            torch.testing.assert_close(output, network.heads[str(j)](node(0, j)))


def test_the_accurate_output_is_the_mean_of_probabilities() -> None:
    network = plus_plus(heads="accurate")
    with torch.no_grad():
        mean, *singles = network(image(32, 32))
        torch.testing.assert_close(mean.softmax(1), torch.stack([s.softmax(1) for s in singles]).mean(0))
        torch.testing.assert_close(mean.exp().sum(1), torch.ones(2, 32, 32))
        with torch.autocast("cpu", torch.bfloat16):
            assert network(image(32, 32))[0].dtype == torch.float32
    assert len(singles) == 4
    assert UNetPlusPlusConfig().heads == "accurate"


# Attention U-Net


@pytest.mark.parametrize("step", [(2, 2, 2), (2, 1, 2)])
def test_a_gate_by_its_equations(step: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, 3, step)
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    grid = (2, 3, 2)
    sizes = tuple(n * s for n, s in zip(grid, step, strict=True))
    x, g = torch.randn(2, 4, *sizes), torch.randn(2, 6, *grid)
    w = {name: t.detach().numpy().astype(float) for name, t in gate.state_dict().items()}
    cells = x.numpy().astype(float).reshape(2, 4, grid[0], step[0], grid[1], step[1], grid[2], step[2])
    seen = np.einsum("bcxiyjzk,hcijk->bhxyz", cells, w["skip.weight"])
    told = np.einsum("bcxyz,hc->bhxyz", g.numpy().astype(float), w["gating.weight"][:, :, 0, 0, 0])
    both = np.maximum(seen + told + w["gating.bias"][:, None, None, None], 0)
    alpha = 1 / (1 + np.exp(-(np.einsum("bhxyz,h->bxyz", both, w["psi.weight"].ravel()) + w["psi.bias"])))
    for axis, (n, s) in enumerate(zip(grid, step, strict=True), start=1):
        # Linear between the centres of voxels, the outermost going on to the edge.
        places = (np.arange(n * s) + 0.5) / s - 0.5
        alpha = np.apply_along_axis(lambda row, p=places, m=n: np.interp(p, np.arange(m), row), axis, alpha)
    np.testing.assert_allclose(gate(x, g).detach().numpy()[:, 0], alpha, atol=1e-5)


def test_gates_weigh_the_skips_and_their_maps_can_be_seen() -> None:
    network = network_of("attention_unet").eval()
    for given in ((16, 16, 8), (13, 15, 7)):
        with torch.no_grad():
            maps = network.attention(image(*given))
        assert [tuple(one.shape) for one in maps] == [(2, 1, *given)] * 2
        assert all(one.min() > 0 and one.max() < 1 and one.std() > 0 for one in maps)
    x, seen = image(16, 16, 8), []
    network.decoder[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        network(x)
        skip = network.encoder(x)[0]
        torch.testing.assert_close(seen[0][:, 6:], skip * network.attention(x)[0])


def test_the_width_of_gates() -> None:
    assert [gate.psi.in_channels for gate in network_of("attention_unet", gate_width=0.25).gates] == [2, 2]
    assert [gate.psi.in_channels for gate in network_of("attention_unet", gate_width=1.0).gates] == [6, 8]
    assert [gate.psi.in_channels for gate in network_of("attention_unet", gate_width=0.001).gates] == [1, 1]
    with pytest.raises(pydantic.ValidationError, match="gate_width"):
        config_of("attention_unet", gate_width=0)
