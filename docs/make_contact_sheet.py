"""Draw every augmentation on a procedural head, row by row: before, and after some draws at its default range.

python docs/make_contact_sheet.py   writes docs/explanation/augmentation.png

The names of the transforms stand in the picture's metadata too, from which a test knows that none is missing.
"""

from __future__ import annotations

import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from neoseg.atomic import replacing
from neoseg.augment.augmentation import AUGMENTATIONS, Augmentation
from neoseg.augment.colour import COLOUR
from neoseg.augment.configs import AugmentConfig
from neoseg.augment.modality import DROPPED_MODALITY
from neoseg.augment.transform import BatchInfo, Parameters
from neoseg.phantom.config import HeadConfig
from neoseg.phantom.head import make_head

PICTURE = Path(__file__).parent / "explanation" / "augmentation.png"
DRAWS = 4
SEED = 290
"""One with which no row shows its picture unchanged, or twice but for a dropped modality, which has two outcomes."""
MANY = 4
"""Of more numbers than this only the largest is told."""
ALWAYS = AugmentConfig.model_validate(
    {name: 1.0 for name in AugmentConfig.model_fields if name.endswith("_probability")} | {"flip_probability": 0.5}
)
"""Every transform happens; a flip along every axis of every sample would show one picture only."""


def phantom() -> tuple[torch.Tensor, torch.Tensor, tuple[float, ...]]:
    """Return a head as a network sees it, ``(2, x, y, z)`` with its label ``(x, y, z)``, and the spacing in mm.

    The channels are the ADC and the same without noise and receive field, upside down, for a second modality.
    """
    head = make_head(np.random.default_rng(7), HeadConfig(), lesion_burden=6.0)
    brain = head.brain.array[0] > 0
    box = tuple(slice(np.flatnonzero(a).min(), np.flatnonzero(a).max() + 1) for a in _sides(brain))
    channels, inside = [head.adc.array[0][box], -head.clean.array[0][box]], brain[box]
    image = np.stack([np.where(inside, (v - v[inside].mean()) / v[inside].std(), 0) for v in channels])
    label = torch.from_numpy(head.label.array[0][box].copy())
    return torch.from_numpy(image.astype(np.float32)), label, head.adc.grid.spacing


def rows() -> dict[str, tuple[torch.Tensor, torch.Tensor, Parameters]]:
    """Return for each transform, by name, the images and labels after :data:`DRAWS` draws, and what was drawn."""
    image, label, spacing = phantom()
    images, labels = image[None].repeat(DRAWS, 1, 1, 1, 1), label[None].repeat(DRAWS, 1, 1, 1)
    result = {}
    for transform in AUGMENTATIONS:
        # one channel is enough, except to do without another or to mix it in
        shown = images if transform in (COLOUR, DROPPED_MODALITY) else images[:, :1]
        info = BatchInfo(DRAWS, shown.shape[1], tuple(label.shape), spacing, 0.0)
        # the name, and not the place in the list, so that a new row leaves the others as they are
        drawn = transform.sample(ALWAYS, np.random.default_rng([SEED, *transform.name.encode()]), info)
        after, moved = Augmentation(ALWAYS).apply(shown, labels, {transform.name: drawn}, info)
        result[transform.name] = (after, moved, drawn)
    return result


def told(drawn: Parameters, sample: int) -> str:
    """Return the parameters of one sample in words."""
    parts = []
    for key, values in drawn.items():
        numbers = np.atleast_1d(values[sample]).ravel()
        if len(numbers) > MANY:
            parts.append(f"{key} up to {np.abs(numbers).max():.2g}")
        elif key != "seed":
            parts.append(f"{key} {' '.join(f'{value:.2g}' for value in numbers)}")
    return textwrap.fill(", ".join(parts), 30)


def main() -> None:
    """Draw the sheet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    image, label, spacing = phantom()
    plane = int(label.sum(dim=(0, 1)).argmax())
    after = rows()
    figure = Figure(figsize=(1.65 * (DRAWS + 1), 2.0 * len(after)), layout="constrained")
    FigureCanvasAgg(figure)
    grid: Any = figure.subplots(len(after), DRAWS + 1)
    for line, (name, (images, labels, drawn)) in zip(grid, after.items(), strict=True):
        words = [told(drawn, sample) for sample in range(DRAWS)]
        cells = [(image[: images.shape[1]], label, f"{name}: before"), *zip(images, labels, words, strict=True)]
        for axes, (values, mask, title) in zip(line, cells, strict=True):
            # several channels side by side
            _draw(axes, np.concatenate(list(values[..., plane].numpy())), mask[..., plane].numpy(), spacing)
            axes.set_title(title, fontsize=6)
    drawing = io.BytesIO()
    figure.savefig(drawing, dpi=80)
    facts = PngImagePlugin.PngInfo()
    facts.add_text("transforms", " ".join(after))
    with replacing(PICTURE) as temporary:
        Image.open(drawing).convert("RGB").quantize(32).save(temporary, pnginfo=facts, optimize=True)


def _draw(axes: Any, values: NDArray[np.float32], mask: NDArray[np.uint8], spacing: tuple[float, ...]) -> None:
    axes.imshow(values.T, cmap="gray", vmin=-3, vmax=3, origin="lower", aspect=spacing[1] / spacing[0])
    if mask.any():
        axes.contour(mask.T, [0.5], colors="tab:red", linewidths=0.8)
    axes.set_axis_off()


def _sides(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """Return the projections of a mask on its axes."""
    return [mask.any(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]


if __name__ == "__main__":
    main()
