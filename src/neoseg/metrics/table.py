"""Every metric in one visible list, and the scores of one case.

A metric is a function of a :class:`Pair`, two masks whose shared records (voxel counts, surface distances, lesions) are
computed when the first metric asks and once only. Beside its function a metric states its unit, which direction is
better, what a case with an empty mask scores (nan: undefined), and the worst value that a summary puts in where the
score is undefined.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError, nearest
from . import lesion, overlap, surface
from .masks import check_pair, common_box

__all__ = ["METRICS", "Empty", "Metric", "Pair", "metric_named", "score_case", "worst_value"]

UNDEFINED = float("nan")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two masks on one grid and the records that the metrics read.

    Attributes:
        truth: bool (x, y, z) or (x, y).
        prediction: bool, of the same shape.
        spacing_mm: voxel spacing along each array axis, in mm.
        tolerance_mm: tolerance of NSD, in mm.
    """

    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    spacing_mm: tuple[float, ...]
    tolerance_mm: float = 2.0

    @cached_property
    def counts(self) -> overlap.Counts:
        """Voxels by agreement."""
        return overlap.count_voxels(self.truth, self.prediction, self.spacing_mm)

    @cached_property
    def cropped(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Both masks within their common bounding box, contiguous; one empty voxel when both are empty."""
        box = common_box(self.truth, self.prediction)
        if box[0].stop == 0:
            box = (slice(0, 1),) * self.truth.ndim
        return np.ascontiguousarray(self.truth[box]), np.ascontiguousarray(self.prediction[box])

    @cached_property
    def surface(self) -> surface.SurfaceDistances:
        """Distances between the surfaces."""
        return surface.surface_distances(*self.cropped, self.spacing_mm)

    @cached_property
    def lesions(self) -> lesion.LesionDetection:
        """Connected components by agreement; one common voxel is enough."""
        return lesion.detect_lesions(*self.cropped, self.spacing_mm)


@dataclass(frozen=True, slots=True)
class Empty:
    """What a metric is when a mask holds no voxel: a number, nan for undefined, None for what its function gives.

    Attributes:
        both: neither mask holds a voxel: there was nothing, and nothing was found.
        truth: only the truth is empty: false positives on a case without lesion.
        prediction: only the prediction is empty: everything was missed.
    """

    both: float
    truth: float | None
    prediction: float | None


@dataclass(frozen=True, slots=True)
class Metric:
    """A score of one case.

    Attributes:
        name: key in tables and files.
        function: gives the value for two masks that both hold voxels.
        unit: "ratio", "mm", "mL" or "count".
        direction: "higher" or "lower" is better, or "zero": the nearer to 0, the better (signed differences).
        best: the value of identical masks.
        worst: gives the worst possible value for an image shape and a spacing in mm.
        empty: the values when a mask is empty.
        text: the metric in words, for reports.
    """

    name: str
    function: Callable[[Pair], float]
    unit: str
    direction: Literal["higher", "lower", "zero"]
    best: float
    worst: Callable[[Sequence[int], Sequence[float]], float]
    empty: Empty
    text: str

    def score(self, pair: Pair) -> float:
        """Return the value for a pair of masks, the empty cases included."""
        truth, prediction = pair.counts.truth > 0, pair.counts.prediction > 0
        if not truth and not prediction:
            return self.empty.both
        rule = self.empty.truth if not truth else self.empty.prediction if not prediction else None
        return float(self.function(pair)) if rule is None else rule


def _zero(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    return 0.0


def _two(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    return 2.0


def _diagonal(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the diagonal of the image in mm, from corner to corner: no two surface elements lie farther apart."""
    return math.hypot(*(n * s for n, s in zip(shape, spacing_mm, strict=True)))


def _volume(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the volume of the image in mL."""
    return math.prod(n * s / 10 for n, s in zip(shape, spacing_mm, strict=True))


def _components(shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the number of lesions that the image can hold when no two touch: every second voxel along each axis."""
    return float(math.prod((n + 1) // 2 for n in shape))


_AGREEMENT = Empty(both=1.0, truth=0.0, prediction=0.0)
_DISTANCE = Empty(both=0.0, truth=UNDEFINED, prediction=UNDEFINED)
_FOUND = Empty(both=1.0, truth=UNDEFINED, prediction=0.0)
_RIGHT = Empty(both=1.0, truth=0.0, prediction=UNDEFINED)
_AMOUNT = Empty(both=0.0, truth=None, prediction=None)

METRICS: tuple[Metric, ...] = (
    Metric(
        "dice",
        lambda pair: overlap.dice(pair.counts),
        "ratio",
        "higher",
        1.0,
        _zero,
        _AGREEMENT,
        "Dice similarity: twice the common volume over the sum of both volumes",
    ),
    Metric(
        "iou",
        lambda pair: overlap.iou(pair.counts),
        "ratio",
        "higher",
        1.0,
        _zero,
        _AGREEMENT,
        "Intersection over union (Jaccard index)",
    ),
    Metric(
        "sensitivity",
        lambda pair: overlap.sensitivity(pair.counts),
        "ratio",
        "higher",
        1.0,
        _zero,
        _FOUND,
        "Share of the true volume that was found",
    ),
    Metric(
        "precision",
        lambda pair: overlap.precision(pair.counts),
        "ratio",
        "higher",
        1.0,
        _zero,
        _RIGHT,
        "Share of the predicted volume that is right",
    ),
    Metric(
        "volume_difference",
        lambda pair: overlap.volume_difference(pair.counts),
        "mL",
        "zero",
        0.0,
        _volume,
        _AMOUNT,
        "Predicted minus true volume",
    ),
    Metric(
        "relative_volume_difference",
        lambda pair: overlap.relative_volume_difference(pair.counts),
        "ratio",
        "zero",
        0.0,
        _two,
        _AMOUNT,
        "Predicted minus true volume over the mean of both, from -2 to 2",
    ),
    Metric(
        "hd95",
        lambda pair: surface.hausdorff(pair.surface, 95.0),
        "mm",
        "lower",
        0.0,
        _diagonal,
        _DISTANCE,
        "Hausdorff distance at the 95th percentile of surface area, the larger of both directions",
    ),
    Metric(
        "masd",
        lambda pair: surface.masd(pair.surface),
        "mm",
        "lower",
        0.0,
        _diagonal,
        _DISTANCE,
        "Mean average surface distance: mean of the two directed means, weighted by surface area",
    ),
    Metric(
        "assd",
        lambda pair: surface.assd(pair.surface),
        "mm",
        "lower",
        0.0,
        _diagonal,
        _DISTANCE,
        "Average symmetric surface distance: mean over both surfaces together, weighted by surface area",
    ),
    Metric(
        "nsd",
        lambda pair: surface.nsd(pair.surface, pair.tolerance_mm),
        "ratio",
        "higher",
        1.0,
        _zero,
        _AGREEMENT,
        "Normalised surface Dice: share of both surfaces within the tolerance (2 mm unless stated) of the other",
    ),
    Metric(
        "lesion_sensitivity",
        lambda pair: lesion.lesion_sensitivity(pair.lesions),
        "ratio",
        "higher",
        1.0,
        _zero,
        _FOUND,
        "Share of the true lesions that share a voxel with the prediction",
    ),
    Metric(
        "lesion_precision",
        lambda pair: lesion.lesion_precision(pair.lesions),
        "ratio",
        "higher",
        1.0,
        _zero,
        _RIGHT,
        "Share of the predicted lesions that share a voxel with the truth",
    ),
    Metric(
        "lesion_f1",
        lambda pair: lesion.lesion_f1(pair.lesions),
        "ratio",
        "higher",
        1.0,
        _zero,
        _AGREEMENT,
        "Harmonic mean of lesion-wise sensitivity and precision",
    ),
    Metric(
        "false_positive_lesions",
        lambda pair: float(pair.lesions.false_positives),
        "count",
        "lower",
        0.0,
        _components,
        _AMOUNT,
        "Predicted lesions that share no voxel with the truth",
    ),
    Metric(
        "false_positive_volume",
        lambda pair: pair.lesions.false_positive_ml,
        "mL",
        "lower",
        0.0,
        _volume,
        _AMOUNT,
        "Volume of the predicted lesions that share no voxel with the truth",
    ),
)
"""All metrics, in the order of tables."""

_BY_NAME: Mapping[str, Metric] = MappingProxyType({metric.name: metric for metric in METRICS})


def metric_named(name: str) -> Metric:
    """Return the metric of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in _BY_NAME:
        raise ConfigError(f"There is no metric {name!r}{nearest(name, _BY_NAME)}.")
    return _BY_NAME[name]


def score_case(
    truth: NDArray[np.bool_],
    prediction: NDArray[np.bool_],
    spacing_mm: Sequence[float],
    *,
    metrics: Sequence[str] | None = None,
    tolerance_mm: float = 2.0,
) -> dict[str, float]:
    """Score one prediction against one truth.

    Args:
        truth: bool (x, y, z) or (x, y).
        prediction: bool, of the same shape.
        spacing_mm: voxel spacing along each array axis, in mm.
        metrics: names of the metrics to compute; None for all.
        tolerance_mm: tolerance of NSD, in mm, itself included.

    Returns:
        The value of each metric by name, in its unit; nan where it is undefined.

    Raises:
        InputError: a mask is not bool.
        GeometryError: shapes or spacing do not fit.
        ConfigError: an unknown metric, or a tolerance that is not a positive number.

    Example:
        >>> import numpy as np
        >>> truth, prediction = np.zeros((2, 8, 8, 4), dtype=bool)
        >>> truth[2:4, 2:4, 1], prediction[2:4, 3:5, 1] = True, True
        >>> score_case(truth, prediction, (1.4, 1.4, 3.0), metrics=["dice", "nsd"])
        {'dice': 0.5, 'nsd': 1.0}
    """
    spacing = check_pair(truth, prediction, spacing_mm)
    if not 0 < tolerance_mm < math.inf:
        raise ConfigError(
            f"tolerance_mm is {tolerance_mm:g}, but a number above 0 is wanted, in mm (in px of pictures)."
        )
    chosen = METRICS if metrics is None else [metric_named(name) for name in metrics]
    pair = Pair(truth, prediction, spacing, tolerance_mm)
    return {metric.name: metric.score(pair) for metric in chosen}


def worst_value(metric: str | Metric, shape: Sequence[int], spacing_mm: Sequence[float]) -> float:
    """Return the worst value that a metric can take on an image: 0 for ratios, the image diagonal for distances.

    Args:
        metric: the metric or its name.
        shape: spatial shape of the image in voxels.
        spacing_mm: voxel spacing along each axis, in mm.

    Raises:
        ConfigError: an unknown metric.
    """
    chosen = metric_named(metric) if isinstance(metric, str) else metric
    return chosen.worst(shape, spacing_mm)
