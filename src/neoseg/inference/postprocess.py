"""From probabilities to a mask; what the choice of threshold, smallest lesion and largest components needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from ..targets import Targets
from .configs import PostprocessConfig
from .restore import largest_class

__all__ = [
    "ComponentScores",
    "Lesions",
    "PostprocessConfig",
    "apply",
    "clean",
    "decide",
    "dice_by_volume",
    "kept_components",
    "remove_small",
    "scores_by_size",
]

_SLACK = 1e-6
"""Voxels; a component that equals the smallest size but for rounding is kept."""


def apply(
    probabilities: NDArray[np.float32],
    spacing_mm: Sequence[float],
    config: PostprocessConfig,
    targets: Targets | None = None,
) -> NDArray[np.uint8]:
    """Return the class indices ``(x, y, z)`` of probabilities ``(channels, x, y, z)`` (2-D alike).

    With one foreground class the foreground is where its probability reaches the threshold, with more the most
    probable class is taken, and regions are painted in their order; then small components, and those that are not among
    the largest, are removed. Without targets the channels are classes.
    """
    targets = targets or Targets.of_classes(len(probabilities))
    return clean(decide(probabilities, config, targets), spacing_mm, config)


def decide(probabilities: NDArray[np.float32], config: PostprocessConfig, targets: Targets) -> NDArray[np.uint8]:
    """Return the class of each voxel of ``(channels, ...)`` by itself, before components are looked at."""
    if targets.overlapping:
        return np.asarray(targets.classes_of(torch.from_numpy(probabilities), 0).numpy())
    if probabilities.shape[0] == 2:
        return np.asarray(probabilities[1] >= config.threshold, dtype=np.uint8)
    return largest_class(np.ascontiguousarray(probabilities))


def clean(mask: NDArray[np.uint8], spacing_mm: Sequence[float], config: PostprocessConfig) -> NDArray[np.uint8]:
    """Return the mask without the components that the configuration does not keep."""
    minimum = config.minimum_lesion_mm3 / float(np.prod(spacing_mm))
    return kept_components(mask, minimum, config.keep_largest)


def remove_small(mask: NDArray[np.uint8], minimum_voxels: float) -> NDArray[np.uint8]:
    """Return the mask without the connected components that are smaller.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``; each class has its own components (26 or 8 neighbours).
        minimum_voxels: least size that is kept, not necessarily whole.
    """
    return kept_components(mask, minimum_voxels, ())


def kept_components(mask: NDArray[np.uint8], minimum_voxels: float, keep_largest: Sequence[int]) -> NDArray[np.uint8]:
    """Return the mask without small components and without those beyond the count of their class.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``; each class has its own components (26 or 8 neighbours).
        minimum_voxels: least size that is kept, not necessarily whole.
        keep_largest: how many of the largest components of each foreground class stay, 0 for all; of equal ones that
            which is met first.
    """
    if (minimum_voxels <= 1 and not any(keep_largest)) or not mask.any():
        return mask
    components = _components(mask)
    sizes, classes = _sizes_and_classes(components, mask)
    wanted = sizes >= minimum_voxels - _SLACK
    for index, count in enumerate(keep_largest, start=1):
        if count:
            wanted &= (classes != index) | (_ranks(sizes, classes == index) < count)
    wanted[0] = True
    if wanted.all():
        return mask
    result = mask.copy()
    for plane, own in zip(result, components, strict=True):
        plane[~wanted[own]] = 0
    return result


@dataclass(frozen=True)
class ComponentScores:
    """Scores of a mask after components were removed, for each smallest size (rows) and count of largest (columns).

    Attributes:
        dice: 0..1, ``(sizes, counts)``.
        lesion_f1: lesion-wise F1, 0..1, of the same shape; a lesion is found by one voxel.
    """

    dice: NDArray[np.float64]
    lesion_f1: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Lesions:
    """A truth with its connected components, found once for many masks.

    Attributes:
        truth: class indices ``(x, y, z)`` or ``(x, y)``.
        components: number of the component of each voxel, 0 for the background.
        sizes, classes: voxels and class of each component, by its number.
    """

    truth: NDArray[np.uint8]
    components: NDArray[Any]
    sizes: NDArray[np.intp]
    classes: NDArray[np.intp]

    @staticmethod
    def of(truth: NDArray[np.uint8]) -> Lesions:
        """Find the components."""
        components = _components(truth)
        return Lesions(truth, components, *_sizes_and_classes(components, truth))


def scores_by_size(
    mask: NDArray[np.uint8],
    lesions: Lesions,
    classes: int,
    minimum_voxels: ArrayLike,
    keep_largest: Sequence[int] = (0,),
) -> list[ComponentScores]:
    """Return the scores that each foreground class has after the removal of components in several ways.

    The components of the mask are found once. Sorted by size, what a way keeps are the first so many, so their
    running sums give the Dice, and a true lesion is found when the largest component that touches it is kept.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``.
        lesions: the truth.
        classes: with background. A class that is absent from the truth scores 1 when nothing of it is left in the
            mask, else 0, so false alarms on empty cases weigh as much as misses.
        minimum_voxels: the smallest sizes.
        keep_largest: how many of the largest components stay; 0 for all.

    Returns:
        One entry a foreground class.
    """
    least = np.asarray(minimum_voxels, dtype=np.float64)
    components = _components(mask)
    sizes, owner = _sizes_and_classes(components, mask)
    agree = (mask == lesions.truth) & (mask > 0)
    hits = np.bincount(components[agree], minlength=len(sizes))
    pairs = np.unique(np.stack([lesions.components[agree], components[agree]]).astype(np.int64), axis=1)
    result = []
    for index in range(1, classes):
        own = np.flatnonzero(owner == index)
        own = own[np.lexsort((own, -sizes[own]))]
        kept = np.searchsorted(-sizes[own], -(least - _SLACK), side="right")
        counts = np.stack([kept if count == 0 else np.minimum(kept, count) for count in keep_largest], axis=1)
        total = np.concatenate([[0], np.cumsum(sizes[own])])[counts]
        right = np.concatenate([[0], np.cumsum(hits[own])])[counts]
        wanted = int(lesions.sizes[lesions.classes == index].sum())
        dice = np.where(total + wanted > 0, 2 * right / np.maximum(total + wanted, 1), 1.0)
        true_lesions = int((lesions.classes == index).sum())
        f1 = _f1(counts, own, hits, pairs[:, lesions.classes[pairs[0]] == index], true_lesions)
        result.append(ComponentScores(dice, f1))
    return result


def dice_by_volume(
    mask: NDArray[np.uint8], truth: NDArray[np.uint8], classes: int, minimum_voxels: ArrayLike
) -> NDArray[np.float64]:
    """Return the Dice that a mask has after :func:`remove_small` with each of several smallest sizes.

    Args:
        mask: class indices ``(x, y, z)`` or ``(x, y)``.
        truth: class indices of the same shape.
        classes, minimum_voxels: see :func:`scores_by_size`; the Dice is the mean over the classes.

    Returns:
        One Dice (0..1) for each smallest size.
    """
    found = scores_by_size(mask, Lesions.of(truth), classes, minimum_voxels)
    return np.asarray(np.mean([scores.dice[:, 0] for scores in found], axis=0))


def _f1(
    counts: NDArray[np.intp],
    own: NDArray[np.intp],
    hits: NDArray[np.intp],
    pairs: NDArray[np.int64],
    true_lesions: int,
) -> NDArray[np.float64]:
    """Return the lesion-wise F1 when the first ``counts`` components of ``own`` are kept."""
    right = np.concatenate([[0], np.cumsum(hits[own] > 0)])[counts]
    place = np.full(int(own.max(initial=0)) + 1, len(own))
    place[own] = np.arange(len(own))
    # a lesion is found once the first of the components that touch it is kept
    first = np.full(int(pairs[0].max(initial=0)) + 1, len(own))
    np.minimum.at(first, pairs[0], place[pairs[1]])
    found = np.searchsorted(np.sort(first[np.unique(pairs[0])]), counts, side="left")
    both = counts > 0
    precision = np.where(both, right / np.maximum(counts, 1), 0.0)
    sensitivity = found / max(true_lesions, 1)
    f1 = 2 * precision * sensitivity / np.maximum(precision + sensitivity, 1e-300)
    return np.where(both | (true_lesions > 0), f1, 1.0)


def _components(mask: NDArray[np.uint8]) -> NDArray[Any]:
    import cc3d

    components: NDArray[Any] = cc3d.connected_components(
        np.require(mask, requirements=["C", "W"]), connectivity=26 if mask.ndim == 3 else 8
    )
    return components


def _sizes_and_classes(components: NDArray[Any], mask: NDArray[np.uint8]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return voxels and class of each component by its number; number 0 is the background."""
    count = int(components.max(initial=0)) + 1
    sizes, classes = np.zeros(count, dtype=np.intp), np.zeros(count, dtype=np.intp)
    # plane by plane: counting makes a wide copy of what it counts
    for own, values in zip(components, mask, strict=True):
        inside = values > 0
        if inside.any():
            numbers = own[inside]
            sizes += np.bincount(numbers, minlength=count)
            classes[numbers] = values[inside]
    return sizes, classes


def _ranks(sizes: NDArray[np.intp], own: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the place of each component among its class by size, largest 0, the lower number first of equals."""
    ranks = np.full(len(sizes), len(sizes))
    members = np.flatnonzero(own)
    ranks[members[np.lexsort((members, -sizes[members]))]] = np.arange(len(members))
    return ranks
