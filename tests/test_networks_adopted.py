"""Networks of MONAI's: their own results, at any size, with as many outputs in evaluation as in training."""

import copy
import math
from typing import Any

import pydantic
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.adopted import Adopted, AdoptedConfig
from neoseg.networks.configs import NETWORKS, DynUNetConfig, MedNeXtConfig, SegResNetConfig, SwinUnetrConfig

STRIDES = ((1, 1, 1), (2, 2, 1), (2, 2, 2))
SMALL: dict[str, dict[str, Any]] = {
    "segresnet": {"width": 8, "blocks_down": (1, 2, 1), "blocks_up": (1, 1)},
    "dynunet": {"widths": (8, 8, 16), "strides": STRIDES},
    "mednext": {"width": 8},
    "swin_unetr": {"feature_size": 12, "window": 3},
}
SMALL_2D: dict[str, dict[str, Any]] = {**SMALL, "dynunet": {"widths": (8, 8, 16), "strides": [s[1:] for s in STRIDES]}}
SUPERVISED = {"dynunet": 2, "mednext": 5}


def small(kind: str, axes: int = 3, **fields: object) -> AdoptedConfig:
    shape = SMALL[kind] if axes == 3 else SMALL_2D[kind]
    return NETWORKS[kind].config.model_validate({"spatial_dims": axes, **shape, **fields})


def patch_of(config: AdoptedConfig) -> tuple[int, ...]:
    return tuple(2 * size if axis == 0 else size for axis, size in enumerate(config.multiple))


def build(config: AdoptedConfig, *, seed: int = 0, in_channels: int = 2) -> Adopted:
    torch.manual_seed(seed)
    return Adopted(config, in_channels=in_channels, classes=3, patch=patch_of(config))


def image(*sizes: int, in_channels: int = 2) -> torch.Tensor:
    return torch.randn(2, in_channels, *sizes, generator=torch.Generator().manual_seed(3))


@pytest.fixture(params=list(SMALL))
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize(("axes", "in_channels"), [(3, 1), (3, 2), (2, 3)])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_outputs_and_gradients(kind: str, axes: int, in_channels: int, deep_supervision: bool) -> None:
    if deep_supervision and kind not in SUPERVISED:
        with pytest.raises(pydantic.ValidationError, match="one output"):
            small(kind, axes, deep_supervision=True)
        return
    config = small(kind, axes, deep_supervision=deep_supervision)
    network = build(config, in_channels=in_channels)
    x = image(*patch_of(config), in_channels=in_channels)
    outputs = network(x)
    assert isinstance(outputs, tuple)
    assert outputs[0].shape == (2, 3, *patch_of(config))
    sizes = [math.prod(output.shape[2:]) for output in outputs]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(outputs) == (SUPERVISED[kind] if deep_supervision else 1)
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    network.eval()
    with torch.inference_mode():
        assert [o.shape for o in network(x)] == [o.shape for o in outputs]


def test_the_parameters_that_learn_nothing(kind: str) -> None:
    """In exact arithmetic the biases in front of a normalisation of each channel have no gradient: MedNeXt's first."""
    config = small(kind)
    network = build(config).double()
    sum(output.square().mean() for output in network(image(*patch_of(config)).double())).backward()
    steepest = {name: float(p.grad.abs().max()) for name, p in network.named_parameters() if p.grad is not None}
    dead = {name for name, gradient in steepest.items() if gradient < 1e-13 * max(steepest.values())}
    assert all(steepest[name] > 1e-6 * max(steepest.values()) for name in steepest.keys() - dead)
    biases = {name for name, _ in network.named_parameters() if name.endswith("conv1.bias")}
    assert dead == (biases if kind == "mednext" else set())


def same_weights(ours: Adopted, theirs: nn.Module) -> None:
    """Copy MONAI's weights; what it names twice is one tensor."""
    state = theirs.state_dict()
    ours.network.load_state_dict({name: state[name] for name in ours.network.state_dict()})
    kept = {tensor.data_ptr() for tensor in ours.state_dict().values() if tensor.numel()}
    assert len(kept) == len({tensor.data_ptr() for tensor in state.values() if tensor.numel()})


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("residual", [True, False])
def test_a_dynunet_is_monais(axes: int, residual: bool) -> None:
    from monai.networks.nets.dynunet import DynUNet

    strides = [s[-axes:] for s in ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 1, 2))]
    kernels = [k[-axes:] for k in ((3, 3, 1), (3, 3, 3), (5, 3, 3), (3, 3, 3))]
    config = small(
        "dynunet", axes, widths=(8, 12, 16, 20), strides=strides, kernels=kernels, residual=residual, activation="relu"
    )
    theirs = DynUNet(
        axes, 2, 3, kernels, strides, strides[1:], [8, 12, 16, 20], None, ("INSTANCE", {"affine": True}),
        ("relu", {"inplace": True}), True, 2, residual,
    )  # fmt: skip
    ours = build(config)
    same_weights(ours, theirs)
    x = image(*patch_of(config))
    stacked = theirs(x).unbind(1)
    outputs = ours(x)
    assert len(stacked) == len(outputs) == 3
    for output, wide in zip(outputs, stacked, strict=True):
        torch.testing.assert_close(functional.interpolate(output, wide.shape[2:]), wide, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", ["S", "B", "M", "L"])
@pytest.mark.parametrize("kernel", [3, 5])
def test_sizes_of_mednext_are_the_published_ones(size: str, kernel: int) -> None:
    from monai.networks.nets.mednext import create_mednext

    with torch.device("meta"):
        theirs = create_mednext(size, kernel_size=kernel, deep_supervision=True)
        ours = Adopted(MedNeXtConfig(size=size, kernel=kernel), in_channels=1, classes=2, patch=(32, 32, 32))
    assert {n: t.shape for n, t in ours.network.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }
    published = {3: {"S": 5.6, "B": 10.5, "M": 17.6, "L": 61.8}, 5: {"S": 5.9, "B": 11.0, "M": 18.3, "L": 63.0}}
    assert sum(p.numel() for p in ours.parameters()) == pytest.approx(published[kernel][size] * 1e6, rel=0.015)


@pytest.mark.parametrize("axes", [2, 3])
def test_a_mednext_is_monais(axes: int) -> None:
    from monai.networks.nets.mednext import MedNeXt

    theirs = MedNeXt(axes, 8, 2, 3, kernel_size=5, deep_supervision=True, use_residual_connection=True)
    config = small("mednext", axes, kernel=5)
    ours = build(config)
    same_weights(ours, theirs)
    ours, theirs, x = ours.double(), theirs.double(), image(*patch_of(config)).double()
    for output, expected in zip(ours(x), theirs(x), strict=True):
        torch.testing.assert_close(output, expected, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x), atol=1e-12, rtol=1e-12)


def test_a_segresnet_is_the_papers() -> None:
    from monai.networks.nets.segresnet import SegResNet

    with torch.device("meta"):
        theirs = SegResNet(3, 32, 4, 3)
        ours = Adopted(SegResNetConfig(), in_channels=4, classes=3, patch=(16, 8, 8))
    assert {n: t.shape for n, t in ours.network.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }
    assert ours.network.dropout.p == 0.2


def test_a_swin_unetr_is_monais_published_one() -> None:
    """The tensors are those of MONAI's, with 62.2 million parameters for 14 classes."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    theirs = SwinUNETR(in_channels=1, out_channels=14, feature_size=48)
    with torch.device("meta"):
        ours = Adopted(SwinUnetrConfig(), in_channels=1, classes=14, patch=(64, 32, 32))
    assert {n: t.shape for n, t in ours.network.state_dict().items()} == {
        n: t.shape for n, t in theirs.state_dict().items()
    }
    assert sum(p.numel() for p in ours.parameters()) == 62_187_296
    assert [block.attn.heads for block in ours.network.swinViT.layers4[0].blocks] == [24, 24]


@pytest.mark.parametrize(("axes", "window"), [(2, 3), (3, 3), (3, 7)])
def test_a_swin_unetr_is_monais(axes: int, window: int) -> None:
    """Windows of 3 are shifted and padded, those of 7 are cut to the smaller grids; gradients agree too."""
    from monai.networks.nets.swin_unetr import SwinUNETR

    config = small("swin_unetr", axes, window=window, depths=(2, 1, 2, 1))
    theirs = SwinUNETR(
        spatial_dims=axes, in_channels=2, out_channels=3, feature_size=12, depths=(2, 1, 2, 1), window_size=window
    )
    ours = build(config)
    same_weights(ours, theirs)
    x = image(*patch_of(config))
    expected, found = theirs(x), ours(x)[0]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.network.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(ours.eval()(x)[0], theirs.eval()(x), atol=1e-5, rtol=1e-5)


def test_gradients_of_windows_are_the_same_bits_on_several_threads() -> None:
    config = small("swin_unetr", window=7)
    network, threads = build(config), torch.get_num_threads()
    attention = network.network.swinViT.layers1[0].blocks[0].attn
    x = torch.randn(1, 343, 12, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(2)
    try:
        found = set()
        for _ in range(12):
            network.zero_grad()
            attention(x, None).square().sum().backward()
            found.add(attention.relative_position_bias_table.grad.numpy().tobytes())
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 1


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["plain_instance", "batch"])
@pytest.mark.parametrize("checkpointing", ["full_size", "all"])
def test_checkpointing_of_a_swin_unetr_changes_nothing(checkpointing: str, norm: str) -> None:
    fields = {"norm": norm, "drop_path": 0.3, "dropout": 0.1}
    networks = [build(small("swin_unetr", checkpointing=c, **fields)) for c in ("none", checkpointing)]
    x, results, kept = image(*patch_of(small("swin_unetr"))), [], []
    for network in networks:
        storages: dict[int, int] = {}

        def keep(tensor: torch.Tensor, storages: dict[int, int] = storages) -> torch.Tensor:
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = network(x)[0].square().mean()
        loss.backward()
        kept.append(sum(storages.values()))
        results.append({n: p.grad for n, p in network.named_parameters()} | dict(network.named_buffers()))
    assert kept[1] < (0.85 if checkpointing == "full_size" else 0.5) * kept[0]
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("upsample", ["linear", "deconv"])
def test_a_segresnet_comes_up_as_asked(upsample: str) -> None:
    network = build(small("segresnet", upsample=upsample))
    assert any(isinstance(module, nn.ConvTranspose3d) for module in network.modules()) == (upsample == "deconv")
    assert network(image(8, 4, 4))[0].shape == (2, 3, 8, 4, 4)


@pytest.mark.parametrize("axes", [2, 3])
def test_any_size_is_padded_with_zeros_and_cut(kind: str, axes: int) -> None:
    config = small(kind, axes)
    network = build(config).eval()
    given = tuple(max(size - 3 + axis, 1) for axis, size in enumerate(patch_of(config)))
    x = image(*given)
    whole = torch.zeros(2, 2, *(size + -size % m for size, m in zip(given, config.multiple, strict=True)))
    whole[(..., *(slice(size) for size in given))] = x
    with torch.inference_mode():
        outputs, expected = network(x), network(whole)
    assert outputs[0].shape[2:] == given
    for output, full in zip(outputs, expected, strict=True):
        sizes = [
            math.ceil(size * there / p) for size, there, p in zip(given, full.shape[2:], whole.shape[2:], strict=True)
        ]
        assert list(output.shape[2:]) == sizes
        assert torch.equal(output, full[(..., *(slice(size) for size in sizes))])


@pytest.mark.parametrize(
    ("kind", "norm"), [(k, n) for k in ("segresnet", "dynunet") for n in ("batch", "instance", "group")]
)
def test_normalisations_train(kind: str, norm: str) -> None:
    config = small(kind, norm=norm)
    network = build(config)
    found = {type(module).__name__ for module in network.modules() if "Norm" in type(module).__name__}
    assert found == {{"batch": "BatchNorm3d", "instance": "InstanceNorm3d", "group": "GroupNorm"}[norm]}
    outputs = network(image(*patch_of(config)))
    outputs[0].mean().backward()
    assert torch.isfinite(outputs[0]).all()


def test_a_sample_is_predicted_alike_alone_and_in_a_batch(kind: str) -> None:
    config = small(kind)
    network = build(config).eval()
    x = image(*patch_of(config))
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[0][1:], network(x[1:])[0], atol=1e-5, rtol=1e-5)


def test_memory_layout_changes_nothing(kind: str) -> None:
    config = small(kind)
    network = build(config).eval()
    x = image(*patch_of(config))
    with torch.inference_mode():
        plain = network(x)[0]
        network.to(memory_format=torch.channels_last_3d)
        last = network(x.contiguous(memory_format=torch.channels_last_3d))[0]
    torch.testing.assert_close(last, plain, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "field"),
    [("segresnet", "dropout"), ("dynunet", "dropout")]
    + [("swin_unetr", field) for field in ("dropout", "attention_dropout", "drop_path")],
)
def test_dropout_drops_in_training_alone(kind: str, field: str) -> None:
    config = small(kind, **{field: 0.3})
    network = build(config)
    x = image(*patch_of(config))
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x)[0], network(x)[0])


def test_a_seed_gives_the_same_bits(kind: str) -> None:
    first, second, other = (build(small(kind), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_survive_safetensors_and_copies(kind: str) -> None:
    config = small(kind)
    one, two = build(config, seed=1).eval(), build(config, seed=2).eval()
    x = image(*patch_of(config))
    one(x)  # what a forward pass leaves behind must not hinder a copy
    two.load_state_dict(safetensors.torch.load(safetensors.torch.save(one.state_dict())))
    with torch.inference_mode():
        for ours, theirs, copied in zip(one(x), two(x), copy.deepcopy(one)(x), strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(ours, copied)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_patches_under_autocast_are_finite(kind: str, dtype: torch.dtype, constant: float) -> None:
    # Convolutions of two bytes a value take minutes for its volumes on a CPU that has none of them.
    config = small(kind, 2 if kind == "swin_unetr" else 3)
    network = build(config)
    with torch.autocast("cpu", dtype):
        outputs = network(torch.full_like(image(*patch_of(config)), constant))
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(torch.isfinite(output).all() for output in outputs)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_a_wrong_input_is_named_with_the_right_one(kind: str) -> None:
    config = small(kind)
    network = build(config)
    right = patch_of(config)
    for wrong in (image(*right, in_channels=3), image(*right)[0], image(*right[1:])):
        with pytest.raises(GeometryError, match="2, " + ", ".join(str(size) for size in right)):
            network(wrong)
    with pytest.raises(GeometryError, match="x".join(str(size) for size in right)):
        Adopted(config, in_channels=1, classes=2, patch=(right[0] + 1, *right[1:]))
    with pytest.raises(GeometryError, match="2 axes"):
        Adopted(config, in_channels=1, classes=2, patch=right[:2])
    with pytest.raises(ConfigError, match="0 classes"):
        Adopted(config, in_channels=1, classes=0, patch=right)


def test_a_single_lowest_voxel_is_refused_where_it_cannot_be_normalised(kind: str) -> None:
    config = small(kind, **({} if kind == "mednext" else {"norm": "instance"}))
    with pytest.raises(GeometryError, match="single voxel"):
        Adopted(config, in_channels=2, classes=3, patch=config.multiple)
    with pytest.raises(GeometryError, match="single voxel"):
        build(config)(image(*(size - 1 for size in config.multiple)))
    if kind == "mednext":
        return
    wider = {"feature_size": 24} if kind == "swin_unetr" else {}
    grouped = Adopted(small(kind, norm="group", **wider), in_channels=2, classes=3, patch=config.multiple)
    grouped(image(*config.multiple)[:1])[0].mean().backward()
    batch = build(small(kind, norm="batch"))
    with pytest.raises(GeometryError, match="single voxel"):
        batch(image(*config.multiple)[:1])
    batch.eval()(image(*config.multiple)[:1])


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("segresnet", {"blocks_up": (1, 1, 1)}, "give blocks_up 2"),
        ("segresnet", {"width": 12}, "multiple of 8"),
        ("dynunet", {"skip_attention": "se"}, 'kind = "unet"'),
        ("dynunet", {"widths": (8, 16), "strides": STRIDES[:2]}, "3 levels or more"),
        ("dynunet", {"widths": (8, 12, 16), "norm": "group"}, "multiple of 8"),
        ("dynunet", {"strides": ((1, 1, 1), (3, 2, 1), (2, 2, 2)), "residual": True}, "steps of 1 and 2"),
        ("dynunet", {"strides": ((1, 1, 1), (5, 2, 1), (2, 2, 2))}, "kernel plus 1"),
        ("dynunet", {"strides": ((1, 1, 1), (4, 2, 1), (2, 2, 2)), "kernels": ((1, 1, 1),) * 3}, "kernel plus 1"),
        ("mednext", {"width": 0}, "greater than 0"),
        ("mednext", {"kernel": 7}, "3 or 5"),
        ("mednext", {"size": "XL"}, "'S', 'B', 'M' or 'L'"),
        ("mednext", {"norm": "batch"}, "Extra inputs"),
        ("swin_unetr", {"feature_size": 20}, "multiple of 12: use 24"),
        ("swin_unetr", {"heads": (3, 6, 12, 20)}, "heads holds 20 where there are 96 channels"),
        ("swin_unetr", {"depths": (2, 2, 2)}, "Field required"),
        ("swin_unetr", {"norm": "group"}, "multiple of 8"),
        ("swin_unetr", {"window": 1}, "greater than or equal to 2"),
        ("swin_unetr", {"drop_path": 1.0}, "less than 1"),
        ("swin_unetr", {"deep_supervision": True}, "one output"),
    ],
)
def test_wrong_fields_are_refused(kind: str, fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        small(kind, **fields)


def test_what_the_plan_has_to_fill_is_named() -> None:
    for fields, missing in (({"strides": STRIDES}, "widths"), ({"widths": (8, 8, 16)}, "strides")):
        with pytest.raises(ConfigError, match=rf"network\.{missing}"):
            Adopted(DynUNetConfig.model_validate(fields), in_channels=1, classes=2, patch=(8, 8, 4))
    planned = DynUNetConfig(widths=(8, 8, 16, 16)).model_copy(update={"strides": STRIDES})
    with pytest.raises(ConfigError, match="4 entries, strides 3 and kernels 4"):
        Adopted(planned, in_channels=1, classes=2, patch=(8, 8, 4))
