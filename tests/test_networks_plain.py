"""UNETR++ against a plain transcription of the published code, whole, small, and for all four variants."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.networks.weights import load_published
from test_networks_unetr_pp_reference import close, load, noise, value

REFERENCES = Path(__file__).parent / "references"
SMALL = {"dims": (8, 16, 32, 64), "depths": (1, 1, 1, 1), "proj": (6, 6, 6, 3), "decoder_proj": 6, "feature_size": 4}


def the_plain_form() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "plain_unetr_pp.py"
    spec = importlib.util.spec_from_file_location("plain_unetr_pp", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["plain_unetr_pp"] = module
    spec.loader.exec_module(module)
    return module


PLAIN = the_plain_form()


@pytest.mark.parametrize("variant", PUBLISHED)
def test_the_plain_form_has_the_authors_names(variant: str) -> None:
    rows = [line.split("\t") for line in (REFERENCES / f"unetrpp_{variant}_keys.txt").read_text().splitlines()]
    with torch.device("meta"):
        state = PLAIN.PlainUnetrPP(PLAIN.VARIANTS[variant]).state_dict()
    assert {name: str(tuple(tensor.shape)) for name, tensor in state.items()} == {
        name: shape for name, shape, *_ in rows
    }


@pytest.mark.parametrize("variant", PUBLISHED)
def test_its_blocks_equal_the_authors(variant: str) -> None:
    expected, form = load("unit"), PLAIN.VARIANTS[variant]._replace(dropout=0.0)
    attention, block = PLAIN.Attention(60, 16, 6, form), PLAIN.Block((3, 4, 5), 16, 6, form)
    for module in (attention, block):
        state = {name: value(name, tuple(tensor.shape)) for name, tensor in module.state_dict().items()}
        shared = {
            name: state[name.replace("F.", "E.")] for name in state if form.projection == "shared" and "F." in name
        }
        module.load_state_dict(state | shared)
        module.double().eval()
    close(attention(torch.from_numpy(noise("unit.epa.x", 1920)).reshape(2, 60, 16)), expected[f"{variant}.epa.y"])
    x = torch.from_numpy(noise("unit.block.x", 1920)).reshape(2, 16, 3, 4, 5).requires_grad_()
    y = block(x)
    y.backward(torch.from_numpy(noise("unit.block.g", 1920)).reshape(2, 16, 3, 4, 5))
    close(y, expected[f"{variant}.block.y"])
    close(x.grad, expected[f"{variant}.block.dx"])


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("variant", PUBLISHED)
def test_whole_networks_agree(variant: str, training: bool) -> None:
    preset = PUBLISHED[variant]
    patch = tuple((16 if axis == 2 else 8) * step for axis, step in enumerate(preset.config.stem))
    form = PLAIN.VARIANTS[variant]._replace(
        patch=patch, dims=SMALL["dims"], depth=1, slots=SMALL["proj"], decoder_slots=6, features=4, dropout=0.0
    )
    torch.manual_seed(1)
    plain = PLAIN.PlainUnetrPP(form).double().train(training)
    for name, tensor in plain.state_dict().items():
        if name.endswith(("gamma", "pos_embed", "temperature", "temperature2", "running_var")):
            tensor.uniform_(0.5, 1.5)
    config = UnetrPPConfig.model_validate(
        {**preset.config.model_dump(), **SMALL, "attention_dropout": 0.0, "conv_dropout": 0.0}
    )
    ours = UnetrPP(config, in_channels=preset.in_channels, classes=preset.classes, patch=patch).double().train(training)
    load_published(ours, plain.state_dict())
    for module in plain.modules():
        if isinstance(module, torch.nn.Dropout3d):
            module.p = 0.0
    x = torch.randn(2, preset.in_channels, *patch, dtype=torch.float64)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    theirs, found = plain(one), ours(two)
    for a, b in zip(theirs, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-10)
    sum(out.square().mean() for out in theirs).backward()
    sum(out.square().mean() for out in found).backward()
    torch.testing.assert_close(two.grad, one.grad, rtol=1e-8, atol=1e-9 * float(one.grad.abs().max()))
    if training:
        again = ours.state_dict()
        assert torch.equal(again["encoder.0.0.convs.0.norm1.num_batches_tracked"], torch.tensor(1))
        torch.testing.assert_close(
            again["encoder.0.0.convs.0.norm1.running_var"],
            plain.state_dict()["unetr_pp_encoder.stages.0.0.conv51.norm1.running_var"],
        )
