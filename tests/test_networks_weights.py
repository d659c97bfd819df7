"""Weights under the authors' names: what is taken and what is refused."""

import numpy as np
import pytest
import torch

from neoseg.errors import ConfigError, InputError
from neoseg.networks.configs import UnetrPPConfig
from neoseg.networks.unetr_pp import UnetrPP, published
from neoseg.networks.weights import load_published, published_name

FIELDS = {"dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 4), "stem": (2, 2, 2), "feature_size": 8}


def network(**fields: object) -> UnetrPP:
    config = UnetrPPConfig.model_validate({**FIELDS, "norm": "batch", **fields})
    return UnetrPP(config, in_channels=1, classes=2, patch=(16, 16, 16))


def authors(source: UnetrPP) -> dict[str, torch.Tensor]:
    """Return a network's weights as the authors' code stores them, with its second names."""
    weights = {published_name(name): tensor.clone() for name, tensor in source.state_dict().items()}
    twins = {name.replace(".E.", ".F."): weights[name] for name in weights if ".epa_block.E." in name}
    return {**twins, **weights}


@pytest.mark.parametrize("fields", [{}, {"token_projection": "separate", "conv_blocks": 2}, {"fusion": "sum"}])
def test_weights_come_back(fields: dict[str, object]) -> None:
    source, copy = network(**fields), network(**fields)
    load_published(copy, {f"module.{name}": tensor for name, tensor in authors(source).items()})
    assert all(torch.equal(a, b) for a, b in zip(source.state_dict().values(), copy.state_dict().values(), strict=True))


def test_supervised_weights_load_without_supervision() -> None:
    source, single = network(), network(deep_supervision=False)
    load_published(single, authors(source))
    x = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(source.eval()(x)[0], single.eval()(x)[0])


def test_weights_that_are_no_numbers_load() -> None:
    """What a training that went wrong left can be looked at; a shared projection is the same under both names."""
    source, copy = network(), network()
    with torch.no_grad():
        source.encoder[0][0].attention.project_keys.weight.fill_(torch.nan)
    load_published(copy, authors(source))
    assert copy.encoder[0][0].attention.project_keys.weight.isnan().all()


def test_a_single_output_drops_the_weights_of_supervision_alone() -> None:
    with pytest.raises(InputError, match=r"out2\.nonsense"):
        load_published(network(deep_supervision=False), {**authors(network()), "out2.nonsense": torch.ones(1)})


def test_wrong_weights_change_nothing() -> None:
    target = network()
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    weights = authors(network())
    block = "unetr_pp_encoder.stages.0.0"
    wrong = {
        "first 'out1.conv.conv.bias'": {name: t for name, t in weights.items() if name != "out1.conv.conv.bias"},
        "no place": {**weights, "decoder9.weight": torch.zeros(1)},
        "shape": {**weights, f"{block}.pos_embed": torch.zeros(1, 1, 8)},
        "separate": {**weights, f"{block}.epa_block.F.bias": torch.ones(8)},
        "first 'unetr_pp_encoder.stages.0.0.epa_block.E.weight'": {
            name: t for name, t in weights.items() if name != f"{block}.epa_block.E.weight"
        },
        "F.other": {**weights, f"{block}.epa_block.F.other": torch.ones(8)},
        "'module.out1.conv.conv.bias' and a weight": {**weights, "module.out1.conv.conv.bias": torch.ones(2)},
        "an entry 'state_dict'": {"epoch": 3, "state_dict": weights},
        "of the type list": [1],
        "'out1.conv.conv.bias' is of the type ndarray": {**weights, "out1.conv.conv.bias": np.ones(2)},
        "not named by a text": {**weights, 3: torch.ones(2)},
        "without values": {**weights, "out1.conv.conv.bias": torch.ones(2, device="meta")},
    }
    for message, given in wrong.items():
        with pytest.raises(InputError, match=message):
            load_published(target, given)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_published_variants_are_named() -> None:
    with pytest.raises(ConfigError, match="did you mean 'synapse'"):
        published("synaps")
    assert len(published("acdc", deep_supervision=False).heads) == 1
    assert published("lung", in_channels=2).in_channels == 2
