"""Costs a voxel: what torch counts and what autograd keeps, at other settings than the defaults."""

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from neoseg.errors import ConfigError
from neoseg.networks.adopted import Adopted
from neoseg.networks.configs import NETWORKS, NetworkBase, UnetrConfig, UnetrPPConfig
from neoseg.networks.unetr import Unetr
from neoseg.networks.voxel_costs import macs_a_voxel, values_a_voxel

STRIDES = ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2))
KERNELS = ((3, 3, 1), (3, 3, 3), (3, 3, 3), (5, 3, 3))
TINY = {"hidden": 48, "heads": 4, "mlp": 96, "layers": 4, "feature_size": 8}
SETTINGS: list[tuple[str, tuple[int, ...], dict[str, Any]]] = [
    ("unetr", (32, 32, 16), {"patch_size": (8, 8, 4), **TINY}),
    ("unetr", (32, 32, 32), {"patch_size": (16, 16, 16), **TINY, "hidden": 96, "deep_supervision": True}),
    ("unetr", (64, 64), {"spatial_dims": 2, "patch_size": (16, 16), **TINY, "feature_size": 16}),
    ("segresnet", (32, 16, 16), {"width": 8}),
    ("segresnet", (32, 16, 16), {"width": 16, "upsample": "deconv", "dropout": 0, "blocks_down": (2, 2, 3, 2)}),
    ("dynunet", (32, 16, 16), {"widths": (8, 16, 24, 32), "strides": STRIDES}),
    ("dynunet", (32, 16, 16), {"widths": (8, 8, 16, 24), "strides": STRIDES, "kernels": KERNELS, "residual": True}),
    ("mednext", (32, 32, 32), {"width": 8}),
    ("mednext", (32, 32, 32), {"width": 12, "size": "B", "kernel": 5, "deep_supervision": False}),
    ("mednext", (64, 64), {"width": 8, "size": "M", "spatial_dims": 2}),
    ("swin_unetr", (64, 32, 32), {"feature_size": 12, "window": 3}),
    ("swin_unetr", (32, 32, 64), {"feature_size": 24, "window": 4, "depths": (2, 1, 1, 3), "heads": (2, 6, 12, 24)}),
    ("swin_unetr", (192, 128), {"feature_size": 12, "spatial_dims": 2}),
]


def measured(config: NetworkBase, patch: tuple[int, ...], in_channels: int) -> tuple[float, float]:
    """Return multiply-adds and kept values of each voxel, of a batch of two."""
    network = (Unetr if isinstance(config, UnetrConfig) else Adopted)(
        config, in_channels=in_channels, classes=2, patch=patch
    )
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    x = torch.zeros(2, in_channels, *patch)
    with FlopCounterMode(display=False) as counter, torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = network(x)
    assert outputs
    voxels = 2 * math.prod(patch)
    return counter.get_total_flops() / 2 / voxels, sum(s.nbytes() for s in kept.values()) / 4 / voxels


@pytest.mark.parametrize(("kind", "patch", "fields"), SETTINGS)
def test_costs_are_what_torch_counts(kind: str, patch: tuple[int, ...], fields: dict[str, Any]) -> None:
    config = NETWORKS[kind].config.model_validate(fields)
    macs, values = measured(config, patch, 2)
    assert macs_a_voxel(config, 2, patch) == pytest.approx(macs, rel=0.15 if kind == "mednext" else 0.01)
    assert values_a_voxel(config, patch) == pytest.approx(values, rel=0.1 if kind == "mednext" else 0.03)


@pytest.mark.parametrize("checkpointing", ["full_size", "all"])
@pytest.mark.parametrize(("kind", "patch", "fields"), [row for row in SETTINGS if row[0] in ("unetr", "swin_unetr")])
def test_of_what_is_computed_again_one_part_is_counted(
    kind: str, patch: tuple[int, ...], fields: dict[str, Any], checkpointing: str
) -> None:
    """Autograd's hooks see what is kept, and nothing of the parts, the largest of which is that at full size."""
    config = NETWORKS[kind].config.model_validate({**fields, "checkpointing": checkpointing})
    # tokens of 8 voxels come to full size in three steps, so that a row of the third one is larger: two pairs of twice
    # the width, each with a transposed convolution
    row = fields.get("patch_size") == (8, 8, 4) and checkpointing == "all"
    part = (1 + 1 / 4) * 5 * 2 * config.feature_size if row else 5 * config.feature_size
    assert values_a_voxel(config, patch) == pytest.approx(measured(config, patch, 2)[1] + part, rel=0.06)


def test_arithmetic_of_the_published_widths() -> None:
    """At full width nothing is computed: torch counts on tensors without memory."""
    cases = {
        "unetr": ({"patch_size": (16, 16, 16)}, (96, 96, 96)),
        "segresnet": ({}, (96, 96, 96)),
        "mednext": ({"size": "M", "kernel": 5}, (96, 96, 96)),
        "swin_unetr": ({}, (96, 96, 96)),
    }
    for kind, (fields, patch) in cases.items():
        config = NETWORKS[kind].config.model_validate(fields)
        with torch.device("meta"):
            network = (Unetr if kind == "unetr" else Adopted)(config, in_channels=1, classes=2, patch=patch)
            x = torch.empty(1, 1, *patch)
        with FlopCounterMode(display=False) as counter:
            network(x)
        counted = counter.get_total_flops() / 2 / math.prod(patch)
        assert macs_a_voxel(config, 1, patch) == pytest.approx(counted, rel=0.03 if kind == "mednext" else 0.001), kind


def test_a_swin_unetr_costs_a_voxel_about_the_same_in_every_patch() -> None:
    config = NETWORKS["swin_unetr"].config()
    for cost, near, at_96 in (
        (lambda *patch: macs_a_voxel(config, 1, *patch), 0.025, 0.976),
        (lambda *patch: values_a_voxel(config, *patch), 0.15, 0.872),
    ):
        assert cost((96, 96, 96)) / cost() == pytest.approx(at_96, abs=1e-3)
        for patch in ((64, 32, 32), (96, 64, 32), (128, 128, 128)):
            assert cost(patch) == pytest.approx(cost(), rel=near)


def test_another_network_has_no_costs_here() -> None:
    with pytest.raises(ConfigError, match="'unetr_pp'"):
        macs_a_voxel(UnetrPPConfig(stem=(2, 2, 2)), 1)
    with pytest.raises(ConfigError, match=r"network\.patch_size"):
        values_a_voxel(UnetrConfig())


def test_costs_load_no_torch() -> None:
    code = "import neoseg.networks.voxel_costs, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
