"""Every kind of network goes the whole way: planned, trained, predicted with, scored, and loaded for new scans."""

from __future__ import annotations

from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neoseg.config import load_config
from neoseg.networks.configs import NETWORKS
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.run import run
from neoseg.pipeline.transfer import CLASS_PARTS, IMAGE_PARTS
from neoseg.plan.plan import read_plan
from test_networks_contract import LIGHT, build, small

pytestmark = pytest.mark.slow

FIELDS: dict[str, dict[str, Any]] = {
    "unetr_pp": {"dims": [8, 16, 32], "depths": [1, 1, 1], "proj": [16, 16, 16], "decoder_proj": 16},
    "unet": {"widths": [8, 16, 24], "encoder": '"residual"'},
    "wide_unet": {"widths": [5, 10, 20]},
    "unet_plus_plus": {"widths": [8, 12, 16]},
    "attention_unet": {"widths": [8, 12, 16], "skip_attention": '"scse"'},
    "unetr": {"hidden": 24, "heads": 2, "mlp": 48, "layers": 4, "feature_size": 4},
    "segresnet": {"width": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "dynunet": {"widths": [8, 16, 24]},
    "mednext": {"width": 8},
    "swin_unetr": {"feature_size": 12, "depths": [1, 2, 1, 1], "window": 4},
    **{name: {"encoder": f'"{fields["encoder"]}"'} for name, fields in LIGHT.items()},
}


def test_every_kind_is_tried() -> None:
    assert set(FIELDS) == {*NETWORKS, *LIGHT}


@pytest.mark.parametrize("kind", FIELDS)
@pytest.mark.parametrize(("more", "parts"), [({"in_channels": 3}, IMAGE_PARTS), ({"classes": 5}, CLASS_PARTS)])
def test_fine_tuning_knows_what_reads_images_and_what_writes_classes(
    kind: str, more: dict[str, int], parts: dict[str, tuple[str, ...]]
) -> None:
    name = kind.split()[0]
    for fields in ({}, {"encoder": "residual"}) if kind == "unet" else ({},):
        config = small(kind, **fields)
        one, other = (build(config, **sizes).state_dict() for sizes in ({}, more))
        changed = {tensor for tensor in one if one[tensor].shape != other[tensor].shape}
        assert changed
        assert all(tensor.startswith(parts[name]) for tensor in changed)


@pytest.mark.parametrize("kind", FIELDS)
def test_a_network_from_files_to_masks(kind: str, blobs: Callable[[Path, int, int], None], tmp_path: Path) -> None:
    name = kind.split()[0]
    blobs(tmp_path / "data", 4, 0)
    imported = import_folder(tmp_path / "data", tmp_path / "work")
    changes = [f"network.{field}={value}" for field, value in ({"kind": f'"{name}"'} | FIELDS[kind]).items()]
    budget = ("folds.count=2", "training.steps=2", "training.steps_per_epoch=2", "training.batch_size=2")
    summary = run(load_config(imported.config, (*changes, *budget, "evaluate.resamples=200")))
    assert summary["cv"]["dice"]["n"] == 4
    folder = tmp_path / "work" / "runs" / "default"
    plan = read_plan(folder / "plan.json")
    assert plan.network.kind == name
    told = unescape((folder / "report.html").read_text())
    assert f"; {NETWORKS[name].title} on " in told
    assert f"{NETWORKS[name].title}</" in told
    assert ("UNETR++" in told) == (kind == "unetr_pp")
    predictor, channels = load_predictor(folder)
    assert predictor.ensemble.plan.network == plan.network
    found = predict_scans(folder, tmp_path / "data" / "images", tmp_path / "out", probabilities=True)
    assert [scan.error for scan in found] == [None] * 4
    assert np.isfinite(list(found[0].volumes_ml.values())).all()
    assert channels
