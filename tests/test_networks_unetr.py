"""UNETR: MONAI's results with its weights, the published number of parameters, any size, and every field at work."""

import copy
import itertools
import math

import pydantic
import pytest
import safetensors.torch
import torch
from torch import nn

from neoseg.errors import ConfigError, GeometryError
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrConfig, step_sizes
from neoseg.networks.facts import network_facts
from neoseg.networks.unetr import Unetr, unetr_weights_from_monai

SMALL = {"hidden": 24, "layers": 4, "heads": 3, "mlp": 32, "feature_size": 4}
PATCH_SIZE = {3: (4, 4, 2), 2: (4, 8)}
PATCH = {3: (16, 16, 8), 2: (16, 32)}


def small(axes: int = 3, **fields: object) -> UnetrConfig:
    return UnetrConfig.model_validate({"spatial_dims": axes, "patch_size": PATCH_SIZE[axes], **SMALL, **fields})


def build(config: UnetrConfig, *, seed: int = 0, in_channels: int = 2, patch: tuple[int, ...] | None = None) -> Unetr:
    torch.manual_seed(seed)
    return Unetr(config, in_channels=in_channels, classes=3, patch=patch or PATCH[config.spatial_dims])


def image(*sizes: int, in_channels: int = 2) -> torch.Tensor:
    return torch.randn(2, in_channels, *sizes, generator=torch.Generator().manual_seed(3))


class Rearranged(nn.Module):
    """The two turns between tokens and heads that MONAI's attention asks einops for, which is not installed."""

    def __init__(self, pattern: str, qkv: int = 3, l: int = 1) -> None:  # noqa: E741 - MONAI's name
        super().__init__()
        self.pattern, self.heads = pattern, l

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.pattern == "b h (qkv l d) -> qkv b l h d":
            return x.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        assert self.pattern == "b l h d -> b h (l d)"
        return x.permute(0, 2, 1, 3).flatten(2)


@pytest.fixture
def monai_unetr(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    from monai.networks.blocks import selfattention
    from monai.networks.nets import UNETR

    monkeypatch.setattr(selfattention, "Rearrange", Rearranged)
    return UNETR


MONAI = {"hidden": 24, "heads": 3, "mlp": 32, "feature_size": 4, "skip_layers": (4, 7, 10)}


@pytest.mark.parametrize(
    ("patch", "in_channels", "norm"),
    [((32, 16, 48), 1, "instance"), ((16, 32, 16), 3, "batch"), ((48, 32), 2, "instance"), ((32, 32), 1, "batch")],
)
def test_it_equals_monai(monai_unetr: type[nn.Module], patch: tuple[int, ...], in_channels: int, norm: str) -> None:
    torch.manual_seed(1)
    axes = len(patch)
    theirs = monai_unetr(in_channels, 3, patch, 4, 24, 32, 3, norm_name=norm, spatial_dims=axes)
    published = "plain_instance" if norm == "instance" else norm
    config = UnetrConfig(spatial_dims=axes, patch_size=(16,) * axes, norm=published, **MONAI)
    ours = Unetr(config, in_channels=in_channels, classes=3, patch=patch)
    ours.load_state_dict(unetr_weights_from_monai(theirs.state_dict()))
    x = image(*patch, in_channels=in_channels)
    for training in (True, False):
        ours.train(training)
        theirs.train(training)
        expected = theirs(x)
        torch.testing.assert_close(ours(x)[0], expected, atol=1e-5, rtol=1e-5)
    expected.square().mean().backward()
    ours(x)[0].square().mean().backward()
    gradients = unetr_weights_from_monai({n: p.grad for n, p in theirs.named_parameters() if p.grad is not None})
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.slow
def test_as_it_is_built_it_equals_monai_at_the_published_size(monai_unetr: type[nn.Module]) -> None:
    torch.manual_seed(1)
    theirs = monai_unetr(1, 2, (96, 96, 96)).eval()
    config = UnetrConfig(patch_size=(16, 16, 16), skip_layers=(4, 7, 10))
    ours = build_network(config, in_channels=1, classes=2, patch=(96, 96, 96)).eval()
    ours.load_state_dict(unetr_weights_from_monai(theirs.state_dict()))
    x = image(96, 96, 96, in_channels=1)
    with torch.no_grad():
        torch.testing.assert_close(ours(x)[0], theirs(x), atol=1e-5, rtol=1e-5)


def test_the_skips_of_the_paper_are_other_layers_than_the_codes() -> None:
    assert UnetrConfig().skips == (3, 6, 9)
    ours, theirs = (build(small(layers=12, skip_layers=skips)).eval() for skips in (None, (4, 7, 10)))
    theirs.load_state_dict(ours.state_dict())
    x = image(*PATCH[3])
    assert not torch.allclose(ours(x)[0], theirs(x)[0], atol=1e-3)


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"vit\.blocks\.0\.attn\.qkv\.bias"):
        unetr_weights_from_monai({"vit.blocks.0.attn.qkv.bias": torch.zeros(3)})


def test_published_parameters() -> None:
    """The paper's 92.58 million are those of convolutions and linear layers: no table of positions, no layer norms."""
    with torch.device("meta"):
        network = Unetr(UnetrConfig(patch_size=(16, 16, 16)), in_channels=1, classes=14, patch=(96, 96, 96))
    counted = (nn.Linear, nn.Conv3d, nn.ConvTranspose3d)
    layers = sum(p.numel() for m in network.modules() if isinstance(m, counted) for p in m.parameters())
    assert layers == 92_579_758
    assert sum(p.numel() for p in network.parameters()) == layers + 6**3 * 768 + 25 * 2 * 768 == 92_784_046


def test_parameters_of_the_defaults_are_those_that_are_told() -> None:
    parameters = network_facts("unetr", 1)["3-D"]["parameters"]
    assert parameters == 92_783_842
    assert f"with {parameters / 1e6:.1f} million parameters" in (UnetrConfig.__doc__ or "")


@pytest.mark.parametrize(("axes", "in_channels"), [(3, 1), (3, 3), (2, 2)])
@pytest.mark.parametrize("deep_supervision", [True, False])
def test_outputs_and_gradients(axes: int, in_channels: int, deep_supervision: bool) -> None:
    network = build(small(axes, deep_supervision=deep_supervision), in_channels=in_channels)
    x = image(*PATCH[axes], in_channels=in_channels)
    outputs = network(x)
    assert outputs[0].shape == (2, 3, *PATCH[axes])
    sizes = [math.prod(output.shape[2:]) for output in outputs]
    assert sizes == sorted(sizes, reverse=True)
    assert len(outputs) == (4 if deep_supervision else 1)
    sum(output.square().mean() for output in outputs).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name
    network.eval()
    with torch.inference_mode():
        assert [o.shape for o in network(x)] == [o.shape for o in outputs]


def test_steps_of_the_decoder() -> None:
    assert step_sizes((16, 16, 16)) == ((2, 2, 2),) * 4
    assert step_sizes((16, 16, 4)) == ((2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))
    assert step_sizes((32, 8, 1)) == ((4, 2, 1), (2, 2, 1), (2, 2, 1), (2, 1, 1))
    for size in itertools.product((1, 2, 4, 8, 16, 32, 64), (1, 16)):
        assert tuple(math.prod(axis) for axis in zip(*step_sizes(size), strict=True)) == size


def test_supervised_outputs_of_thick_slices() -> None:
    network = build(small(patch_size=(16, 16, 4), deep_supervision=True), patch=(32, 16, 8))
    shapes = [tuple(output.shape[2:]) for output in network(image(32, 16, 8))]
    assert shapes == [(32, 16, 8), (16, 8, 8), (8, 4, 8), (4, 2, 4)]


def test_any_size_is_padded_with_zeros_and_cut() -> None:
    network = build(small(deep_supervision=True)).eval()
    x = image(13, 18, 7)
    whole = torch.zeros(2, 2, 16, 20, 8)
    whole[:, :, :13, :18, :7] = x
    with torch.inference_mode():
        outputs, expected = network(x), network(whole)
    shapes = [(13, 18, 7), (13, 18, 7), (13, 18, 7), (7, 9, 7)]
    assert [tuple(o.shape[2:]) for o in outputs] == shapes
    for output, full, (i, j, k) in zip(outputs, expected, shapes, strict=True):
        assert torch.equal(output, full[:, :, :i, :j, :k])


def test_positions_belong_to_places() -> None:
    network = build(small()).eval()
    x = image(*PATCH[3])
    seen: list[torch.Tensor] = []
    network.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.inference_mode():
        network(x)
        embedded = network.embedding(x).flatten(2).transpose(1, 2)
        assert torch.equal(seen[-1], embedded + network.positions)  # bit for bit at the native size
        # A table that rises by one a token along x rises by a half on twice as many tokens, but at both ends.
        network.positions.copy_(torch.arange(4.0).repeat_interleave(16)[None, :, None].expand_as(network.positions))
        network.embedding.weight.zero_()
        network.embedding.bias.zero_()
        network(image(32, 16, 8))
    along = seen[-1].reshape(2, 8, 4, 4, 24)[0, :, 1, 2, 5]
    assert along.tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "plain_instance"])
def test_normalisations_train_on_a_single_token(norm: str) -> None:
    network = build(small(norm=norm, deep_supervision=True), patch=PATCH_SIZE[3])
    outputs = network(image(*PATCH_SIZE[3])[:1])
    sum(output.square().mean() for output in outputs).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_a_sample_is_predicted_alike_alone_and_in_a_batch() -> None:
    network = build(small()).eval()
    x = image(*PATCH[3])
    with torch.inference_mode():
        torch.testing.assert_close(network(x)[0][1:], network(x[1:])[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("axes", [2, 3])
def test_memory_layout_changes_nothing(axes: int) -> None:
    network = build(small(axes)).eval()
    x = image(*PATCH[axes])
    layout = torch.channels_last if axes == 2 else torch.channels_last_3d
    with torch.inference_mode():
        plain = network(x)[0]
        network.to(memory_format=layout)
        last = network(x.contiguous(memory_format=layout))[0]
    torch.testing.assert_close(last, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", ["full_size", "all"])
@pytest.mark.parametrize("norm", ["plain_instance", "batch"])
def test_checkpointing_changes_memory_alone(checkpointing: str, norm: str) -> None:
    fields = {"norm": norm, "dropout": 0.2, "patch_size": (8, 8, 8)}
    plain, again = build(small(**fields)), build(small(**fields, checkpointing=checkpointing))
    again.load_state_dict(plain.state_dict())
    x = image(*PATCH[3])
    kept = {}
    for name, network in (("plain", plain), ("again", again)):
        values: dict[int, int] = {}
        weights = {parameter.data_ptr() for parameter in network.parameters()}

        def keep(tensor: torch.Tensor, values: dict[int, int] = values, weights: set[int] = weights) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                values[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        torch.manual_seed(5)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = network(x)
        kept[name] = sum(values.values())
        outputs[0].square().mean().backward()
    for (name, one), two in zip(plain.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one.grad, atol=0, rtol=0, msg=name)
    assert all(torch.equal(one, two) for one, two in zip(plain.buffers(), again.buffers(), strict=True))
    assert kept["again"] < (0.5 if checkpointing == "all" else 0.9) * kept["plain"]


def test_dropout_drops_in_training_alone() -> None:
    network = build(small(dropout=0.3))
    x = image(*PATCH[3])
    assert not torch.equal(network(x)[0], network(x)[0])
    network.eval()
    assert torch.equal(network(x)[0], network(x)[0])
    assert torch.equal(network(x)[0], _as_without_dropout(network)(x)[0])


def _as_without_dropout(network: Unetr) -> Unetr:
    other = build(small())
    other.load_state_dict(network.state_dict())
    return other


def test_a_seed_gives_the_same_bits() -> None:
    first, second, other = (build(small(), seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_weights_survive_safetensors_and_copies() -> None:
    config = small(deep_supervision=True)
    one, two = build(config, seed=1).eval(), build(config, seed=2).eval()
    two.load_state_dict(safetensors.torch.load(safetensors.torch.save(one.state_dict())))
    x = image(*PATCH[3])
    with torch.inference_mode():
        for ours, theirs, copied in zip(one(x), two(x), copy.deepcopy(one)(x), strict=True):
            assert torch.equal(ours, theirs)
            assert torch.equal(ours, copied)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("constant", [0.0, 7.0])
def test_constant_patches_under_autocast_are_finite(dtype: torch.dtype, constant: float) -> None:
    network = build(small(deep_supervision=True))
    with torch.autocast("cpu", dtype):
        outputs = network(torch.full((2, 2, *PATCH[3]), constant))
    sum(output.float().square().mean() for output in outputs).backward()
    assert all(torch.isfinite(output).all() for output in outputs)
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_a_wrong_input_is_named_with_the_right_one() -> None:
    network = build(small())
    for wrong in (image(*PATCH[3], in_channels=3), image(*PATCH[3])[0], image(*PATCH[2]), image(16, 16, 0)):
        with pytest.raises(GeometryError, match="2, 16, 16, 8"):
            network(wrong)
    with pytest.raises(GeometryError, match="16x16x8"):
        build(small(), patch=(17, 15, 8))
    with pytest.raises(GeometryError, match="2 axes"):
        build(small(), patch=(16, 16))
    with pytest.raises(ConfigError, match=r"network\.patch_size"):
        build(UnetrConfig(), patch=(16, 16, 16))
    with pytest.raises(ConfigError, match="0 input channels"):
        build(small(), in_channels=0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden": 100, "heads": 12}, "use 96"),
        ({"patch_size": (16, 16)}, "give it 3"),
        ({"patch_size": (16, 16, 12)}, "power of two"),
        ({"patch_size": (1, 1, 1)}, "more than 1"),
        ({"layers": 3}, "greater than or equal to 4"),
        ({"skip_layers": (4, 4, 10)}, "have to rise"),
        ({"skip_layers": (4, 7, 12)}, "below layers = 12"),
        ({"dropout": 1.0}, "less than 1"),
        ({"stem": (2, 2, 2)}, "Extra inputs"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        UnetrConfig.model_validate(fields)


def test_learns_a_bright_ball() -> None:
    axes = [torch.linspace(-1, 1, size) for size in (12, 12, 8)]
    distance = sum(grid**2 for grid in torch.meshgrid(*axes, indexing="ij"))
    target = (distance < 0.4).long().expand(2, *distance.shape)
    x = target[:, None] + 0.5 * torch.randn(2, 1, *distance.shape, generator=torch.Generator().manual_seed(1))
    network = build(small(), in_channels=1)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(x)[0], target).backward()
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        assert (network(x)[0].argmax(1) == target).float().mean() > 0.97
