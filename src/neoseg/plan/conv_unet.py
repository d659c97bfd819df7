"""How nnU-Net 2.8 configures its convolutional U-Nets: patch, batch, poolings, kernels and widths from published rules.

Sources: Isensee et al., nnU-Net, Nature Methods 18, 2021; the residual presets from Isensee et al., nnU-Net Revisited,
MICCAI 2024 (arXiv 2404.09556). Lists of sizes are in neoseg's axis order; the rules themselves do not depend on it,
except where two axes are equally due, and :func:`plan_unets` then takes the axis that nnU-Net takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

import numpy as np

from ..errors import ConfigError
from .topology import exact_target_spacing, resampled_shapes

__all__ = [
    "PRESETS",
    "Preset",
    "UnetPlan",
    "UnetTopology",
    "conv_elements",
    "feature_counts",
    "first_patch",
    "plan_unet",
    "plan_unets",
    "unet_topology",
]

SHORTEST = 4
"""Voxels that the lowest level keeps along every axis."""

FEWEST_PATCHES = 2
"""Patches a step at least."""

BLOCKS = (1, 3, 4, 6)
"""Residual blocks of the encoder's stages; the last number goes on for ever."""

LOWRES_SHARE = 0.25
"""A patch that holds less than this share of the typical volume gets a configuration on a coarser grid beside it."""


@dataclass(frozen=True)
class Preset:
    """One published budget: what a step may cost, in elements of all convolutions' outputs for one patch.

    Attributes:
        title: what it is called.
        residual: residual blocks in the encoder and one convolution a decoder stage, in place of two and two.
        memory_gib: memory of the GPU that the costs below were chosen for.
        cost_3d: elements in 3-D, at two patches a step.
        cost_2d: elements in 2-D, at twelve patches a step.
        dataset_share: share of all training voxels that one batch may hold, 0..1.
    """

    title: str
    residual: bool
    memory_gib: float
    cost_3d: float
    cost_2d: float
    dataset_share: float


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "plain": Preset("plain U-Net", False, 8, 560e6, 85e6, 0.05),
        "resenc_m": Preset("residual encoder M", True, 8, 680e6, 135e6, 1.0),
        "resenc_l": Preset("residual encoder L", True, 24, 2.1e9, 380e6, 1.0),
        "resenc_xl": Preset("residual encoder XL", True, 40, 3.6e9, 560e6, 1.0),
    }
)
"""nnU-Net's budgets; "plain" is its default, "resenc_l" what its authors recommend."""


@dataclass(frozen=True)
class UnetTopology:
    """Poolings and kernels of a U-Net.

    Attributes:
        patch: voxels, multiples of what the poolings divide by.
        strides: of each stage's first convolution; 1 for the first stage.
        kernels: of each stage.
    """

    patch: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def pools(self) -> tuple[int, ...]:
        """How often each axis is halved."""
        return tuple(sum(stride[axis] == 2 for stride in self.strides) for axis in range(len(self.patch)))

    @property
    def multiple(self) -> tuple[int, ...]:
        """What the patch is a multiple of."""
        return tuple(2**n for n in self.pools)


@dataclass(frozen=True)
class UnetPlan:
    """One configuration of a U-Net.

    Attributes:
        axes: which axes it sees; a 2-D network leaves out the coarsest one.
        spacing_mm, typical: its grid and the median size of the training cases on it.
        topology: patch, strides, kernels.
        batch: patches a step.
        features: channels of each stage.
        elements: elements of all convolutions' outputs for one patch.
        allowed: what the budget allows for one patch.
        cut: how many times the patch was shortened to keep within the budget.
        batch_bound: what decided the batch: "budget", "data" (the share of all voxels) or "least".
    """

    axes: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    typical: tuple[float, ...]
    topology: UnetTopology
    batch: int
    features: tuple[int, ...]
    elements: int
    allowed: float
    cut: int
    batch_bound: Literal["budget", "data", "least"]


def unet_topology(spacing_mm: Sequence[float], size: Sequence[float]) -> UnetTopology:
    """Halve the finest axes until the lowest level would have fewer than 4 voxels, and pad the size to fit.

    A stage halves the axes that have at least 8 voxels left and less than twice the smallest spacing among those; one
    axis alone goes on only from 12 voxels. A kernel is 1 along an axis until the spacing there has come within a
    factor of 2 of the finest, and 3 from then on; the lowest stage has 3 everywhere.

    Args:
        spacing_mm: voxel size along each axis.
        size: voxels along each axis, before padding.
    """
    axes = range(len(size))
    spacing, left, kernel = list(spacing_mm), [float(n) for n in size], [1] * len(size)
    strides, kernels = [(1,) * len(size)], []
    while halved := _axes_to_halve(spacing, left):
        kernel = [3 if kernel[a] == 3 or spacing[a] < 2 * min(spacing) else 1 for a in axes]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if a in halved else 1 for a in axes))
        for a in halved:
            spacing[a], left[a] = 2 * spacing[a], math.ceil(left[a] / 2)
    kernels.append((3,) * len(size))
    multiple = [math.prod(stride[a] for stride in strides) for a in axes]
    patch = tuple(math.ceil(n / m) * m for n, m in zip(size, multiple, strict=True))
    return UnetTopology(patch, tuple(strides), tuple(kernels))


def feature_counts(stages: int, axes: int) -> tuple[int, ...]:
    """Return the channels of each stage: 32, doubled at each one, at most 320 in 3-D and 512 in 2-D."""
    return tuple(min(320 if axes == 3 else 512, 32 * 2**i) for i in range(stages))


def conv_elements(
    patch: Sequence[int],
    strides: Sequence[Sequence[int]],
    *,
    classes: int,
    residual: bool = False,
    deep_supervision: bool = False,
) -> int:
    """Return the elements of all convolutions' outputs for one patch: nnU-Net's measure of what a network costs.

    Counted are encoder, decoder, transposed convolutions and the layers that make classes.

    Args:
        patch: voxels along each axis.
        strides: of each stage; their number is that of the stages.
        classes: outputs, background included.
        residual: as in :class:`Preset`.
        deep_supervision: classes are made at every decoder stage, not at the last alone.
    """
    features = feature_counts(len(strides), len(patch))
    grid, total = list(patch), 0
    for stage, (stride, width) in enumerate(zip(strides, features, strict=True)):
        grid = [n // s for n, s in zip(grid, stride, strict=True)]
        voxels = math.prod(grid)
        if residual:
            # Two convolutions a block; where grid or width change, the shortcut has one too; a stem comes first.
            total += width * voxels * (2 * BLOCKS[min(stage, len(BLOCKS) - 1)] + 1)
        else:
            total += width * voxels * 2
        if stage < len(strides) - 1:
            total += width * voxels * (2 if residual else 3)
            total += classes * voxels if deep_supervision or stage == 0 else 0
    return total


def first_patch(spacing_mm: Sequence[float], typical: Sequence[float]) -> tuple[float, ...]:
    """Return the patch that shrinking starts from: a cube in mm of 256^3 voxels (2048^2), within the typical volume."""
    axes = len(spacing_mm)
    whole = 256**3 if axes == 3 else 2048**2
    density = [1 / s for s in spacing_mm]
    scale = (whole / math.prod(density)) ** (1 / axes)
    return tuple(min(float(round(d * scale)), float(n)) for d, n in zip(density, typical, strict=True))


def plan_unet(
    spacing_mm: Sequence[float], typical: Sequence[float], *, voxels: float, classes: int, preset: Preset
) -> UnetPlan:
    """Configure one U-Net: the largest patch that the budget allows, then as many patches as it allows.

    Args:
        spacing_mm: the network's grid.
        typical: median size of the training cases on it.
        voxels: of all training cases together, on the 3-D grid.
        classes: background included.
        preset: the budget.

    Raises:
        ConfigError: not even the smallest patch keeps within the budget.
    """
    axes = len(spacing_mm)
    reference, patches = (preset.cost_3d, 2) if axes == 3 else (preset.cost_2d, 12)
    # The plain network's budget is that of two patches; the residual ones' is compared with a single patch as it is.
    allowed = reference if preset.residual else reference * patches / FEWEST_PATCHES
    topology, cut = unet_topology(spacing_mm, first_patch(spacing_mm, typical)), 0
    while (elements := _elements(topology, classes, preset)) > allowed:
        topology, cut = _shortened(topology, spacing_mm, typical), cut + 1
    batch = round(reference / elements * patches)
    most = round(voxels * preset.dataset_share / math.prod(topology.patch))
    return UnetPlan(
        axes=tuple(range(axes)),
        spacing_mm=tuple(spacing_mm),
        typical=tuple(typical),
        topology=topology,
        batch=max(FEWEST_PATCHES, min(batch, most)),
        batch_bound="least" if min(batch, most) < FEWEST_PATCHES else "data" if most < batch else "budget",
        features=feature_counts(len(topology.strides), axes),
        elements=elements,
        allowed=allowed,
        cut=cut,
    )


def plan_unets(
    spacings: Sequence[Sequence[float]], shapes: Sequence[Sequence[int]], *, classes: int, preset: Preset
) -> dict[str, UnetPlan]:
    """Return what nnU-Net would configure for a data set: "2d", "3d_fullres" and, for large volumes, "3d_lowres".

    Args:
        spacings: of each training case, ``(x, y, z)``.
        shapes: voxels of each training case, cropped to what is not 0.
        classes: background included.
        preset: the budget.

    Returns:
        Configurations whose lists run along x, y, z; a 2-D one leaves out the axis with the largest spacing.
    """
    # nnU-Net's arrays are (z, y, x), and the axis with the largest spacing is moved to the front.
    spacings, shapes = [tuple(reversed(s)) for s in spacings], [tuple(reversed(s)) for s in shapes]
    target = exact_target_spacing(spacings, shapes).tolist()
    front = int(np.argmax(target))
    order = [front, *(a for a in range(3) if a != front)]
    spacing = [target[a] for a in order]
    table = resampled_shapes(spacings, shapes, target)
    typical = [float(n) for n in np.median(table, axis=0)[order]]
    voxels = math.prod(typical) * len(shapes)

    def planned(*, at: Sequence[float], size: Sequence[float], of: float) -> UnetPlan:
        return plan_unet(at, size, voxels=of, classes=classes, preset=preset)

    plans = {"2d": planned(at=spacing[1:], size=typical[1:], of=voxels)}
    if typical[0] != 1:
        full = plans["3d_fullres"] = planned(at=spacing, size=typical, of=voxels)
        low, share = None, math.prod(full.topology.patch) / math.prod(typical)
        coarse = np.array(spacing)
        while share < LOWRES_SHARE:
            finer = coarse.max() / coarse > 2
            coarse = np.where(finer if finer.any() else True, coarse * 1.03, coarse)
            size = np.array(spacing) / coarse * typical
            low = planned(at=coarse.tolist(), size=[round(n) for n in size], of=float(size.prod()) * len(shapes))
            share = math.prod(low.topology.patch) / float(size.prod())
        if low is not None and math.prod(typical) / float(size.prod()) >= 2:
            plans["3d_lowres"] = low
    return {name: _in_xyz(plan, order[3 - len(plan.axes) :]) for name, plan in plans.items()}


def _axes_to_halve(spacing: Sequence[float], left: Sequence[float]) -> list[int]:
    long = [a for a, n in enumerate(left) if n >= 2 * SHORTEST]
    fine = [a for a in long if spacing[a] < 2 * min(spacing[b] for b in long)]
    return fine if len(fine) != 1 or left[fine[0]] >= 3 * SHORTEST else []


def _elements(topology: UnetTopology, classes: int, preset: Preset) -> int:
    return conv_elements(topology.patch, topology.strides, classes=classes, residual=preset.residual)


def _shortened(topology: UnetTopology, spacing: Sequence[float], typical: Sequence[float]) -> UnetTopology:
    """Shorten the axis that is longest against the typical size, by what the shorter patch is a multiple of."""
    ratio = [p / n for p, n in zip(topology.patch, typical, strict=True)]
    longer = [a for a, (p, m) in enumerate(zip(topology.patch, topology.multiple, strict=True)) if p > m]
    if not longer:
        raise ConfigError(
            f"A U-Net's patch cannot be cut below {' x '.join(str(n) for n in topology.patch)} voxels to keep within "
            "the budget; allow more memory or a coarser spacing."
        )
    axis = max(longer, key=lambda a: (ratio[a], a))
    shorter = list(topology.patch)
    shorter[axis] -= topology.multiple[axis]
    step = unet_topology(spacing, shorter).multiple[axis]
    shorter[axis] = topology.patch[axis] - step
    return unet_topology(spacing, shorter)


def _in_xyz(plan: UnetPlan, order: Sequence[int]) -> UnetPlan:
    """Return the plan with its lists along x, y, z; ``order`` holds nnU-Net's axes, 0 for z."""
    places = sorted(range(len(order)), key=lambda i: -order[i])

    def turned(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(values[i] for i in places)

    def whole(values: Sequence[int]) -> tuple[int, ...]:
        return tuple(values[i] for i in places)

    topology = UnetTopology(
        whole(plan.topology.patch),
        tuple(whole(s) for s in plan.topology.strides),
        tuple(whole(k) for k in plan.topology.kernels),
    )
    return replace(
        plan,
        axes=tuple(2 - order[i] for i in places),
        spacing_mm=turned(plan.spacing_mm),
        typical=turned(plan.typical),
        topology=topology,
    )
