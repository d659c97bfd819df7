"""The list of convolutions that a plan reckons with is that of the networks that are built."""

import json
import math
import subprocess
import sys
from functools import cache
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from typer.testing import CliRunner

from neoseg.cli.app import app
from neoseg.networks import facts
from neoseg.networks.build import build_network
from neoseg.networks.configs import LIGHT_ENCODERS, NETWORKS
from neoseg.networks.facts import network_facts
from neoseg.networks.layers import Conv, conv_layers

LEVELS = {"widths": (6, 8, 12), "strides": ((1, 1, 1), (2, 2, 1), (3, 2, 2))}
KERNELS = {"kernels": ((3, 3, 1), (5, 3, 3), (1, 3, 3))}
FLAT = {"spatial_dims": 2, "strides": ((1, 1), (2, 2), (2, 1))}
OWN = {"widths": None, "strides": None}
NETS = [
    *((name, {}) for name in ("unet", "wide_unet", "unet_plus_plus", "attention_unet")),
    ("unet", {"encoder": "residual", "widths": (6, 8, 8), **KERNELS}),
    ("unet", {"encoder": "residual", "encoder_blocks": (2, 1, 3), "decoder_blocks": 3}),
    ("unet", {"encoder_blocks": (3, 1, 2), "down": "max", "deep_supervision": False, "skip_attention": "scse"}),
    ("wide_unet", {**FLAT, "norm": "none"}),
    ("wide_unet", {"widths": (35, 70, 140), "up_channels": "unet"}),
    ("unet_plus_plus", {"prune": 1, "skip_attention": "scse", **KERNELS}),
    ("unet_plus_plus", {"deep_supervision": False, **FLAT}),
    ("attention_unet", {"gate_width": 0.3, "skip_attention": "scse", **KERNELS}),
    ("attention_unet", {**FLAT, "deep_supervision": False}),
    ("unet", {**OWN, "encoder": "mobilenet_v2"}),
    ("unet", {**OWN, "encoder": "efficientnet_b1", "spatial_dims": 2, "decoder_blocks": 1, "skip_attention": "scse"}),
    ("unet_plus_plus", {**OWN, "encoder": "efficientnet_b0", "spatial_dims": 2}),
    ("unet_plus_plus", {**OWN, "encoder": "mobilenet_v2", "spatial_dims": 2, "prune": 2}),
]


@pytest.mark.parametrize(("kind", "fields"), NETS)
def test_layers_are_those_of_the_built_network(kind: str, fields: dict[str, object]) -> None:
    config = NETWORKS[kind].config.model_validate({**LEVELS, **fields})
    patch = ((32, 32, 32) if config.multiple[0] == 32 else (24, 16, 8))[: config.spatial_dims]
    network = build_network(config, in_channels=2, classes=3, patch=patch).eval()
    convs = (torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d)
    made = []
    for module in network.modules():
        if isinstance(module, convs):
            module.register_forward_hook(lambda m, _, out: made.append((m.weight.numel(), out[0].numel())))
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network(torch.zeros(2, 2, *patch))  # of a single one some go to oneDNN past the hooks and the counter
    layers, voxels = conv_layers(config, 2, 3), math.prod(patch)
    ours = sorted((conv.weights, round(conv.values * voxels)) for conv in layers)
    assert ours == sorted(made)
    counted = counter.get_flop_counts()["Global"]
    operations = sum(n for operator, n in counted.items() if "convolution" in str(operator))
    assert operations
    assert sum(conv.macs for conv in layers) * voxels == pytest.approx(operations / 4, rel=1e-9)
    assert sum(c.inputs * c.outputs * c.kernel * c.share for c in layers) * voxels == pytest.approx(operations / 4)


def test_a_layer_by_hand() -> None:
    config = NETWORKS["unet"].config.model_validate({"widths": (4, 8), "strides": ((1, 1, 1), (2, 2, 1))})
    assert conv_layers(config, 1, 2) == [
        Conv(1, 4, 27, 1.0),
        Conv(4, 4, 27, 1.0),
        Conv(4, 8, 27, 0.25),
        Conv(8, 8, 27, 0.25),
        Conv(8, 16, 1, 0.25),
        Conv(8, 4, 27, 1.0),
        Conv(4, 4, 27, 1.0),
        Conv(4, 2, 1, 1.0),
    ]


def test_layers_load_no_torch() -> None:
    code = "import neoseg.networks.layers, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_of_the_u_shaped_networks() -> None:
    facts = network_facts("unet")
    light = {f"2-D, {name}" for name in LIGHT_ENCODERS}
    assert set(facts) == {"3-D", "2-D", "3-D, residual", "2-D, as printed"} | light
    assert light <= set(network_facts("unet_plus_plus"))
    # The encoder's 3.60 M (with one channel in, 576 fewer), and what the decoder and full resolution add.
    assert facts["2-D, efficientnet_b0"]["parameters"] == pytest.approx(4.18e6, rel=0.01)
    assert facts["2-D, efficientnet_b0"]["gmacs_here"] < facts["2-D"]["gmacs_here"] / 8
    plain = facts["3-D"]
    assert plain["patch"] == "1x128x128x128"
    # What nnU-Net's plain and residual networks have for such patches, but for biases in front of normalisations.
    assert plain["parameters"] == pytest.approx(31.2e6, rel=0.01)
    assert facts["3-D, residual"]["parameters"] == pytest.approx(102.4e6, rel=0.01)


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_has_a_size_to_show(kind: str) -> None:
    entry = next(iter(network_facts(kind, 1).values()))
    assert entry["parameters"] > 5e6
    assert entry["gmacs_here"] > 40


@pytest.mark.parametrize("kind", NETWORKS)
def test_every_network_is_shown_for_volumes_and_for_planes(kind: str) -> None:
    axes = [facts["patch"].count("x") for facts in network_facts(kind, 2).values()]
    assert axes == [3, 2]


def test_the_list_of_networks_has_title_paper_dimensions_parameters_and_arithmetic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # each network is counted once
    monkeypatch.setattr(facts, "network_facts", lambda kind, most=None: dict(islice(facts_of(kind).items(), most)))
    printed = CliRunner().invoke(app, ["info", "--networks", "-q"])
    listed = CliRunner().invoke(app, ["info", "--networks", "-q", "--json"])
    assert printed.exit_code == listed.exit_code == 0
    table = json.loads(listed.output)
    lines = [" ".join(line.split()) for line in printed.output.splitlines()]
    for kind, entry in NETWORKS.items():
        assert (table[kind]["title"], table[kind]["paper"]) == (entry.title, entry.paper)
        assert f"{kind} {entry.title}: {entry.paper}" in lines
        shown = [line for line in lines if line.startswith(f"{kind}, ")]
        for (name, form), line in zip(list(table[kind]["forms"].items())[:2], shown, strict=True):
            assert form == facts_of(kind)[name]
            told = f"{form['parameters']:,} parameters", f"{form['gmacs_here']:,.1f} G ", f"patch {form['patch']}: "
            assert all(part in line for part in told), line


FIRST = {"`unetr_pp`": "synapse"}
"""Of a row of the page the form that it shows, where that is not the one for volumes."""

facts_of = cache(network_facts)


def test_the_page_on_networks_has_the_sizes_that_they_have() -> None:
    page = (Path(__file__).parents[1] / "docs" / "explanation" / "networks.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in page.splitlines() if line[:3] == "| `"]
    sized = [row for row in rows if len(row) == 6 and " × " in row[2]]
    assert {row[0].split("`")[1] for row in sized} == set(NETWORKS)
    for kind, _, patch, parameters, arithmetic, _ in sized:
        own = facts_of(kind.split("`")[1])["3-D, residual" if "residual" in kind else FIRST.get(kind, "3-D")]
        assert own["patch"].split("x")[1:] == patch.split(" × ")
        assert float(parameters.removesuffix(" M")) == pytest.approx(own["parameters"] / 1e6, abs=0.06)
        assert float(arithmetic.removesuffix(" G")) == pytest.approx(own["gmacs_here"], rel=0.004)
    light = [row for row in rows if len(row) == 5 and row[0].strip("`") in ("plain", *LIGHT_ENCODERS)]
    assert len(light) == 1 + len(LIGHT_ENCODERS)
    for encoder, *sizes in light:
        form = "2-D" if encoder == "`plain`" else f"2-D, {encoder.strip('`')}"
        for kind, parameters, arithmetic in (("unet", *sizes[:2]), ("unet_plus_plus", *sizes[2:])):
            own = facts_of(kind)[form]
            assert float(parameters.removesuffix(" M")) == pytest.approx(own["parameters"] / 1e6, abs=0.006)
            # the page has 256 x 256 pixels, the facts 512 x 512
            assert float(arithmetic.removesuffix(" G")) == pytest.approx(own["gmacs_here"] / 4, rel=0.003)
