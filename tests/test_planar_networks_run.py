"""Kinds of networks on pictures: planned, trained, scored, and loaded for new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neoseg.config import load_config
from neoseg.pipeline.new_scans import predict_scans
from neoseg.pipeline.run import run
from neoseg.plan.plan import read_plan
from test_planar_run import SIZES, disc, imported, write_discs

pytestmark = pytest.mark.slow

CHANGES = ("folds.count=2", "threads=1", "training.steps=2", "training.steps_per_epoch=2", "training.batch_size=2",
           "evaluate.resamples=100")  # fmt: skip
FIELDS = {
    "unet_plus_plus": 'kind = "unet_plus_plus", widths = [4, 8, 12], deep_supervision = true',
    "attention_unet": 'kind = "attention_unet", widths = [4, 8, 12]',
    "unet, light": 'kind = "unet", encoder = "mobilenet_v2"',
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_network_from_pictures_to_masks(name: str, tmp_path: Path) -> None:
    write_discs(tmp_path / "data", 8, colour=False)
    patch = "plan.patch=[64, 32]" if "light" in name else "plan.patch=[32, 24]"
    summary = run(load_config(imported(tmp_path), (*CHANGES, patch, f"network={{{FIELDS[name]}}}")))
    assert summary["cv"]["dice"]["n"] == 8
    target = tmp_path / "work" / "runs" / "default"
    assert read_plan(target / "plan.json").network.spatial_dims == 2
    (tmp_path / "new").mkdir()
    picture, _ = disc(SIZES[2], np.random.default_rng(9))
    Image.fromarray(picture).save(tmp_path / "new" / "one.png")
    (found,) = predict_scans(target, tmp_path / "new", tmp_path / "out")
    assert found.error is None
    with Image.open(tmp_path / "out" / "one.png") as mask:
        assert mask.size == SIZES[2]
