"""Random rotation and scaling of one batch: ours against MONAI's RandAffined, on the demo's patch, alternating.

Also every transform that is off by default, alone, and the elastic one with the affine.

python benchmarks/augment.py   writes benchmarks/results/augment.json
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.transforms import RandAffined

from machine import machine
from neoseg.atomic import write_json
from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig

RESULT = Path(__file__).parent / "results" / "augment.json"
SHAPE = (2, 2, 80, 64, 32)
OFF_BY_DEFAULT = ("elastic", "anisotropy", "ghosting", "bias_field", "dropped_modality")
OFF = {name: 0.0 for name in AugmentConfig.model_fields if name.endswith("_probability")}


def main() -> None:
    generator = np.random.default_rng(0)
    image = torch.from_numpy(generator.normal(size=SHAPE).astype(np.float32))
    label = torch.from_numpy(generator.integers(0, 2, size=(SHAPE[0], *SHAPE[2:])).astype(np.uint8))
    always = AugmentConfig.model_validate({**OFF, "rotation_probability": 1.0, "scaling_probability": 1.0})
    every_channel = {**OFF, "channel_probability": 1.0}
    alone = {
        name: Augmentation(AugmentConfig.model_validate({**every_channel, f"{name}_probability": 1.0}))
        for name in OFF_BY_DEFAULT
    }
    bent = Augmentation(always.model_copy(update={"elastic_probability": 1.0}))
    ours, full = Augmentation(always), Augmentation(AugmentConfig())
    theirs = RandAffined(
        keys=["image", "label"],
        prob=1.0,
        rotate_range=tuple(np.radians(always.rotation_degrees)),
        scale_range=[(-0.3, 0.4)] * 3,
        mode=["bilinear", "nearest"],
        padding_mode="zeros",
    )

    def monai_batch() -> None:
        for one, mask in zip(image, label, strict=True):
            theirs({"image": one, "label": mask[None]})

    calls: dict[str, Callable[[], object]] = {
        "affine_ours": lambda: ours(image, label, generator, spacing_mm=(1.4, 1.4, 2.6)),
        "affine_monai": monai_batch,
        "affine_and_elastic_ours": lambda: bent(image, label, generator, spacing_mm=(1.4, 1.4, 2.6)),
        "everything_by_default_ours": lambda: full(image, label, generator, spacing_mm=(1.4, 1.4, 2.6)),
    }
    for name, one in alone.items():
        calls[f"{name}_ours"] = partial(one, image, label, generator, spacing_mm=(1.4, 1.4, 2.6))
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for round_number in range(45):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if round_number >= 5:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: round(1000 * statistics.median(values), 2) for name, values in seconds.items()}
    means = {name: round(1000 * statistics.fmean(values), 2) for name, values in seconds.items()}
    write_json(
        RESULT,
        {
            "what": f"milliseconds a batch of shape {SHAPE}, image and label; what is named always happens; 40 rounds",
            "machine": machine(),
            "median_ms": medians,
            "mean_ms": means,
            "affine_ours_over_monai": round(medians["affine_ours"] / medians["affine_monai"], 3),
        },
    )


if __name__ == "__main__":
    main()
