"""What a lesion label loses on its way into the network's space and back, with no network in between.

A label of a made-up head goes to the template's grid as training labels do, comes back as a probability would, and is
compared with itself: lesion by lesion, by their size, by the thickness of the slices, by the template's spacing, with
the affine map alone and with the deformation. Two ways back: "hard" restores the classes that a network is taught,
"soft" restores the interpolated shares themselves, the best that probabilities on this grid could do. "native" is the
scan's own space at the spacing that the demo's plan has. Every lesion is its own (26 neighbours); a voxel that comes
back counts for the nearest lesion.

    OMP_NUM_THREADS=1 python benchmarks/label_loss.py        writes benchmarks/results/label_loss.json
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from machine import machine
from neoseg.atlas.build import build_atlas
from neoseg.atlas.configs import AtlasConfig
from neoseg.atomic import write_json
from neoseg.data.foreground import bounding_box, foreground_mask
from neoseg.inference.restore import restore
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.geometry import draw_grid
from neoseg.phantom.head import Head, make_head
from neoseg.prepare.configs import PrepareConfig
from neoseg.prepare.standardise import Registration, Space, Template, register_to
from neoseg.register.transforms import sample
from neoseg.volume import Grid, Volume, upright

RESULT = Path(__file__).parent / "results" / "label_loss.json"
HEALTHY, THICKNESS, BURDENS = 8, (2.0, 3.0, 4.0), (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0)
PLANNED = (1.375, 1.375, 2.65)
SPACINGS = ((1.0, 1.0, 1.0), (1.5, 1.5, 1.5), (2.0, 2.0, 2.0), PLANNED)
BINS_MM3 = (0, 50, 200, 1000, 5000, float("inf"))


def head(seed: int, thick: float | None = None, burden: float | None = None) -> Head:
    def grid(generator: np.random.Generator, height_mm: float) -> Grid:
        drawn = draw_grid(generator, height_mm)
        if thick is None:
            return drawn
        shape = (*drawn.shape[:2], int(np.ceil((height_mm + 3) / thick)))
        affine = drawn.affine.copy()
        affine[:3, 2] *= thick / drawn.spacing[2]
        affine[:3, 3] = drawn.centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return Grid(shape, affine)

    with patch("neoseg.phantom.head.draw_grid", grid):
        return make_head(np.random.default_rng(seed), HeadConfig(), lesion_burden=burden)


def template() -> Template:
    scans = [head(100 + seed).adc for seed in range(HEALTHY)]
    return Template.of_atlas(build_atlas([Volume(s.array, upright(s.grid)) for s in scans], AtlasConfig()))


def near(space: Space, label: Volume) -> Space:
    """The part of the network's grid around the label: the rest holds no lesion and costs time."""
    points = label.grid.to_world(np.argwhere(label.array[0]))
    index = space.grid.to_index(points if space.transform is None else space.transform.points(points))
    low = np.maximum(np.floor(index.min(axis=0)) - 4, 0).astype(int)
    high = np.minimum(np.ceil(index.max(axis=0)) + 5, space.grid.shape).astype(int)
    return Space(space.grid.cropped(tuple(map(int, low)), tuple(map(int, high - low))), space.transform)


def there_and_back(space: Space, label: Volume) -> dict[str, NDArray[np.bool_]]:
    hard = space.label(label).astype(np.float32)
    share = label.with_array(label.array.astype(np.float32))
    soft = sample(share, space.points)[0].reshape(space.grid.shape)
    return {
        name: restore(np.stack([1 - p, p]), space.grid, label.grid, space.transform)[1] >= 0.5
        for name, p in (("hard", hard), ("soft", soft))
    }


def lesion_scores(label: Volume, back: NDArray[np.bool_]) -> Iterator[tuple[float, float]]:
    """(size in mm3, Dice) of each lesion."""
    parts = cc3d.connected_components(label.array[0], connectivity=26)
    nearest = ndimage.distance_transform_edt(parts == 0, label.spacing, return_distances=False, return_indices=True)
    owner = parts[tuple(nearest)]
    count = int(parts.max()) + 1
    sizes = np.bincount(parts.ravel(), minlength=count)
    found = np.bincount(owner[back], minlength=count)
    hits = np.bincount(parts[back], minlength=count)
    for i in range(1, count):
        yield float(sizes[i] * label.grid.voxel_volume), 2 * hits[i] / (sizes[i] + found[i])


def spaces_of(scan: Grid, goal: Template, found: Registration) -> Iterator[tuple[str, tuple[float, ...], Space]]:
    yield "native", PLANNED, Space(scan.with_spacing(PLANNED))
    for spacing in SPACINGS:
        yield "template, affine", spacing, Space(goal.grid(spacing), found.affine)
        yield "template, affine + ffd", spacing, Space(goal.grid(spacing), found.transform)


def measure(goal: Template, seed: int, thick: float, burden: float) -> list[dict[str, Any]]:
    made = head(seed, thick, burden)
    grid = upright(made.adc.grid)
    adc = Volume(made.adc.array, grid)
    mask = foreground_mask(adc.array)
    found = register_to(goal, adc, mask, PrepareConfig(space="template"))
    start, shape = bounding_box(mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    label = Volume(made.label.array[(slice(None), *box)], grid.cropped(start, shape))
    rows = []
    for name, spacing, space in spaces_of(label.grid, goal, found):
        for way, back in there_and_back(near(space, label), label).items():
            truth = label.array[0] > 0
            rows.append(
                {
                    "space": name,
                    "spacing_mm": spacing,
                    "slices_mm": thick,
                    "way": way,
                    "case_dice": 2 * float((truth & back).sum()) / float(truth.sum() + back.sum()),
                    "lesions": list(lesion_scores(label, back)),
                    "refused": bool(found.warnings),
                }
            )
    return rows


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    result = []
    keys = sorted({(r["space"], r["spacing_mm"], r["slices_mm"], r["way"]) for r in rows})
    for space, spacing, thick, way in keys:
        mine = [
            r for r in rows if (r["space"], r["spacing_mm"], r["slices_mm"], r["way"]) == (space, spacing, thick, way)
        ]
        lesions = np.array([pair for r in mine for pair in r["lesions"]])
        bins = []
        for low, high in pairwise(BINS_MM3):
            inside = lesions[(lesions[:, 0] >= low) & (lesions[:, 0] < high), 1]
            if len(inside):
                bins.append(
                    {
                        "mm3": [low, None if np.isinf(high) else high],
                        "lesions": len(inside),
                        "dice": round(float(inside.mean()), 4),
                        "vanished": int((inside == 0).sum()),
                    }
                )
        result.append(
            {
                "space": space,
                "spacing_mm": spacing,
                "slices_mm": thick,
                "way": way,
                "cases": len(mine),
                "case_dice": round(float(np.mean([r["case_dice"] for r in mine])), 4),
                "case_dice_least": round(float(np.min([r["case_dice"] for r in mine])), 4),
                "by_size": bins,
            }
        )
    return result


def main() -> None:
    start = time.process_time()
    goal = template()
    rows = []
    for thick in THICKNESS:
        for number, burden in enumerate(BURDENS):
            rows += measure(goal, 500 + number, thick, burden)
    write_json(
        RESULT,
        {
            "what": __doc__.split("\n\n")[0] + " Dice of the round trip; sizes of lesions in mm3.",
            "machine": machine(),
            "cpu_seconds": round(time.process_time() - start, 1),
            "healthy_heads_of_the_template": HEALTHY,
            "refused_deformations": sum(r["refused"] for r in rows) * len(THICKNESS) * len(BURDENS) // len(rows),
            "table": table(rows),
        },
    )


if __name__ == "__main__":
    main()
