"""Facts of the cases that a plan is made from: spacings, sizes of the foreground, intensities, lesion burden."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field, ValidationError

from ..atomic import read_json, write_json
from ..data.cases import Case
from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import load_images, load_label
from ..errors import InputError
from ..labels import LabelSet

__all__ = [
    "FORMAT",
    "LEVELS",
    "CaseFacts",
    "ChannelFacts",
    "Fingerprint",
    "LabelledFacts",
    "case_facts",
    "pooled_labelled",
    "pooled_statistics",
    "read_facts",
    "read_fingerprint",
    "write_fingerprint",
]

FORMAT = 4
"""Counts the changes of what a fingerprint holds; one of another number is made anew."""

_TAIL = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1, 2, 5)
LEVELS = (*_TAIL, 10, 20, 30, 40, 50, 60, 70, 80, 90, *(100 - level for level in reversed(_TAIL)))
"""Percentiles kept of the labelled voxels of a case; dense where the rule "ct" clips."""


class LabelledFacts(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Intensities of the labelled voxels of one channel of one case: mean, sd and the percentiles :data:`LEVELS`."""

    mean: float
    sd: float
    percentiles: Annotated[tuple[float, ...], Field(min_length=len(LEVELS), max_length=len(LEVELS))]


class ChannelFacts(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Foreground intensities of one channel of one case, in the channel's unit; ``labelled`` of its labelled voxels."""

    unit: str
    count: int
    mean: float
    sd: float
    low: float
    high: float
    labelled: LabelledFacts | None = None


class CaseFacts(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """Facts of one case.

    Attributes:
        case: its name.
        shape: voxels along the canonical axes.
        spacing_mm: voxel size, in ``unit``.
        foreground_shape: size in voxels of the box around the foreground, with a margin of one voxel.
        nonzero_shape: the same without the margin.
        foreground_ml: volume of the foreground in mL, of a plane its area in mm² or px².
        label_ml: the same of each class, in the order of the label set; empty without a label.
        channels: intensities by channel.
        notes: what was recognised or converted while reading.
        unit: "mm", or "px" where the file does not tell the size of a pixel.
        object_px: of a picture the median over its objects (connected pixels of one class, 8 neighbours) of the
            diameter of a disc of the same area, in pixels; None in 3-D and where nothing is labelled.
    """

    case: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    foreground_shape: tuple[int, ...]
    nonzero_shape: tuple[int, ...]
    foreground_ml: float
    label_ml: tuple[float, ...]
    channels: dict[str, ChannelFacts]
    notes: tuple[str, ...]
    unit: Literal["mm", "px"] = "mm"
    object_px: float | None = None

    @property
    def burden(self) -> float:
        """Share of the foreground that is labelled, 0..1."""
        return sum(self.label_ml) / self.foreground_ml if self.foreground_ml > 0 else 0.0


class Fingerprint(BaseModel, frozen=True, extra="forbid"):
    """The facts of all training cases that could be read, and a sentence for each that could not.

    Attributes:
        cases: in the order of the table of cases.
        failed: case to sentence.
    """

    cases: tuple[CaseFacts, ...]
    failed: dict[str, str] = {}


def case_facts(case: Case, channels: Sequence[str], labels: LabelSet, *, read: Sequence[str] = ()) -> CaseFacts:
    """Read a case once and return its facts.

    Args:
        case: which one.
        channels: whose intensities are wanted.
        labels: the classes.
        read: channels that preparation reads besides, which have a say in what is foreground.

    Raises:
        InputError: as :func:`neoseg.data.loading.load_images` and ``load_label``; or the image holds only zeros.
    """
    present = [c for c in dict.fromkeys((*channels, *read)) if c in case.images]
    loaded = load_images(case, present)
    image, grid = loaded.image.array, loaded.image.grid
    mask = foreground_mask(image) if loaded.mask is None else loaded.mask
    if not image.any():
        files = ", ".join(case.images[c].name for c in present)
        raise InputError(f"case {case.case}: {files} holds only zeros; there is nothing to learn from, leave it out.")
    to_ml = grid.voxel_size
    volumes: tuple[float, ...] = ()
    labelled, width = np.zeros(grid.shape, dtype=np.bool_), None
    if case.label is not None:
        classes = load_label(case, labels, loaded.image).array[0]
        counts = np.bincount(classes.reshape(-1), minlength=labels.count)
        volumes = tuple(float(n * to_ml) for n in counts[1:])
        labelled, width = classes > 0, _object_px(classes)
    return CaseFacts(
        case=case.case,
        shape=grid.shape,
        spacing_mm=tuple(float(f"{side:.7g}") for side in grid.spacing),
        foreground_shape=bounding_box(mask, margin=1)[1],
        nonzero_shape=bounding_box(mask)[1],
        foreground_ml=float(mask.sum() * to_ml),
        label_ml=volumes,
        channels={
            name: _channel_facts(image[i], mask, labelled, loaded.units[i])
            for i, name in enumerate(present)
            if name in channels
        },
        notes=loaded.notes,
        unit=grid.unit,
        object_px=width,
    )


def pooled_statistics(facts: Sequence[CaseFacts], channel: str) -> tuple[float, float]:
    """Return mean and sd of a channel over the foreground voxels of all given cases."""
    parts = [f.channels[channel] for f in facts if channel in f.channels and f.channels[channel].count]
    weight = np.array([p.count for p in parts], dtype=np.float64)
    return _pooled([p.mean for p in parts], [p.sd for p in parts], weight)


def pooled_labelled(facts: Sequence[CaseFacts], channel: str) -> tuple[float, float, float, float] | None:
    """Return mean, sd, and the 0.5 and 99.5 percentiles of a channel over the labelled voxels of all given cases.

    Each case counts alike, however large its label, as in nnU-Net's fingerprint, which draws the same number of voxels
    from each. The percentiles are those of the mixture of the cases' distributions, each taken as linear between
    :data:`LEVELS`; None when no case has a labelled voxel.
    """
    parts = [f.channels[channel].labelled for f in facts if channel in f.channels]
    found = [p for p in parts if p is not None]
    if not found:
        return None
    mean, sd = _pooled([p.mean for p in found], [p.sd for p in found], np.ones(len(found)))
    tables = [np.asarray(p.percentiles) for p in found]
    low, high = (_mixture_percentile(tables, level) for level in (0.5, 99.5))
    return mean, sd, low, high


def write_fingerprint(path: Path, fingerprint: Fingerprint) -> None:
    """Write the fingerprint as JSON."""
    write_json(path, fingerprint.model_dump(mode="json"))


def read_fingerprint(path: Path) -> Fingerprint:
    """Read a fingerprint.

    Raises:
        InputError: the file was damaged or edited into something else, NaN included.
    """
    try:
        return Fingerprint.model_validate(read_json(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {key}: {first['msg']}; delete the file, and the cases are read again.") from error
    except ValueError as error:
        raise InputError(f"{path}: this is not JSON ({error}); delete it, and the cases are read again.") from error


def read_facts(path: Path) -> list[CaseFacts]:
    """Read the facts of the cases of a fingerprint; raises as :func:`read_fingerprint`."""
    return list(read_fingerprint(path).cases)


def _channel_facts(
    values: NDArray[np.float32], mask: NDArray[np.bool_], labelled: NDArray[np.bool_], unit: str
) -> ChannelFacts:
    inside = values[mask].astype(np.float64)
    low, high = np.percentile(inside, (0.5, 99.5))
    part = None
    if labelled.any():
        marked = values[labelled].astype(np.float64)
        percentiles = tuple(float(v) for v in np.percentile(marked, LEVELS))
        part = LabelledFacts(mean=float(marked.mean()), sd=float(marked.std()), percentiles=percentiles)
    return ChannelFacts(
        unit=unit,
        count=int(mask.sum()),
        mean=float(inside.mean()),
        sd=float(inside.std()),
        low=float(low),
        high=float(high),
        labelled=part,
    )


def _object_px(classes: NDArray[np.uint8]) -> float | None:
    if classes.ndim != 2 or not classes.any():
        return None
    import cc3d

    areas = np.bincount(cc3d.connected_components(np.array(classes), connectivity=8).ravel())[1:]
    return float(np.median(np.sqrt(4 * areas / np.pi)))


def _pooled(means: Sequence[float], sds: Sequence[float], weight: NDArray[np.float64]) -> tuple[float, float]:
    mean = float(np.average(means, weights=weight))
    variance = float(np.average(np.square(sds) + np.square(np.asarray(means) - mean), weights=weight))
    return mean, float(np.sqrt(variance))


def _mixture_percentile(tables: Sequence[NDArray[np.float64]], level: float) -> float:
    """Return where the mean of the cases' distribution functions reaches ``level`` percent, by bisection."""
    low, high = min(float(t[0]) for t in tables), max(float(t[-1]) for t in tables)
    for _ in range(60):
        middle = (low + high) / 2
        reached = np.mean([_share_below(table, middle) for table in tables])
        low, high = (middle, high) if reached < level else (low, middle)
    return high


def _share_below(table: NDArray[np.float64], value: float) -> float:
    """Return the percentage of a case's voxels up to a value; of equal percentiles (a constant) the last counts."""
    after = int(np.searchsorted(table, value, side="right"))
    if after == 0:
        return 0.0
    if after == len(table):
        return 100.0
    share = (value - table[after - 1]) / (table[after] - table[after - 1])
    return float(LEVELS[after - 1] + share * (LEVELS[after] - LEVELS[after - 1]))
