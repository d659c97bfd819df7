"""The contract of networks over every form that fields of the config can give them."""

import copy
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager

import pydantic
import pytest
import safetensors.torch
import torch

from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.build import build_network
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig, required_multiple
from neoseg.networks.counts import published_macs, rearranged_macs
from neoseg.networks.facts import network_facts

Mode = Callable[[], AbstractContextManager[None]]
SMALL = {"dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 4), "decoder_proj": 8, "feature_size": 8}
FORMS: dict[str, dict[str, object]] = {
    "legacy": {"layout": "legacy"},
    "published": {"layout": "legacy", "norm": "batch", "full_norm": "plain_instance", "attention_dropout": 0.1},
    "separate": {"token_projection": "separate", "conv_blocks": 2},
    "matrix": {"token_projection": "matrix", "fusion": "sum"},
    "flex": {"size": "flex"},
    "free": {"size": "free"},
    "free_matrix": {"size": "free", "token_projection": "matrix", "fusion": "sum", "pool_cells": 2},
    "spatial": {"branches": "spatial"},
    "channel": {"branches": "channel"},
    "own_queries_keys": {"shared_queries_keys": False},
    "printed": {"as_printed": True, "heads": 1, "fusion": "sum"},
    "printed_flex": {"as_printed": True, "heads": 1, "fusion": "sum", "size": "flex"},
    "planes": {"spatial_dims": 2, "stem": (2, 2)},
    "planes_free": {"spatial_dims": 2, "stem": (2, 2), "size": "free"},
    "turned": {"native_orientation": "SPL"},
    "recomputed": {"checkpointing": "all"},
}


def config_of(form: str, **fields: object) -> UnetrPPConfig:
    return UnetrPPConfig.model_validate({"stem": (2, 2, 1), **SMALL, **FORMS[form], **fields})


def patch_of(config: UnetrPPConfig) -> tuple[int, ...]:
    return tuple(2 * size for size in required_multiple(config))


def build(form: str, *, seed: int = 0, in_channels: int = 2, **fields: object) -> torch.nn.Module:
    config = config_of(form, **fields)
    return build_network(
        config,
        in_channels=in_channels,
        classes=3,
        patch=patch_of(config),
        generator=torch.Generator().manual_seed(seed),
    )


def image(form: str, in_channels: int = 2) -> torch.Tensor:
    sizes = patch_of(config_of(form))
    return torch.randn(2, in_channels, *sizes, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(FORMS))
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("in_channels", [1, 3])
def test_outputs_and_gradients(form: str, in_channels: int) -> None:
    network, x = build(form, in_channels=in_channels), image(form, in_channels)
    outputs = network(x)
    assert outputs[0].shape == (2, 3, *x.shape[2:])
    assert len(outputs) == 3
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    assert len(build(form, deep_supervision=False)(image(form))) == 1


def test_weights_and_seeds(form: str) -> None:
    one, same, two, x = build(form, seed=1), build(form, seed=1), build(form, seed=2), image(form)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), same.state_dict().values(), strict=True))
    stored = safetensors.torch.save({name: t.contiguous() for name, t in one.state_dict().items()})
    two.load_state_dict(safetensors.torch.load(stored))
    again, thawed = copy.deepcopy(one).eval(), pickle.loads(pickle.dumps(one)).eval()
    with torch.inference_mode():
        for network in (two.eval(), again, thawed):
            assert torch.equal(network(x)[0], one.eval()(x)[0])
        torch.testing.assert_close(one(x)[0][1:], one(x[1:])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_zero_padded_patches_in_short_formats_are_finite(form: str, dtype: torch.dtype) -> None:
    network = build(form, **({} if "printed" in form else {"layer_scale_init": 1.0}))
    padded = 100 * image(form)
    padded[:, :, padded.shape[2] // 2 :] = 0
    for x in (padded, torch.zeros_like(padded)):
        network.zero_grad()
        with torch.autocast("cpu", dtype):
            outputs = network(x)
        sum(output.float().square().mean() for output in outputs).backward()
        assert all(torch.isfinite(output).all() for output in outputs)
        assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


# What training adds, the heads of supervision and the statistics of batches, is traced in every form; prediction is a
# part of the same code, and a few forms stand for it.
PREDICTING = [("published", torch.no_grad), *((f, torch.inference_mode) for f in ("free", "planes", "printed"))]


@pytest.mark.parametrize(("form", "mode"), PREDICTING)
def test_prediction_traces_to_one_graph(form: str, mode: Mode) -> None:
    """A single sample without gradients takes a convolution of its own where nothing is traced."""
    for samples in (1, 2) if form == "free" else (1,):
        traces_to_one_graph(build(form).eval(), image(form)[:samples], mode)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_in_short_formats_compute(form: str, dtype: torch.dtype) -> None:
    network, x = build(form).eval(), image(form)
    with torch.inference_mode():
        expected, found = network(x)[0], network.to(dtype)(x.to(dtype))[0]
    assert found.dtype == dtype
    spread = float((found.float() - expected).square().mean().sqrt() / expected.std())
    assert spread <= (0.1 if dtype == torch.bfloat16 else 0.02), spread


def test_training_traces_to_one_graph(form: str) -> None:
    traces_to_one_graph(build(form, conv_dropout=0.0, attention_dropout=0.0), image(form), torch.enable_grad)


def traces_to_one_graph(network: torch.nn.Module, x: torch.Tensor, mode: Mode) -> None:
    torch._dynamo.reset()
    compiled, other = torch.compile(copy.deepcopy(network), backend="eager", fullgraph=True), x + 1
    with mode():
        torch.testing.assert_close(compiled(x)[0], network(x)[0], atol=1e-5, rtol=1e-5)
        counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled(other)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted


@pytest.mark.parametrize("share", ["full_size", "all"])
@pytest.mark.parametrize("base", ["published", "free", "printed"])
def test_recomputing_changes_no_number(base: str, share: str) -> None:
    results = []
    for checkpointing in ("none", share):
        network = build(base, checkpointing=checkpointing)
        torch.manual_seed(7)  # of dropout
        sum(output.square().mean() for output in network(image(base))).backward()
        gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
        results.append({**gradients, **dict(network.named_buffers())})
    kept, again = results
    assert all(torch.equal(kept[name], again[name]) for name in kept)


def test_recomputing_keeps_less() -> None:
    def kept(checkpointing: str) -> int:
        network, sizes = build("published", checkpointing=checkpointing), []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
            network(image("published"))
        return sum(sizes)

    none, some, everything = (kept(name) for name in ("none", "full_size", "all"))
    assert everything < some < none
    assert everything < 0.5 * none


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": "flex", "layout": "legacy"}, "exclude each other"),
        ({"pool_cells": 3}, "pool_cells is for size = 'free'"),
        ({"branches": "spatial", "shared_queries_keys": False}, "needs two branches"),
        ({"as_printed": True}, "as_printed needs heads = 1, fusion = 'sum' and was given 4, 'concat'"),
        ({"as_printed": True, "heads": 1}, "as_printed needs fusion = 'sum'"),
        ({"as_printed": True, "heads": 1, "fusion": "sum", "conv_blocks": 2}, "conv_blocks = 1"),
        ({"as_printed": True, "heads": 1, "fusion": "sum", "layout": "legacy"}, "layout = 'aligned'"),
        ({"as_printed": True, "heads": 1, "fusion": "sum", "layer_scale_init": 0.1}, "no gain"),
        ({"as_printed": True, "heads": 1, "fusion": "sum", "shared_queries_keys": False}, "shared_queries_keys"),
        ({"native_orientation": "SPX"}, "one of R or L"),
        ({"native_orientation": "SSP"}, "one of R or L"),
        ({"native_orientation": "SPL", "spatial_dims": 2}, "for volumes"),
        ({"spatial_dims": 2, "stem": (2, 2, 2)}, "stem has 3 entries: with spatial_dims = 2"),
        ({"stem": (4, 4)}, "give it 3, or set spatial_dims = 2 for pictures"),
        ({"spatial_dims": 1}, "2 or 3"),
        ({"checkpointing": "some"}, "checkpointing"),
    ],
)
def test_fields_that_exclude_each_other(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        UnetrPPConfig.model_validate(fields)


def test_every_form_survives_json(form: str) -> None:
    config = config_of(form)
    assert UnetrPPConfig.model_validate_json(config.model_dump_json()) == config


def test_old_configs_mean_what_they_meant() -> None:
    """A plan of before these fields: the same network, weight for weight."""
    new = {"size", "pool_cells", "branches", "shared_queries_keys", "as_printed", "checkpointing", "native_orientation"}
    config = config_of("legacy", layout="aligned")
    old = {k: v for k, v in config.model_dump(mode="json").items() if k not in {*new, "spatial_dims"}}
    assert UnetrPPConfig.model_validate(old) == config


AUTHORS = {"synapse": 47.886, "acdc": 43.633, "tumor": 73.546, "lung": 125.619}


@pytest.mark.parametrize("variant", PUBLISHED)
def test_multiply_adds_are_those_of_fvcore_on_the_authors_code(variant: str) -> None:
    preset = PUBLISHED[variant]
    count = {"in_channels": preset.in_channels, "classes": preset.classes, "patch": preset.patch}
    parts = published_macs(preset.config, **count)
    assert round(sum(parts.values()) / 1e9, 3) == AUTHORS[variant]
    single = preset.config.model_copy(update={"deep_supervision": False})
    assert sum(published_macs(single, **count).values()) < sum(parts.values())


def test_multiply_adds_here_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for form in ("legacy", "matrix", "separate"):
        config = config_of(form)
        patch = patch_of(config)
        network = build(form).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            # torch counts nothing for the operator that a single sample goes through
            network(image(form))
        parts = rearranged_macs(config, in_channels=2, classes=3, patch=patch)
        counted = sum(parts.values()) - parts["normalisations"]
        assert counter.get_total_flops() / 4 == pytest.approx(counted, rel=0.01), form


def test_facts_of_the_published_network() -> None:
    facts = network_facts("unetr_pp")
    assert (facts["synapse"]["parameters"], facts["synapse"]["with_statistics"]) == (42_952_850, 42_961_340)
    assert facts["synapse"]["gmacs_published_order"] == 47.89
    assert facts["lung"]["parameters"] == 121_174_798
    assert facts["default, flex"]["parameters"] == facts["default, native"]["parameters"]
    assert facts["default, free"]["parameters"] < 20.8e6
    with pytest.raises(ConfigError, match="did you mean 'unetr_pp'"):
        network_facts("unetrpp")


def test_a_fused_optimiser_leaves_no_table_of_before() -> None:
    """torch does not count its changes, so what was resized for a grid has to be forgotten otherwise."""
    network = build("flex")
    other = torch.randn(2, 2, *(2 * n for n in image("flex").shape[2:]))
    optimiser = torch.optim.AdamW(network.parameters(), lr=0.05, fused=True)
    with torch.no_grad():
        network.eval()(other)
    sum(output.square().mean() for output in network.train()(image("flex"))).backward()
    optimiser.step()
    fresh = build("flex", seed=5)
    fresh.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(other)[0], fresh.eval()(other)[0], rtol=0, atol=0)


@pytest.mark.parametrize("field", ["attention_dropout", "conv_dropout"])
def test_dropout_changes_training_alone(field: str) -> None:
    """Each rate acts by itself: without it training repeats its bits."""
    network, x = build("legacy", attention_dropout=0.0, conv_dropout=0.0, layer_scale_init=1.0), image("legacy")
    assert torch.equal(network(x)[0], network(x)[0])
    dropping = build("legacy", **{"attention_dropout": 0.0, "conv_dropout": 0.0, "layer_scale_init": 1.0, field: 0.5})
    assert not torch.equal(dropping(x)[0], dropping(x)[0])
    dropping.load_state_dict(network.state_dict())  # running means have moved
    assert torch.equal(dropping.eval()(x)[0], network.eval()(x)[0])


@pytest.mark.parametrize("branch", ["spatial", "channel"])
def test_attention_is_dropped_in_each_branch(branch: str) -> None:
    network = build(branch, attention_dropout=0.5, conv_dropout=0.0, layer_scale_init=1.0)
    x = image(branch)
    assert not torch.equal(network(x)[0], network(x)[0])


def test_whole_channels_are_dropped_before_the_last_convolution_of_a_block() -> None:
    block = next(module for module in build("legacy", conv_dropout=0.5).modules() if hasattr(module, "mix"))
    dropped = block.dropout(torch.ones(4, 64, 3, 3, 3))
    kept = dropped.flatten(2).count_nonzero(dim=2)
    assert set(kept.unique().tolist()) == {0, 27} and 0.3 < float((kept == 0).float().mean()) < 0.7


def test_published_rates_of_dropout() -> None:
    rates = {name: (preset.config.attention_dropout, preset.config.conv_dropout) for name, preset in PUBLISHED.items()}
    assert rates == {"synapse": (0.15, 0.1), "acdc": (0.1, 0.1), "tumor": (0.1, 0.1), "lung": (0.1, 0.1)}


def test_weights_start_as_in_the_authors_code() -> None:
    network = build("matrix", dims=(32, 64, 128), feature_size=16)
    linears = [module for module in network.encoder.modules() if isinstance(module, torch.nn.Linear)]
    weights = torch.cat([linear.weight.detach().flatten() for linear in linears])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.03)
    assert not any(linear.bias.any() for linear in linears if linear.bias is not None)
    outer = [module for module in network.decoder.modules() if isinstance(module, torch.nn.Linear)]
    assert any(float(linear.weight.detach().std()) > 0.05 for linear in outer)
    for name, parameter in network.named_parameters():
        if name.endswith("gain"):
            assert (parameter == network.config.layer_scale_init).all(), name
        elif "temperature" in name:
            assert (parameter == 1).all(), name
        elif name.endswith(".position"):
            assert not parameter.any(), name
        elif name.endswith("project_matrix"):
            assert parameter.abs().max() <= parameter.shape[1] ** -0.5 < 1.1 * parameter.abs().max(), name
    assert PUBLISHED["synapse"].config.layer_scale_init == 1e-6


@pytest.mark.parametrize(
    ("form", "sizes", "message"),
    [
        ("flex", (0, 2, 8, 8, 4), "batch holds no sample"),
        ("legacy", (0, 2, 16, 16, 8), "batch holds no sample"),
    ],
)
def test_a_batch_of_nothing_is_refused(form: str, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        build(form)(torch.zeros(sizes))


def test_the_nearest_right_patch_is_right() -> None:
    config = config_of("legacy", norm="instance")
    with pytest.raises(GeometryError, match="the nearest right patch is ") as caught:
        build_network(config, in_channels=1, classes=2, patch=(9, 8, 4))
    named = tuple(int(n) for n in str(caught.value).rstrip(".").split()[-1].split("x"))
    build_network(config, in_channels=1, classes=2, patch=named)


def test_an_image_that_leaves_one_token_is_named_as_it_is() -> None:
    network = build("flex", norm="batch")
    with pytest.raises(GeometryError, match=r"The image 5x7x3, padded to 8x8x4, leaves .* a batch of two"):
        network.train()(torch.zeros(1, 2, 5, 7, 3))
    network.train()(torch.randn(2, 2, 5, 7, 3))


@pytest.mark.parametrize("field", [{"token_projection": "matrix"}, {"layout": "legacy"}])
def test_fields_that_the_channel_branch_does_not_read_are_refused(field: dict[str, str]) -> None:
    with pytest.raises(pydantic.ValidationError, match=f"{next(iter(field))} is for the spatial branch"):
        config_of("channel", **field)
