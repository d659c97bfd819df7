"""Scores of a segmentation: overlap, surface distance, detection of lesions; a table of them; presets of benchmarks."""

from .lesion import LesionDetection, detect_lesions, lesion_f1, lesion_precision, lesion_sensitivity
from .overlap import (
    Counts,
    count_voxels,
    dice,
    iou,
    precision,
    relative_volume_difference,
    sensitivity,
    volume_difference,
)
from .presets import PRESETS, Preset, bonbid, bonbid_aggregates, preset_named
from .scores import Score, read_scores, write_scores
from .surface import SurfaceDistances, assd, element_areas, hausdorff, masd, nsd, surface_distances
from .table import METRICS, Empty, Metric, Pair, metric_named, score_case, worst_value
from .units import in_units_of

__all__ = [
    "METRICS",
    "PRESETS",
    "Counts",
    "Empty",
    "LesionDetection",
    "Metric",
    "Pair",
    "Preset",
    "Score",
    "SurfaceDistances",
    "assd",
    "bonbid",
    "bonbid_aggregates",
    "count_voxels",
    "detect_lesions",
    "dice",
    "element_areas",
    "hausdorff",
    "in_units_of",
    "iou",
    "lesion_f1",
    "lesion_precision",
    "lesion_sensitivity",
    "masd",
    "metric_named",
    "nsd",
    "precision",
    "preset_named",
    "read_scores",
    "relative_volume_difference",
    "score_case",
    "sensitivity",
    "surface_distances",
    "volume_difference",
    "worst_value",
    "write_scores",
]
