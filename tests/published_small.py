"""The four published variants of UNETR++, shrunk, and files with their weights as the authors' code saves them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from neoseg.networks import configs, published_file
from neoseg.networks.configs import PUBLISHED, UnetrPPConfig
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.networks.weights import published_state

__all__ = ["FIELDS", "SMALL", "checkpoint", "network_like", "small_presets"]

FIELDS = {"dims": (8, 16, 32), "depths": (1, 1, 1), "proj": (8, 8, 4), "decoder_proj": 8, "feature_size": 8,
          "layout": "legacy", "norm": "batch", "full_norm": "plain_instance"}  # fmt: skip
SMALL = {
    "synapse": ({"stem": (1, 2, 2)}, (8, 16, 16)),
    "acdc": ({"stem": (1, 2, 2), "token_projection": "separate", "conv_blocks": 2}, (4, 24, 24)),
    "tumor": ({"stem": (2, 2, 2), "token_projection": "matrix", "fusion": "sum"}, (16, 16, 16)),
    "lung": ({"stem": (1, 2, 2), "token_projection": "separate", "conv_blocks": 2}, (8, 24, 24)),
}


@pytest.fixture
def small_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The four published variants, shrunk."""
    small = {
        name: PUBLISHED[name]._replace(config=UnetrPPConfig.model_validate({**FIELDS, **fields}), patch=patch)
        for name, (fields, patch) in SMALL.items()
    }
    for module in (configs, published_file, published_file.UnetrPP.__module__, "neoseg.networks.weights"):
        target = module if not isinstance(module, str) else __import__(module, fromlist=["PUBLISHED"])
        monkeypatch.setattr(target, "PUBLISHED", small)


def network_like(name: str, **changes: object) -> UnetrPP:
    fields, patch = SMALL[name]
    torch.manual_seed(0)
    config = UnetrPPConfig.model_validate({**FIELDS, **fields, **changes})
    channels = PUBLISHED[name].in_channels
    network = UnetrPP(config, in_channels=channels, classes=PUBLISHED[name].classes, patch=patch)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


def checkpoint(network: UnetrPP, **more: object) -> dict[str, object]:
    """Return what the authors' code saves: scores as numpy numbers, names as after training on several GPUs."""
    state = {f"module.{name}": tensor for name, tensor in published_state(network).items()}
    return {
        "epoch": 1000, "state_dict": state, "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.01}]},
        "lr_scheduler_state_dict": None, "plot_stuff": ([np.float64(-0.5)], [np.float32(-0.4)], [], [0.3]),
        "best_stuff": (np.float64(0.1), np.float64(0.2), np.int64(3)), **more,
    }  # fmt: skip
