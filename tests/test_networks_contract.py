"""What every network has to do, over the visible list of networks; a new member is tested by itself.

A kind with another encoder is tried as a network of its own, under the names of both.
"""

import math

import pytest
import safetensors.torch
import torch

from memory_content import leave_in_memory
from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.build import build_network
from neoseg.networks.configs import NETWORKS, NetworkConfig, required_multiple
from neoseg.networks.cost import network_cost

LEVELS = {"widths": (8, 16, 32), "strides": ((1, 1, 1), (2, 2, 1), (2, 2, 2))}
LIGHT_UNET, LIGHT_UNET_PLUS_PLUS = "unet efficientnet_b0", "unet_plus_plus mobilenet_v2"
LIGHT = {name: {"spatial_dims": 2, "encoder": name.split()[1]} for name in (LIGHT_UNET, LIGHT_UNET_PLUS_PLUS)}
SMALL = {
    "unetr_pp": {
        "dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 4), "decoder_proj": 8, "feature_size": 8,
        "stem": (2, 2, 1),
    },
    "unet": LEVELS,
    "wide_unet": LEVELS,
    "unet_plus_plus": LEVELS,
    "attention_unet": LEVELS,
    "unetr": {"patch_size": (4, 4, 2), "hidden": 16, "layers": 4, "heads": 2, "mlp": 32, "feature_size": 4},
    "segresnet": {"width": 8, "blocks_down": (1, 1, 1), "blocks_up": (1, 1), "dropout": 0.0},
    "dynunet": LEVELS,
    "mednext": {"width": 8},
    "swin_unetr": {"feature_size": 12, "window": 3},
    **LIGHT,
}  # fmt: skip
MONAIS = {"segresnet", "dynunet", "mednext", "swin_unetr"}
GROUPED = {"swin_unetr": {"feature_size": 24}}
"""Fields with which eight groups can be made."""
DEAD = {"mednext": "conv1.bias"}
"""Ends of the names of parameters without a gradient: each channel is normalised right behind that bias."""
LIVELY = {"unetr_pp": {"layer_scale_init": 1.0}}
"""Fields with which every part of a fresh network matters."""
REDUCED = {"swin_unetr": {"spatial_dims": 2}}
"""Fields for formats of two bytes, whose convolutions take minutes for its volumes on a CPU that has none of them."""
LEARNED = {"swin_unetr": {"spatial_dims": 2}}
"""Fields for many steps: its volumes are the largest ones here."""
ROUNDING = {"unetr_pp": 1e-5}
"""How far two orders of the same sums may lie apart, 1e-4 where many normalisations follow one another."""
FROM_THE_PLAN = {
    "unetr_pp": {"stem"},
    "unet": {"widths", "strides"},
    "wide_unet": {"strides"},
    "unet_plus_plus": {"widths", "strides"},
    "attention_unet": {"widths", "strides"},
    "unetr": {"patch_size"},
    "segresnet": set(),
    "dynunet": {"widths", "strides"},
    "mednext": set(),
    "swin_unetr": set(),
    **{name: set() for name in LIGHT},
}
"""Fields that a plan has to fill before a network can be built."""


def made_by(kind: str) -> type[NetworkConfig]:
    return NETWORKS[kind.split()[0]].config


def small(kind: str, **fields: object) -> NetworkConfig:
    return made_by(kind).model_validate({**SMALL[kind], **fields})


def layout(config: NetworkConfig) -> torch.memory_format:
    return torch.channels_last if config.spatial_dims == 2 else torch.channels_last_3d


def patch_of(config: NetworkConfig) -> tuple[int, ...]:
    if config.kind in ("mednext", "swin_unetr"):
        return (2 * config.multiple[0], *config.multiple[1:])
    fewest = 2 if config.kind == "unetr_pp" or getattr(config, "light", None) else 4
    return tuple(fewest * size for size in required_multiple(config))


def build(config: NetworkConfig, *, seed: int = 0, in_channels: int = 2, classes: int = 3) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    return build_network(config, in_channels=in_channels, classes=classes, patch=patch_of(config), generator=generator)


def image(config: NetworkConfig, in_channels: int = 2) -> torch.Tensor:
    return torch.randn(2, in_channels, *patch_of(config), generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def test_small_configs_cover_the_list() -> None:
    assert set(SMALL) == set(FROM_THE_PLAN) == {*NETWORKS, *LIGHT}
    for name, entry in NETWORKS.items():
        assert entry.config().kind == name
        assert entry.paper
        assert entry.title


@pytest.mark.parametrize("in_channels", [1, 2, 3])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_outputs_and_gradients(kind: str, in_channels: int, deep_supervision: bool) -> None:
    if deep_supervision and kind in ("segresnet", "swin_unetr"):
        pytest.skip("it has one output and says so")
    config = small(kind, deep_supervision=deep_supervision)
    network = build(config, in_channels=in_channels)
    x = image(config, in_channels)
    outputs = network(x)
    assert isinstance(outputs, tuple)
    assert outputs[0].shape == (2, 3, *patch_of(config))
    sizes = [math.prod(output.shape[2:]) for output in outputs]
    assert sizes == sorted(sizes, reverse=True)
    assert (len(outputs) > 1) == deep_supervision
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any() or name.endswith(DEAD.get(kind, "\0")), name
    network.eval()
    with torch.inference_mode():
        assert [o.shape for o in network(x)] == [o.shape for o in outputs]


@pytest.mark.parametrize("norm", ["batch", "instance", "group"])
def test_normalisations_train(kind: str, norm: str) -> None:
    if kind == "mednext":
        pytest.skip("it has one kind of normalisation")
    network = build(small(kind, norm=norm, **(GROUPED.get(kind, {}) if norm == "group" else {})))
    outputs = network(image(small(kind)))
    outputs[0].mean().backward()
    assert torch.isfinite(outputs[0]).all()


def test_a_sample_is_predicted_alike_alone_and_in_a_batch(kind: str) -> None:
    config = small(kind)
    network = build(config).eval()
    x = image(config)
    with torch.inference_mode():
        torch.testing.assert_close(
            network(x)[0][1:], network(x[1:])[0], atol=1e-4 if kind in MONAIS else 1e-5, rtol=1e-5
        )


def test_memory_layout_changes_nothing(kind: str) -> None:
    config = small(kind)
    network = build(config).eval()
    x = image(config)
    with torch.inference_mode():
        last = network(x.contiguous(memory_format=layout(config)))[0]
        network.to(memory_format=torch.contiguous_format)
        torch.testing.assert_close(network(x)[0], last, atol=ROUNDING.get(kind, 1e-4), rtol=1e-5)


def test_a_seed_gives_the_same_bits(kind: str) -> None:
    config = small(kind)
    state = torch.random.get_rng_state()
    first, second, other = (build(config, seed=seed).state_dict() for seed in (5, 5, 6))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_same_step_gives_the_same_bits(kind: str) -> None:
    config = small(kind)
    passes = []
    for _ in range(2):
        network = build(config)
        torch.manual_seed(1)  # of dropout
        outputs = network(image(config))
        sum(output.square().mean() for output in outputs).backward()
        passes.append([*outputs, *(p.grad for p in network.parameters()), *network.buffers()])
    assert all(torch.equal(one, two) for one, two in zip(*passes, strict=True))


def test_weights_survive_safetensors(kind: str) -> None:
    config = small(kind)
    one, two = build(config, seed=1).eval(), build(config, seed=2).eval()
    stored = safetensors.torch.save({name: t.contiguous() for name, t in one.state_dict().items()})
    two.load_state_dict(safetensors.torch.load(stored))
    with torch.inference_mode():
        for ours, theirs in zip(one(image(config)), two(image(config)), strict=True):
            assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_patches_under_autocast_are_finite(kind: str, dtype: torch.dtype, constant: float) -> None:
    config = small(kind, **LIVELY.get(kind, {}), **REDUCED.get(kind, {}))
    network = build(config)
    with torch.autocast("cpu", dtype):
        outputs = network(torch.full_like(image(config), constant))
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(torch.isfinite(output).all() for output in outputs)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_the_same_step_in_bfloat16_gives_the_same_bits_whatever_memory_held(kind: str) -> None:
    config = small(kind, **LIVELY.get(kind, {}), **REDUCED.get(kind, {}))
    network = build(config)
    gradients = []
    for content in (0.0, math.nan, 1e30):
        network.zero_grad()
        torch.manual_seed(1)  # of dropout
        with torch.autocast("cpu", torch.bfloat16):
            outputs = network(image(config))
        leave_in_memory(content)
        sum(output.float().square().mean() for output in outputs).backward()
        gradients.append([parameter.grad.clone() for parameter in network.parameters()])
    for others in gradients[1:]:
        assert all(torch.equal(one, two) for one, two in zip(gradients[0], others, strict=True))


def test_bfloat16_stays_close_to_float32(kind: str) -> None:
    config = small(kind, **LIVELY.get(kind, {}), **REDUCED.get(kind, {}))
    network = build(config).eval()
    with torch.inference_mode():
        exact = network(image(config))[0]
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(image(config))[0].float()
    assert (rough - exact).square().mean().sqrt() < 0.05 * exact.square().mean().sqrt()


def test_a_wrong_input_is_named_with_the_right_one(kind: str) -> None:
    config = small(kind)
    network = build(config)
    right = "2, " + ", ".join(str(size) for size in patch_of(config))
    if not config.any_size:
        with pytest.raises(GeometryError, match=right):
            network(image(config)[..., :-1])
    with pytest.raises(GeometryError, match=right):
        network(image(config, 3))
    with pytest.raises(GeometryError, match=right):
        network(image(config)[0])


def test_other_sizes_are_padded_with_zeros_and_cut(kind: str) -> None:
    config = small(kind, size="flex") if kind == "unetr_pp" else small(kind)
    assert config.any_size
    network = build(config).eval()
    sizes = patch_of(config)
    given = tuple(size - less for size, less in zip(sizes, (1, 2, 1), strict=False))
    covered_by_it = (..., *(slice(size) for size in given))
    x = image(config)[covered_by_it]
    padded = torch.zeros(2, 2, *sizes)
    padded[covered_by_it] = x
    with torch.inference_mode():
        outputs, whole = network(x), network(padded)
    for ours, theirs in zip(outputs, whole, strict=True):
        steps = [n // m for n, m in zip(sizes, theirs.shape[2:], strict=True)]
        covered = [math.ceil(n / step) for n, step in zip(given, steps, strict=True)]
        assert torch.equal(ours, theirs[(..., *(slice(size) for size in covered))])
    with pytest.raises(GeometryError):
        network(x[..., :0])


def test_a_wrong_patch_is_named_with_the_nearest_right_one(kind: str) -> None:
    config = small(kind)
    right = patch_of(config)
    with pytest.raises(GeometryError, match="x".join(str(size) for size in right)):
        build_network(config, in_channels=1, classes=2, patch=(right[0] + 1, right[1] - 1, *right[2:]))
    with pytest.raises(GeometryError, match=f"{len(right) - 1} axes"):
        build_network(config, in_channels=1, classes=2, patch=right[:-1])


def test_a_single_lowest_token_needs_group_normalisation(kind: str) -> None:
    if kind == "unetr":
        pytest.skip("its tokens are normalised over their channels")
    config = small(kind) if kind == "mednext" else small(kind, norm="instance")
    patch = required_multiple(config)
    with pytest.raises(GeometryError, match="larger patch" if kind == "mednext" else "group"):
        build_network(config, in_channels=1, classes=2, patch=patch)
    if kind == "mednext":
        return
    network = build_network(small(kind, norm="group", **GROUPED.get(kind, {})), in_channels=1, classes=2, patch=patch)
    network(torch.ones(1, 1, *patch))[0].mean().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters() if parameter.grad is not None)


def test_what_the_plan_fills_is_needed(kind: str) -> None:
    for field in FROM_THE_PLAN[kind]:
        without = {name: value for name, value in SMALL[kind].items() if name != field}
        with pytest.raises(ConfigError, match=rf"network\.{field}"):
            build_network(made_by(kind).model_validate(without), in_channels=1, classes=2, patch=(64, 64, 64))
    if FROM_THE_PLAN[kind]:
        with pytest.raises(ConfigError, match="|".join(FROM_THE_PLAN[kind])):
            build_network(made_by(kind)(), in_channels=1, classes=2, patch=(64, 64, 64))
    with pytest.raises(ConfigError, match="at least one"):
        build_network(small(kind), in_channels=0, classes=2, patch=patch_of(small(kind)))


def test_planes_go_in_and_come_out(kind: str) -> None:
    strides = ((1, 1), (2, 1), (2, 2))
    planes = {
        "unetr_pp": {"stem": (2, 2)},
        "unetr": {"patch_size": (4, 2)},
        **{name: {} for name in ("segresnet", "mednext", "swin_unetr")},
    }
    config = small(kind) if kind in LIGHT else small(kind, spatial_dims=2, **planes.get(kind, {"strides": strides}))
    network = build(config)
    outputs = network(image(config))
    assert outputs[0].shape == (2, 3, *patch_of(config))
    sum(output.square().mean() for output in outputs).backward()
    dead = DEAD.get(kind, "\0")
    assert all(parameter.grad.any() for name, parameter in network.named_parameters() if not name.endswith(dead))


def test_graphs_have_no_break(kind: str) -> None:
    if kind == "unetr_pp":
        pytest.skip("tracing its attention takes half a minute")
    config = small(kind)
    network = build(config).eval()
    whole = torch.compile(network, backend="eager", fullgraph=True)
    with torch.no_grad():
        for ours, theirs in zip(network(image(config)), whole(image(config)), strict=True):
            # a compiled normalisation adds voxels in another order: float32 through all layers of the network
            torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5 * max(1.0, float(ours.abs().max())))
    torch.compiler.reset()


def test_channels_last_memory_is_kept(kind: str) -> None:
    if kind in ("unetr_pp", "unetr"):
        pytest.skip("its attention works on rows of tokens")
    if kind in MONAIS:
        pytest.skip("its layers are MONAI's")
    network = build(small(kind))
    last, seen = layout(small(kind)), []
    for name, module in network.named_modules():
        if name and not list(module.children()):
            # On one thread torch's own 1x1x1 convolution writes another layout.
            pointwise = math.prod(getattr(module, "kernel_size", (3,))) == 1
            module.register_forward_hook(
                lambda _, given, made, alone=pointwise: seen.extend(given if alone else (*given, made))
            )
    x = image(small(kind)).contiguous(memory_format=last)
    network(x)
    assert seen
    # Squeezed channels are one value each and have no layout.
    assert all(tensor.is_contiguous(memory_format=last) for tensor in seen if tensor.ndim == x.ndim)


def test_learns_a_bright_ball(kind: str) -> None:
    config = small(kind, **LEARNED.get(kind, {}))
    axes = [torch.linspace(-1, 1, size) for size in patch_of(config)]
    distance = sum(grid**2 for grid in torch.meshgrid(*axes, indexing="ij"))
    target = (distance < 0.4).long().expand(2, *distance.shape)
    noise = torch.randn(2, 1, *distance.shape, generator=torch.Generator().manual_seed(1))
    x = target[:, None] + 0.5 * noise
    network = build(config, in_channels=1, classes=2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    # Long enough for the running statistics of batch normalisation to follow the weights.
    for _ in range(40):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x)[0], target).backward()
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        assert (network(x)[0].argmax(1) == target).float().mean() > 0.97


def test_it_is_counted_as_it_is_built(kind: str) -> None:
    config = small(kind)
    patch = patch_of(config)
    found = network_cost(config, in_channels=2, classes=3, patch=patch)
    assert found.parameters == sum(p.numel() for p in build(config).parameters())
    twice = network_cost(config, in_channels=2, classes=3, patch=(2 * patch[0], *patch[1:]))
    assert 1.5 * found.multiply_adds < twice.multiply_adds < 2.5 * found.multiply_adds
