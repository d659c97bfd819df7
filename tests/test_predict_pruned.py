"""Prediction by a part of a UNet++ that was trained whole."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from neoseg.config import load_config
from neoseg.errors import ConfigError
from neoseg.io import read_volume
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.load_run import load_predictor
from neoseg.pipeline.new_scans import PredictOptions, predict_scans
from neoseg.pipeline.run import run
from small_run import called

pytestmark = pytest.mark.slow

BUDGET = ("folds.count=2", "training.steps=2", "training.steps_per_epoch=2", "training.batch_size=2", "rules=[]")


@pytest.fixture(scope="module")
def trained(blobs: Callable[[Path, int, int], None], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of a UNet++ with a head for each level, of one with a single head, and of a U-Net, on the same scans."""
    data = tmp_path_factory.mktemp("data")
    blobs(data, 4, 0)
    folders = {"scans": data / "images"}
    for name, kind in {
        "supervised": '{kind="unet_plus_plus",widths=[8,12,16]}',
        "single": '{kind="unet_plus_plus",widths=[8,12,16],deep_supervision=false}',
        "unet": '{kind="unet",widths=[8,12,16]}',
    }.items():
        work = tmp_path_factory.mktemp(name)
        imported = import_folder(data, work)
        run(load_config(imported.config, (f"network={kind}", *BUDGET, "evaluate.resamples=200")))
        folders[name] = work / "runs" / "default"
    return folders


def test_a_pruned_network_answers_as_the_head_of_the_whole_one(trained: dict[str, Path]) -> None:
    whole, channels = load_predictor(trained["supervised"], "cpu")
    patch = whole.ensemble.plan.patch
    image = torch.randn((1, len(channels), *patch), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        # the mean of the heads first, then the heads, the deepest first
        heads = whole.ensemble.networks[0](image)[:0:-1]
        for level, head in enumerate(heads, start=1):
            pruned, _ = load_predictor(trained["supervised"], "cpu", prune=level)
            network = pruned.ensemble.networks[0]
            (answer,) = network(image)
            assert torch.equal(answer, head)
            sizes = [sum(p.numel() for p in one.parameters()) for one in (network, whole.ensemble.networks[0])]
            assert sizes[0] < sizes[1]


def test_masks_and_probabilities_come_from_the_smaller_network(trained: dict[str, Path], tmp_path: Path) -> None:
    scan, found = trained["scans"] / sorted(p.name for p in trained["scans"].iterdir())[0], {}
    for name, prune in (("whole", None), ("one", 1)):
        options = PredictOptions(prune=prune)
        (done,) = predict_scans(trained["supervised"], scan, tmp_path / name, probabilities=True, options=options)
        assert done.error is None and done.mask is not None
        assert any("pruned to level 1" in warning for warning in done.warnings) == (prune == 1)
        assert ("pruned to level 1" in (tmp_path / name / "predictions.json").read_text()) == (prune == 1)
        (path,) = (tmp_path / name).glob("*_probability_*")
        found[name] = nib.load(path)
    assert np.array_equal(found["whole"].affine, found["one"].affine)
    assert not np.array_equal(found["whole"].get_fdata(), found["one"].get_fdata())
    predictor, channels = load_predictor(trained["supervised"], "cpu", prune=1)
    assert len(predictor.ensemble.networks) == 2
    maps = predictor.predict(read_volume(scan), channels).probabilities
    assert maps is not None
    np.testing.assert_allclose(maps.array[0], found["one"].get_fdata(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "prune", "said"),
    [
        ("supervised", 3, "levels 1 to 2"),
        ("supervised", 0, "levels 1 to 2"),
        ("single", 1, "single head"),
        ("unet", 1, "only unet_plus_plus"),
    ],
)
def test_what_cannot_be_pruned_is_refused_before_anything_is_read(
    trained: dict[str, Path], name: str, prune: int, said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        predict_scans(trained[name], trained["scans"], tmp_path, options=PredictOptions(prune=prune))
    assert not list(tmp_path.iterdir())


def test_the_command_refuses_it_for_the_cases_of_a_run(
    trained: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "predict", trained["supervised"].parents[1], "--prune", "1") == 2
    assert "--prune" in capsys.readouterr().err
