"""MobileNetV2 and EfficientNet as encoders: their papers' sizes, another implementation's numbers, what is refused."""

from __future__ import annotations

import itertools
import math

import monai.networks.nets as nets
import pydantic
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from neoseg.errors import GeometryError
from neoseg.networks.blocks.conv_block import Form
from neoseg.networks.blocks.inverted_residual import InvertedResidual
from neoseg.networks.blocks.normalisation import GroupNorm
from neoseg.networks.build import build_network
from neoseg.networks.configs import LIGHT_ENCODERS, NETWORKS, ConvUNet, UNetConfig, UNetPlusPlusConfig
from neoseg.networks.configs.light import LightBlock
from neoseg.networks.unet_plus_plus import load_unpruned

KINDS = ["unet", "unet_plus_plus"]
# parameters with three channels in and 1000 classes out, channels of the last convolution, image, 1e9 multiply-adds;
# Sandler et al. 2018 (table 4) and Tan & Le 2019 (table 2) print 3.4, 5.3, 7.8, 9.2 and 12 million, and the last column
PUBLISHED = {
    "mobilenet_v2": (3_504_872, 1280, 224, 0.30),
    "efficientnet_b0": (5_288_548, 1280, 224, 0.39),
    "efficientnet_b1": (7_794_184, 1280, 240, 0.70),
    "efficientnet_b2": (9_109_994, 1408, 260, 1.0),
    "efficientnet_b3": (12_233_232, 1536, 300, 1.8),
}


def config_of(kind: str = "unet", encoder: str = "mobilenet_v2", **fields: object) -> ConvUNet:
    return NETWORKS[kind].config.model_validate({"encoder": encoder, "spatial_dims": 2, **fields})


def network_of(kind: str = "unet", encoder: str = "mobilenet_v2", *, seed: int = 0, **fields: object) -> nn.Module:
    config = config_of(kind, encoder, **fields)
    generator = torch.Generator().manual_seed(seed)
    return build_network(config, in_channels=1, classes=2, patch=(64, 64), generator=generator)


def image(*sizes: int, batch: int = 2, channels: int = 1) -> torch.Tensor:
    return torch.randn(batch, channels, *sizes, generator=torch.Generator().manual_seed(3))


def on_meta(kind: str, encoder: str, **fields: object) -> nn.Module:
    with torch.device("meta"):
        return build_network(config_of(kind, encoder, **fields), in_channels=3, classes=2, patch=(64, 64))


def published_part(network: nn.Module) -> nn.Sequential:
    """Return the encoder without the two convolutions at full resolution, which its paper does not have."""
    return nn.Sequential(network.encoder.stem, *list(network.encoder.stages)[1:])


@pytest.mark.parametrize("encoder", LIGHT_ENCODERS)
def test_encoders_have_the_papers_parameters_and_multiply_adds(encoder: str) -> None:
    whole, head, size, billions = PUBLISHED[encoder]
    part = published_part(on_meta("unet", encoder))
    last = LIGHT_ENCODERS[encoder].widths[-1]
    # the last 1x1 convolution with its normalisation, and the layer that makes 1000 classes
    beyond = last * head + 2 * head + 1000 * head + 1000
    assert sum(p.numel() for p in part.parameters()) + beyond == whole
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        lowest = part.eval()(torch.empty(1, 3, size, size, device="meta"))
    macs = counter.get_total_flops() / 2 + lowest[0, 0].numel() * last * head + 1000 * head
    assert macs / 1e9 == pytest.approx(billions, rel=0.05)


@pytest.mark.parametrize("encoder", [name for name in LIGHT_ENCODERS if name != "mobilenet_v2"])
def test_encoders_are_as_large_as_monais(encoder: str) -> None:
    with torch.device("meta"):
        theirs = nets.EfficientNetBN(encoder.replace("_", "-"), pretrained=False)
    beyond = (theirs._conv_head, theirs._bn1, theirs._fc)
    wanted = sum(p.numel() for p in theirs.parameters()) - sum(p.numel() for m in beyond for p in m.parameters())
    assert sum(p.numel() for p in published_part(on_meta("unet_plus_plus", encoder)).parameters()) == wanted


def monais(block: nn.Module) -> list[tuple[nn.Module, ...]]:
    """Return the layers of one of MONAI's blocks in the order in which ours are, each with its normalisation."""
    first = [(block._expand_conv, block._bn0)] if block.expand_ratio > 1 else []
    return [*first, (block._depthwise_conv, block._bn1), (block._se_reduce,), (block._se_expand,),
            (block._project_conv, block._bn2)]  # fmt: skip


def ours(block: InvertedResidual) -> list[tuple[nn.Module, ...]]:
    first = [] if isinstance(block.expand, nn.Identity) else [(block.expand.conv, block.expand.norm)]
    return [*first, (block.depthwise.conv, block.depthwise.norm), (block.squeeze.squeeze,), (block.squeeze.excite,),
            (block.project, block.norm)]  # fmt: skip


def test_efficientnet_b0_is_monais() -> None:
    """Turned since theirs pads strided convolutions at the far end, and ours, of even sizes, at the near one."""
    theirs = nets.EfficientNetBNFeatures("efficientnet-b0", pretrained=False, in_channels=1, norm=("batch", {}))
    network = network_of("unet", "efficientnet_b0").double()
    part, theirs = published_part(network), theirs.double()
    pairs = [((part[0].conv, part[0].norm), (theirs._conv_stem, theirs._bn0))]
    blocks = [block for row in part[1:] for block in row]
    for one, other in zip(blocks, itertools.chain(*theirs._blocks), strict=True):
        other.drop_connect_rate = 0.0
        pairs += zip(ours(one), monais(other), strict=True)
    torch.manual_seed(0)
    with torch.no_grad():
        for one, other in pairs:
            for mine, its in zip(one, other, strict=True):
                for name, weight in its.named_parameters():
                    if weight.ndim == 1:
                        weight.copy_(torch.rand_like(weight) + 0.5 * (name == "weight"))
                    own = getattr(mine, name)
                    own.copy_(weight.flip((2, 3)).view(own.shape) if weight.ndim == 4 else weight)
    for training in (True, False):  # the second time with the statistics that the first one left
        network.train(training), theirs.train(training)
        x = image(64, 64).double()
        mine, its = x.clone().requires_grad_(), x.flip((2, 3)).requires_grad_()
        features, wanted = network.encoder(mine)[1:], theirs(its)
        assert [f.shape[1] for f in features] == [16, 24, 40, 112, 320]
        for one, other in zip(features, wanted, strict=True):
            assert (one - other.flip((2, 3))).abs().max() < 1e-9 * other.abs().max()
        (sum(f.square().mean() for f in features)).backward()
        (sum(f.square().mean() for f in wanted)).backward()
        assert (mine.grad - its.grad.flip((2, 3))).abs().max() < 1e-7 * its.grad.abs().max()
        for one, other in pairs:
            gradient, its_own = one[0].weight.grad, other[0].weight.grad
            turned = its_own.flip((2, 3)).view(gradient.shape) if its_own.ndim == 4 else its_own
            assert (gradient - turned).abs().max() < 1e-7 * turned.abs().max()


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize(
    ("size", "activation"),
    [
        (LightBlock(4, 4, 6, 3, 1, 0), "relu6"),
        (LightBlock(4, 6, 6, 3, 2, 0), "relu6"),
        (LightBlock(6, 6, 1, 5, 1, 2), "silu"),
        (LightBlock(6, 4, 3, 5, 2, 2), "silu"),
    ],
)
def test_an_inverted_residual_by_its_parts(axes: int, size: LightBlock, activation: str) -> None:
    """Channel by channel and voxel by voxel, in double precision."""
    torch.manual_seed(0)
    block = InvertedResidual(size, Form("none", activation), axes).double()  # type: ignore[arg-type]
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = 3 * image(*(8, 6, 4)[:axes], channels=size.inputs).double()
    weights = block.state_dict()
    conv = functional.conv2d if axes == 2 else functional.conv3d

    def act(y: torch.Tensor) -> torch.Tensor:
        return y.clamp(0, 6) if activation == "relu6" else y * torch.sigmoid(y)

    def pointwise(y: torch.Tensor, name: str) -> torch.Tensor:
        made = torch.einsum("oc,bc...->bo...", weights[f"{name}.weight"].flatten(1), y)
        return made + weights[f"{name}.bias"].view(-1, *(1,) * axes)

    y = act(pointwise(x, "expand.conv")) if size.expansion > 1 else x
    kernels, biases = weights["depthwise.conv.weight"].split(1), weights["depthwise.conv.bias"].split(1)
    alone = zip(y.split(1, dim=1), kernels, biases, strict=True)
    y = torch.cat([conv(*one, stride=size.stride, padding=size.kernel // 2) for one in alone], dim=1)
    y = act(y)
    if size.squeezed:
        mean = y.flatten(2).mean(2)
        inner = act(mean @ weights["squeeze.squeeze.weight"].T + weights["squeeze.squeeze.bias"])
        factor = torch.sigmoid(inner @ weights["squeeze.excite.weight"].T + weights["squeeze.excite.bias"])
        y = y * factor.view(2, -1, *(1,) * axes)
    y = pointwise(y, "project")
    if size.stride == 1 and size.inputs == size.outputs:
        y = y + x
    torch.testing.assert_close(block(x), y)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("encoder", LIGHT_ENCODERS)
def test_no_pointwise_convolution_has_a_stride_and_few_channels_are_not_strided(kind: str, encoder: str) -> None:
    """torch 2.13 writes beyond its memory in the gradient of strided 1x1 convolutions of 2 to 7 channels."""
    convs = [m for m in on_meta(kind, encoder, skip_attention="scse").modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) > 50
    strided = [conv for conv in convs if max(conv.stride) > 1]
    assert len(strided) == 5
    assert all(min(conv.kernel_size) > 1 and conv.out_channels >= 8 for conv in strided)


@pytest.mark.parametrize("encoder", LIGHT_ENCODERS)
def test_gradients_do_not_depend_on_layout_and_precision(encoder: str) -> None:
    """Block by block, where rounding cannot grow: channels last in float32 against contiguous in double precision."""
    form = Form("batch", "silu")
    for size in dict.fromkeys(block for row in LIGHT_ENCODERS[encoder].rows for block in row):
        torch.manual_seed(0)
        quick = InvertedResidual(size, form, 2).to(memory_format=torch.channels_last)
        exact = InvertedResidual(size, form, 2).double()
        exact.load_state_dict(quick.state_dict())
        x = image(8, 6, channels=size.inputs)
        for one, made in ((quick, x.contiguous(memory_format=torch.channels_last)), (exact, x.double())):
            (one(made) * one(made).detach().cos()).mean().backward()
        for (name, one), other in zip(quick.named_parameters(), exact.parameters(), strict=True):
            assert (one.grad - other.grad).norm() < 1e-3 * other.grad.norm() + 1e-7, (size, name)


@pytest.mark.parametrize("encoder", LIGHT_ENCODERS)
def test_levels_are_the_papers_with_full_resolution_above(encoder: str) -> None:
    network = on_meta("unet", encoder)
    features = network.encoder(torch.empty(1, 3, 64, 96, device="meta"))
    assert [tuple(f.shape[2:]) for f in features] == [(64 // 2**n, 96 // 2**n) for n in range(6)]
    widths = tuple(f.shape[1] for f in features)
    assert widths == network.config.widths == tuple(level.width for level in network.config.levels)
    assert network.config.multiple == (32, 32)
    # the decoder is as wide as what is beside it
    assert [row[-1].conv.out_channels for row in network.decoder] == list(widths[:-1])
    assert network.config.blocks(6) == (2, *(len(list(stage)) for stage in list(network.encoder.stages)[1:]))


def test_volumes_are_halved_along_every_axis() -> None:
    config = UNetConfig(encoder="mobilenet_v2", norm="group")
    assert config.strides == ((1, 1, 1),) + ((2, 2, 2),) * 5
    network = build_network(config, in_channels=2, classes=3, patch=(32, 32, 32))
    outputs = network(image(30, 32, 17, batch=1, channels=2))
    assert [tuple(o.shape) for o in outputs] == [(1, 3, 30, 32, 17), (1, 3, 15, 16, 9), (1, 3, 8, 8, 5),
                                                 (1, 3, 4, 4, 3), (1, 3, 2, 2, 2)]  # fmt: skip
    sum(output.square().mean() for output in outputs).backward()
    assert all(parameter.grad.any() for parameter in network.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_each_field_still_changes_what_comes_out(kind: str) -> None:
    x, base = image(64, 64), network_of(kind)
    for fields in ({"norm": "instance"}, {"norm": "none"}, {"activation": "relu"}, {"skip_attention": "scse"}):
        other = network_of(kind, **fields)
        own = other.state_dict()
        shared = {name: t for name, t in base.state_dict().items() if name in own and own[name].shape == t.shape}
        other.load_state_dict(shared, strict=False)
        with torch.no_grad():
            assert not torch.allclose(base(x)[0], other(x)[0], atol=1e-3), fields
    dropped, without = network_of(kind, dropout=0.5).eval(), network_of(kind).eval()
    drops = [m for m in dropped.modules() if isinstance(m, nn.Dropout2d)]
    assert len(drops) == 6 + (5 if kind == "unet" else 15)
    with torch.no_grad():
        assert torch.equal(dropped(x)[0], without(x)[0])
        dropped.train()
        assert not torch.equal(dropped(x)[0], dropped(x)[0])


def test_batches_are_normalised_unless_something_else_is_said() -> None:
    assert config_of().norm == "batch"
    assert config_of(norm="instance").norm == "instance"
    assert UNetConfig().norm == UNetPlusPlusConfig().norm == "instance"
    norms = {type(m) for m in network_of(norm="group").modules() if "Norm" in type(m).__name__}
    assert norms == {GroupNorm}
    assert {type(m) for m in network_of().modules() if "Norm" in type(m).__name__} == {nn.BatchNorm2d}
    assert all(m.bias is not None for m in network_of(norm="none").encoder.modules() if isinstance(m, nn.Conv2d))


def test_activations_of_the_encoder_are_the_papers() -> None:
    mobile, efficient = network_of(activation="relu"), network_of(encoder="efficientnet_b0", activation="relu")
    assert mobile.encoder.stem.form.activation == "relu6"
    assert efficient.encoder.stem.form.activation == "silu"
    assert {row.form.activation for stage in mobile.decoder for row in stage} == {"relu"}
    with torch.no_grad():
        assert mobile.encoder.stem(100 * image(64, 64)).max() <= 6
        assert efficient.encoder.stem(image(64, 64)).min() == pytest.approx(-0.2785, abs=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"widths": (8, 16, 32)}, r"widths = \[8, 16, 32\].*\[16, 16, 24, 32, 96, 320\]: leave widths out"),
        ({"strides": ((1, 1), (2, 2))}, "leave strides out"),
        ({"kernels": ((3, 3),) * 6}, "sizes of its own: leave kernels out"),
        ({"down": "max"}, "leave down out"),
        ({"encoder_blocks": (2,) * 6}, "leave encoder_blocks out"),
        ({"encoder": "efficientnet_b7"}, "efficientnet_b3"),
    ],
)
def test_what_contradicts_the_encoder_is_refused(kind: str, fields: dict[str, object], told: str) -> None:
    if "encoder_blocks" in fields and kind == "unet_plus_plus":
        told = "Extra inputs"
    with pytest.raises(pydantic.ValidationError, match=told):
        config_of(kind, **fields)


def test_other_networks_have_no_light_encoder() -> None:
    with pytest.raises(pydantic.ValidationError, match="'plain' or 'residual'"):
        config_of("wide_unet")
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        config_of("attention_unet")


@pytest.mark.parametrize("kind", KINDS)
def test_what_follows_is_kept_in_files_and_follows_the_axes(kind: str) -> None:
    config = NETWORKS[kind].config.model_validate({"encoder": "efficientnet_b2"})
    again = type(config).model_validate_json(config.model_dump_json())
    assert again == config
    assert again.model_dump()["widths"] == (16, 16, 24, 48, 120, 352)
    flat = type(config).model_validate({**config.model_dump(exclude_unset=True), "spatial_dims": 2})
    assert flat.strides == ((1, 1),) + ((2, 2),) * 5


@pytest.mark.parametrize("prune", [1, 2, 4, 5])
def test_a_pruned_light_network_is_the_whole_ones_head_bit_by_bit(prune: int) -> None:
    whole = network_of("unet_plus_plus", heads="fast").eval()
    pruned = network_of("unet_plus_plus", heads="fast", prune=prune, seed=1).eval()
    load_unpruned(pruned, whole.state_dict())
    assert len(pruned.encoder.stages) == prune + 1
    for x in (image(64, 64), image(50, 33)):
        with torch.no_grad():
            by_head = dict(zip((5, 4, 3, 2, 1), whole(x), strict=True))
            outputs = pruned(x)
        assert len(outputs) == prune
        assert all(torch.equal(o, by_head[j]) for j, o in zip(range(prune, 0, -1), outputs, strict=True))


def test_there_are_five_levels_to_prune() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"prune = 6, but 6 widths make 5"):
        config_of("unet_plus_plus", prune=6)
    with pytest.raises(pydantic.ValidationError, match=r"prune\n  Input should be less than 8"):
        config_of("unet_plus_plus", prune=9)


def test_a_single_voxel_is_told_with_what_can_be_changed() -> None:
    with pytest.raises(GeometryError, match=r"larger patch, network\.encoder = 'plain', or network\.norm = 'group'"):
        build_network(config_of(norm="instance"), in_channels=1, classes=2, patch=(32, 32))


def test_weights_are_drawn_for_the_values_that_a_channel_sees() -> None:
    """He's normal weights: of a depthwise convolution each output sees one channel."""
    network = network_of(norm="none")
    for module in network.encoder.modules():
        if isinstance(module, nn.Conv2d) and module.weight.numel() > 4000:
            seen = module.in_channels // module.groups * math.prod(module.kernel_size)
            assert module.weight.std().item() == pytest.approx(math.sqrt(2 / seen), rel=0.07)
