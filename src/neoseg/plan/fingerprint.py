"""Facts of the cases that a plan is made from: spacings, sizes of the foreground, intensities, lesion burden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from ..atomic import read_json, write_json
from ..data.cases import Case
from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import load_images, load_label, unit_of
from ..labels import LabelSet

__all__ = ["CaseFacts", "ChannelFacts", "case_facts", "pooled_statistics", "read_facts", "write_facts"]


class ChannelFacts(BaseModel, frozen=True, extra="forbid"):
    """Foreground intensities of one channel of one case, in the channel's unit."""

    unit: str
    count: int
    mean: float
    sd: float
    low: float
    high: float


class CaseFacts(BaseModel, frozen=True, extra="forbid"):
    """Facts of one case.

    Attributes:
        case: its name.
        shape: voxels along the canonical axes.
        spacing_mm: voxel size.
        foreground_shape: size in voxels of the box around the foreground.
        foreground_ml: volume of the foreground.
        label_ml: volume of each class, in the order of the label set; empty without a label.
        channels: intensities by channel.
        notes: what was recognised or converted while reading.
    """

    case: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    foreground_shape: tuple[int, ...]
    foreground_ml: float
    label_ml: tuple[float, ...]
    channels: dict[str, ChannelFacts]
    notes: tuple[str, ...]

    @property
    def burden(self) -> float:
        """Share of the foreground that is labelled, 0..1."""
        return sum(self.label_ml) / self.foreground_ml if self.foreground_ml > 0 else 0.0


def case_facts(case: Case, channels: Sequence[str], labels: LabelSet) -> CaseFacts:
    """Read a case once and return its facts.

    Raises:
        InputError: as :func:`neoseg.data.loading.load_images` and ``load_label``.
    """
    present = [c for c in channels if c in case.images]
    loaded = load_images(case, present)
    image, grid = loaded.image.array, loaded.image.grid
    mask = foreground_mask(image)
    to_ml = grid.voxel_volume / 1000
    volumes: tuple[float, ...] = ()
    if case.label is not None:
        classes = load_label(case, labels, loaded.image).array[0]
        counts = np.bincount(classes.reshape(-1), minlength=labels.count)
        volumes = tuple(float(n * to_ml) for n in counts[1:])
    channel_facts = {}
    for index, name in enumerate(present):
        inside = image[index][mask].astype(np.float64) if mask.any() else np.zeros(1)
        low, high = np.percentile(inside, (0.5, 99.5))
        channel_facts[name] = ChannelFacts(
            unit=unit_of(case, name, image[index : index + 1]),
            count=int(mask.sum()),
            mean=float(inside.mean()),
            sd=float(inside.std()),
            low=float(low),
            high=float(high),
        )
    return CaseFacts(
        case=case.case,
        shape=grid.shape,
        spacing_mm=tuple(round(s, 6) for s in grid.spacing),
        foreground_shape=bounding_box(mask, margin=1)[1],
        foreground_ml=float(mask.sum() * to_ml),
        label_ml=volumes,
        channels=channel_facts,
        notes=loaded.notes,
    )


def pooled_statistics(facts: Sequence[CaseFacts], channel: str) -> tuple[float, float]:
    """Return mean and sd of a channel over the foreground voxels of all given cases."""
    parts = [f.channels[channel] for f in facts if channel in f.channels and f.channels[channel].count]
    weight = np.array([p.count for p in parts], dtype=np.float64)
    means, sds = np.array([p.mean for p in parts]), np.array([p.sd for p in parts])
    mean = float(np.average(means, weights=weight))
    variance = float(np.average(sds**2 + (means - mean) ** 2, weights=weight))
    return mean, float(np.sqrt(variance))


def write_facts(path: Path, facts: Sequence[CaseFacts]) -> None:
    """Write the fingerprint as JSON."""
    write_json(path, [f.model_dump(mode="json") for f in facts])


def read_facts(path: Path) -> list[CaseFacts]:
    """Read a fingerprint."""
    rows: list[dict[str, Any]] = read_json(path)
    return [CaseFacts.model_validate(row) for row in rows]
