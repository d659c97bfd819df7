"""What the recipe for pictures should be: cross-validation over nuclei that the equal-time table never scores.

Each variant is the recipe with a U-Net and some changes, trained for each of three folds for the same time on one
thread; each picture gets a threshold and a smallest object that were chosen on the other folds. Windows are those of
the patch; "whole" has every picture in one window, "mirrored" averages over flips along both axes. Rows that differ in
prediction alone share their networks. Intersection over union is a mean over pictures, differences are to the first row
over the same pictures, with 95 % bootstrap intervals.

    python benchmarks/picture_recipe.py SOURCE FOLDER [--minutes 5] [--only NAME ...]

SOURCE: the folder of the nuclei. Run two at a time with different --only and --result to use two cores; a second call
with all of them trains nothing anew. Writes benchmarks/results/picture_recipe.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from equal_time import DATASETS, as_iou, kinds_of
from machine import machine
from neoseg.atomic import write_json
from neoseg.cli.console import RichProgress
from neoseg.config import load_config
from neoseg.data.cases import read_cases, write_cases
from neoseg.data.layouts.imported import ImportOptions
from neoseg.pipeline.evaluate import NETWORK, read_rows
from neoseg.pipeline.import_data import import_folder
from neoseg.pipeline.run import run
from neoseg.pipeline.session import open_session
from neoseg.report.summary import paired_difference

RESULT = Path(__file__).parent / "results" / "picture_recipe.json"

COLOUR = "augment.colour_probability=0.5"
TRAININGS: dict[str, tuple[str, ...]] = {
    "before": ('network={kind="unet"}', "augment.colour_probability=0"),
    "values": (
        'network={kind="unet"}',
        "augment.colour_probability=0",
        "augment.brightness_probability=0.5",
        "augment.brightness_range=[0.6, 1.5]",
        "augment.contrast_probability=0.5",
        "augment.contrast_range=[0.6, 1.5]",
        "augment.gamma_probability=0.5",
        "augment.gamma_range=[0.6, 1.8]",
    ),
    "batch_norm": ('network={kind="unet", norm="batch"}', "augment.colour_probability=0"),
    "colour": ('network={kind="unet"}', COLOUR),
    "colour_zoom": (
        'network={kind="unet"}',
        COLOUR,
        "augment.scaling_probability=0.8",
        "augment.scaling_range=[0.5, 2.0]",
    ),
    "unetr_pp": (
        'network={kind="unetr_pp", layer_scale_init=0.1, norm="instance", full_norm="instance", size="flex"}',
        COLOUR,
    ),
}
WINDOWS = ("window.whole=false", "window.mirror_axes=[]")
WHOLE = ("window.whole=true", "window.mirror_axes=[]")
MIRRORED = ("window.whole=true", "window.mirror_axes=[0, 1]")
ROWS: dict[str, tuple[str, tuple[str, ...]]] = {
    "windows": ("before", WINDOWS),
    "whole": ("before", WHOLE),
    "whole, mirrored": ("before", MIRRORED),
    "whole, mirrored, stronger brightness, contrast and gamma": ("values", MIRRORED),
    "whole, mirrored, batch norm": ("batch_norm", MIRRORED),
    "whole, mirrored, colour": ("colour", MIRRORED),
    "whole, mirrored, colour, zoom 0.5 to 2": ("colour_zoom", MIRRORED),
    "whole, mirrored, colour, UNETR++": ("unetr_pp", MIRRORED),
}


def imported(source: Path, work: Path) -> Path:
    """Import the pictures that the equal-time table trains with, and return the configuration."""
    about, toml = DATASETS["nuclei"], work / "neoseg.toml"
    if not toml.is_file():
        options = ImportOptions(masks=about.masks)
        import_folder(source, work, about.layout, recipe=about.recipe, options=options, overwrite=True)
        cases = read_cases(work / "cases.csv")
        scored = sorted({case.subject for case in cases})[about.every // 2 :: about.every]
        write_cases([replace(c, split="train") for c in cases if c.subject not in scored], work / "cases.csv")
    return toml


def row_of(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Run one row to its scores, and return the intersection over union of each picture."""
    training, window = ROWS[name]
    toml = imported(given.source, given.folder / training)
    changes = ["jobs=1", "fold_jobs=1", "threads=1", "rules=[]", f"plan.core_minutes={given.minutes + 3}"]
    length = {"time_budget_s": 60 * given.minutes}
    config = load_config(toml, [*changes, *TRAININGS[training], *window], length=length)
    run(config, RichProgress())
    rows = read_rows(open_session(config).run.scores)
    return {r.case: as_iou(r.value) for r in rows if r.metric == "dice" and r.method == NETWORK}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=5.0, help="of training a fold")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--result", type=Path, default=RESULT)
    given = parser.parse_args()
    kinds = kinds_of(given.source)
    table: list[dict[str, Any]] = []
    first: dict[str, float] = {}
    for name in given.only:
        iou = row_of(name, given)
        first = first or iou
        generator = np.random.default_rng(0)
        means = {"all": float(np.mean(list(iou.values())))}
        for kind in sorted(set(kinds.values())):
            means[kind] = float(np.mean([value for case, value in iou.items() if kinds[case] == kind]))
        row: dict[str, Any] = {"name": name, "iou": {kind: round(mean, 4) for kind, mean in means.items()}}
        if iou is not first:
            row["minus_first"] = paired_difference(
                [iou[case] for case in first], [first[case] for case in first], generator
            ).to_json()
        table.append({**row, "iou_of_each": {case: round(value, 4) for case, value in sorted(iou.items())}})
        about = {"what": __doc__, "machine": machine(), "minutes": given.minutes, "pictures": len(iou)}
        write_json(given.result, {**about, "table": table})


if __name__ == "__main__":
    main()
