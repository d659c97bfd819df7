"""CPU seconds of what the forecasts before a stage speak of: the steps of preparation and one window of prediction.

Each step is measured on made-up newborn heads, and on the same heads with voxels 1.5 times as wide along each axis (a
head of adult size); the line through both is what neoseg.pipeline.forecast holds. One core, CPU time of the process.

    OMP_NUM_THREADS=1 python benchmarks/forecast.py
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from machine import machine
from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.atomic import write_json
from neoseg.data.cases import Case
from neoseg.data.foreground import bounding_box, foreground_mask
from neoseg.data.loading import load_images
from neoseg.data.store import CaseStore
from neoseg.inference.sliding_window import predict_probabilities
from neoseg.io import write_volume
from neoseg.networks.build import build_network
from neoseg.networks.configs import UnetrPPConfig
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head
from neoseg.plan.cost import step_core_seconds, step_flops
from neoseg.prepare.atlas import Atlas
from neoseg.prepare.bias_field import BiasFieldConfig, correct_bias_field
from neoseg.prepare.case import physical_maps, prepared_array
from neoseg.prepare.configs import PrepareConfig, PrepareSettings
from neoseg.prepare.zmap import ZmapConfig, zmap_with_coverage
from neoseg.register.affine import register_affine
from neoseg.register.configs import AffineConfig, FfdConfig
from neoseg.register.ffd import register_ffd
from neoseg.targets import Targets
from neoseg.volume import Grid, Volume, upright

RESULT = Path(__file__).parent / "results" / "forecast.json"
GROUP, HEADS, WIDER = 6, 3, 1.5
NETWORKS = {
    "demo": (UnetrPPConfig(dims=(16, 32, 64), depths=(1, 1, 1), proj=(32, 32, 32), decoder_proj=32), (80, 96, 24), 2),
    "published width": (UnetrPPConfig(), (64, 64, 32), 1),
}


def seconds_of(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def head(seed: int, wider: float) -> Volume:
    volume = make_head(np.random.default_rng(seed), HeadConfig()).adc
    grid = upright(volume.grid)
    affine = grid.affine.copy()
    affine[:3] *= wider
    return Volume(volume.array, Grid(grid.shape, affine))


def steps(image: Volume, atlas: Atlas, folder: Path) -> dict[str, float]:
    mask = foreground_mask(image.array)
    found: dict[str, float] = {}
    found["bias_field"], bias = seconds_of(lambda: correct_bias_field(image, mask, BiasFieldConfig()).corrected)
    found["affine"], affine = seconds_of(
        lambda: register_affine(bias, atlas.mean, config=AffineConfig(), fixed_mask=mask, moving_mask=atlas.inside)
    )
    found["ffd"], ffd = seconds_of(
        lambda: register_ffd(bias, atlas.mean, affine.transform, config=FfdConfig(), fixed_mask=mask)
    )
    found["zmap"], _ = seconds_of(lambda: zmap_with_coverage(bias, mask, atlas, ffd.transform, ZmapConfig()))
    found["kept"] = seconds_of(lambda: keep(image, folder))[0]
    return found


def keep(image: Volume, folder: Path) -> None:
    """What is done to a case besides the steps: read, crop, normalise, resample, write."""
    path = folder / "image.mha"
    write_volume(image, path)
    loaded = load_images(Case(case="a", subject="a", images={"adc": path}, units={"adc": "1e-6 mm2/s"}), ["adc"])
    physical = physical_maps(loaded, PrepareConfig(), None, want=("adc",))
    spacing = tuple(float(s) for s in image.grid.spacing)
    settings = PrepareSettings(channels=("adc",), spacing_mm=spacing, rules={"adc": "case"})
    prepared = prepared_array(physical, PrepareConfig(), settings)
    CaseStore(folder).write("a", "", {"image": prepared.image, "physical": physical.image.array}, {})


def litres(image: Volume) -> float:
    _, shape = bounding_box(foreground_mask(image.array))
    return float(np.prod(shape)) * image.grid.voxel_volume / 1e6


def preparation() -> dict[str, Any]:
    rows: list[dict[str, float]] = []
    atlases: dict[float, dict[str, float]] = {}
    for wider in (1.0, WIDER):
        group = [head(seed, wider) for seed in range(GROUP)]
        spent = {}
        for rounds in (0, 1):
            config = AtlasConfig(rounds=rounds, spacing_mm=2.0 * wider)
            spent[rounds], atlas = seconds_of(partial(build_atlas, group, config))
        each = spent[0] / GROUP
        atlases[wider] = {"atlas_head": each, "atlas_round": spent[1] / GROUP - each}
        with TemporaryDirectory() as folder:
            for seed in range(10, 10 + HEADS):
                image = head(seed, wider)
                rows.append({"litres": litres(image), "wider": wider, **steps(image, atlas, Path(folder))})
    means = {
        wider: {key: float(np.mean([r[key] for r in rows if r["wider"] == wider])) for key in rows[0]} | atlases[wider]
        for wider in (1.0, WIDER)
    }
    lines = {}
    for step in ("bias_field", "affine", "ffd", "zmap", "kept", "atlas_head", "atlas_round"):
        slope = (means[WIDER][step] - means[1.0][step]) / (means[WIDER]["litres"] - means[1.0]["litres"])
        lines[step] = {"fixed_s": means[1.0][step] - slope * means[1.0]["litres"], "per_litre_s": slope}
    return {"means": {str(wider): row for wider, row in means.items()}, "lines": lines, "heads": rows}


def windows() -> dict[str, Any]:
    found = {}
    for name, (network, patch, channels) in NETWORKS.items():
        stem = (4, 4, 2)
        network = network.model_copy(update={"stem": stem})
        model = build_network(network, in_channels=channels, classes=2, patch=patch).eval()
        image = np.random.default_rng(0).normal(size=(channels, *patch)).astype(np.float32)

        def once(model: Any = model, image: Any = image, patch: Any = patch) -> Any:
            return predict_probabilities(model, image, patch=patch, targets=Targets.of_classes(2))

        once()
        measured = float(np.mean([seconds_of(once)[0] for _ in range(3)]))
        found[name] = {
            "patch": list(patch),
            "measured_s": measured,
            "a_third_of_a_training_step_s": step_core_seconds(network, patch, channels, 1) / 3,
            "forward_gflop": step_flops(network, patch, channels) / 3e9,
        }
    return found


def main() -> None:
    torch.set_num_threads(1)
    write_json(
        RESULT,
        {
            "what": "CPU seconds on one core, mean of heads; box = bounding box of the brain",
            "machine": machine(),
            "preparation": preparation(),
            "windows": windows(),
        },
    )


if __name__ == "__main__":
    main()
