"""Predictor: arrays in, arrays out, no files; loaded once, used for any number of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..data.brain_mask import Origin
from ..data.field_of_view import unlikely_size
from ..data.foreground import bounding_box
from ..data.loading import LoadedImages
from ..errors import GeometryError, InputError
from ..labels import LabelSet
from ..prepare.atlas import Atlas
from ..prepare.case import Physical, Prepared, physical_maps, prepared_array
from ..prepare.configs import ZADC, PrepareConfig, PrepareSettings
from ..prepare.standardise import Space, Template
from ..register.plausible import unlike
from ..targets import Targets
from ..volume import Grid, Volume
from ..wording import counted
from .ensemble import Ensemble
from .memory import MemoryUse
from .postprocess import PostprocessConfig, clean, decide
from .restore import restored_slabs
from .scratch import Scratch
from .uncertainty import entropy, range_ml, spread

__all__ = ["Ensemble", "Prediction", "Predictor", "Ready", "Steps", "Uncertainty", "Wanted"]


@dataclass(frozen=True)
class Wanted:
    """What a prediction brings besides the mask; each is a map, or several, of the size of the scan.

    Attributes:
        probabilities: of each foreground class or region.
        uncertainty: see :class:`Uncertainty`.
    """

    probabilities: bool = True
    uncertainty: bool = False


@dataclass(frozen=True, eq=False)
class Uncertainty:
    """How sure the networks are, on the grid of the image; 0 outside the box around its foreground.

    Attributes:
        entropy: of the mean probabilities, 0..1, see :func:`neoseg.inference.uncertainty.entropy`.
        spread: of the foreground probability over the folds, see :func:`neoseg.inference.uncertainty.spread`;
            ``None`` with one fold.
        ranges_ml: for each class and region the smallest and the largest volume in mL (of a plane: area) of the masks
            that the single folds give with the same post-processing; empty with one fold.
    """

    entropy: Volume
    spread: Volume | None
    ranges_ml: Mapping[str, tuple[float, float]]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one case, on the grid of its image.

    Attributes:
        label: the values that the label set writes (uint8 or uint16), one channel.
        probabilities: float32, one channel a foreground class or region; 0 outside the box around its foreground.
            ``None`` when they were not wanted.
        physical: the maps in physical units that the network's input was made from.
        warnings: sentences that a reader of the result should know.
        uncertainty: when it was wanted.
    """

    label: Volume
    probabilities: Volume | None
    physical: Physical
    warnings: tuple[str, ...]
    uncertainty: Uncertainty | None = None


@dataclass(frozen=True, eq=False)
class Ready:
    """A case as the networks want it.

    Attributes:
        physical: its maps in physical units.
        prepared: what the networks see.
        grid: of the image as it was read.
    """

    physical: Physical
    prepared: Prepared
    grid: Grid


@dataclass(frozen=True, eq=False)
class Steps:
    """All that turns an image into what the networks see, without the networks; it may go to another process.

    Attributes:
        prepare: the preparation steps.
        settings: what the plan decided for them.
        atlas: for the Z map, where one is made.
        template: in template space.
    """

    prepare: PrepareConfig
    settings: PrepareSettings
    atlas: Atlas | None = None
    template: Template | None = None

    def ready(
        self,
        image: Volume,
        channels: Sequence[str],
        origin: Origin = "everything",
        mask: NDArray[np.bool_] | None = None,
    ) -> Ready:
        """Prepare one case; see :meth:`Predictor.predict`.

        Raises:
            InputError: a channel is missing, or the image is empty.
            GeometryError: the image has a size that no scan has.
        """
        if (told := unlikely_size(image.grid)) is not None:
            raise GeometryError(f"the image: {told}")
        want = self.settings.channels
        missing = [c for c in want if c not in channels and not (c == ZADC and self.atlas)]
        if missing or len(channels) != image.array.shape[0]:
            raise InputError(
                f"The channels {list(channels)} were given for an image of {counted(image.array.shape[0], 'channel')}, "
                f"but {list(want)} are wanted."
            )
        if mask is not None:
            if mask.shape != image.grid.shape or not mask.any():
                raise InputError(
                    f"A brain mask of shape {mask.shape} with {int(np.count_nonzero(mask))} voxels was given for an "
                    f"image of {image.grid.shape}; equal shapes and at least one voxel are wanted."
                )
            origin, mask = "given", mask.astype(bool)
            image = image.with_array(np.where(mask, image.array, 0))
        image = image.with_array(image.array.astype(np.float32, copy=False))
        loaded = LoadedImages(image, tuple(channels), (), origin, mask)
        physical = physical_maps(loaded, self.prepare, self.atlas, want=want, template=self.template)
        prepared = prepared_array(physical, self.prepare, self.settings, template=self.template)
        return Ready(physical, prepared, image.grid)


@dataclass(frozen=True, eq=False)
class Predictor:
    """The trained networks of a run with all that turns an image into a mask.

    Attributes:
        ensemble: the networks.
        labels: the classes.
        prepare: the preparation steps.
        postprocess: how probabilities become a mask.
        atlas: for the Z map, where one is made.
        template: in template space.
        cohort: facts of the registration of the training cases, which those of new scans are held against.
        notes: sentences that a reader of each result should know.
    """

    ensemble: Ensemble
    labels: LabelSet
    prepare: PrepareConfig
    postprocess: PostprocessConfig
    atlas: Atlas | None = None
    template: Template | None = None
    cohort: Sequence[Mapping[str, float]] = ()
    notes: tuple[str, ...] = ()

    def predict(
        self,
        image: Volume,
        channels: Sequence[str],
        *,
        origin: Origin = "everything",
        mask: NDArray[np.bool_] | None = None,
        wanted: Wanted | None = None,
        use: MemoryUse | None = None,
        scratch: Scratch | None = None,
    ) -> Prediction:
        """Segment one case.

        Args:
            image: ``(c, x, y, z)``; ADC in 1e-6 mm2/s, other channels as in training.
            channels: name of each channel; "zadc" may be missing when the run makes it from ADC.
            origin: how the brain is known, see :class:`neoseg.data.brain_mask.BrainMask`; what is not brain is 0 then.
            mask: the brain ``(x, y, z)`` where it is given: what lies outside is not looked at, and background.
            wanted: what else is made; default the probabilities.
            use: how much is in memory at a time; default as much as is fastest.
            scratch: where large arrays are kept; default in memory.

        Raises:
            InputError: a channel is missing, or the image is empty.
        """
        return self.segment(self.ready(image, channels, origin, mask), wanted=wanted, use=use, scratch=scratch)

    def ready(
        self,
        image: Volume,
        channels: Sequence[str],
        origin: Origin = "everything",
        mask: NDArray[np.bool_] | None = None,
    ) -> Ready:
        """Do what comes before the networks; see :meth:`predict`, which does both.

        Raises:
            InputError: a channel is missing, or the image is empty.
        """
        return self.steps.ready(image, channels, origin, mask)

    def segment(
        self,
        ready: Ready,
        *,
        wanted: Wanted | None = None,
        use: MemoryUse | None = None,
        scratch: Scratch | None = None,
    ) -> Prediction:
        """Segment one case that is prepared; the arguments are those of :meth:`predict`."""
        wanted, scratch = wanted or Wanted(), scratch or Scratch()
        physical, prepared, grid = ready.physical, ready.prepared, ready.grid
        found = self.ensemble.prepared(prepared.image, members=wanted.uncertainty, use=use, scratch=scratch)
        maps = _Maps.of(grid, physical, len(found) - 1, self.ensemble.targets, wanted, scratch)
        maps.fill(found, prepared.space, self.postprocess)
        return Prediction(
            label=Volume(_decoded(self.labels, maps.cleaned(grid.spacing, self.postprocess)), grid),
            probabilities=Volume(maps.probabilities, grid) if maps.probabilities is not None else None,
            physical=physical,
            warnings=(*self.notes, *physical.warnings, *unlike(physical.facts, self.cohort), *prepared.warnings),
            uncertainty=maps.uncertainty(grid, self.postprocess),
        )

    @property
    def steps(self) -> Steps:
        """What comes before the networks."""
        plan = self.ensemble.plan
        settings = PrepareSettings(
            channels=plan.channels,
            spacing_mm=plan.spacing_mm,
            unit=plan.unit,
            rules=plan.rules,
            statistics=plan.statistics,
        )
        return Steps(self.prepare, settings, self.atlas, self.template)


@dataclass(frozen=True, eq=False)
class _Maps:
    """The results of one scan on its own grid, filled slab by slab.

    Attributes:
        part: the grid of the box around the foreground, which alone is filled.
        start: first voxel of the box.
        limit: the brain on the box where its mask was given.
        masks: uint8 ``(1 + folds, *box)``: the ensemble's classes, then those of each fold.
        probabilities, entropy, spread: float32 ``(channels, x, y, z)`` on the whole grid, when wanted.
        targets: what the networks were asked for.
    """

    part: Grid
    start: tuple[int, ...]
    shape: tuple[int, ...]
    limit: NDArray[np.bool_] | None
    masks: NDArray[np.uint8]
    probabilities: NDArray[np.float32] | None
    entropy: NDArray[np.float32] | None
    spread: NDArray[np.float32] | None
    scratch: Scratch
    targets: Targets

    @staticmethod
    def of(grid: Grid, physical: Physical, folds: int, targets: Targets, wanted: Wanted, scratch: Scratch) -> _Maps:
        start, shape = bounding_box(physical.mask, margin=1)
        full = grid.shape
        return _Maps(
            part=physical.image.grid.cropped(start, shape),
            start=start,
            shape=full,
            limit=None if physical.limit is None else physical.limit[_slices(start, shape)],
            masks=np.zeros((1 + folds, *shape), dtype=np.uint8),
            probabilities=scratch.array((len(targets.names), *full)) if wanted.probabilities else None,
            entropy=scratch.array((1, *full)) if wanted.uncertainty else None,
            spread=scratch.array((1, *full)) if wanted.uncertainty and folds else None,
            scratch=scratch,
            targets=targets,
        )

    def fill(self, found: NDArray[np.float32], space: Space, config: PostprocessConfig) -> None:
        """Bring the probabilities ``(sets, channels, x, y, z)`` of the prepared grid home."""
        (sets, channels), targets = found.shape[:2], self.targets
        outside = targets.background() * sets
        flat = found.reshape(sets * channels, *found.shape[2:])
        background = np.array(outside, dtype=np.float32).reshape(-1, *[1] * len(self.shape))
        for first, slab in restored_slabs(flat, space.grid, self.part, space.transform, outside=outside):
            if self.limit is not None:
                slab = np.where(self.limit[first : first + slab.shape[1]], slab, background)
            values = slab.reshape(sets, channels, *slab.shape[1:])
            for mask, one in zip(self.masks, values, strict=True):
                mask[first : first + slab.shape[1]] = decide(one, config, targets)
            box = _slices(self.start, self.part.shape)
            begin = self.start[0] + first
            place = (slice(None), slice(begin, begin + slab.shape[1]), *box[1:])
            if self.probabilities is not None:
                self.probabilities[place] = values[0, targets.foreground]
            if self.entropy is not None:
                self.entropy[place] = entropy(values[0], targets)
            if self.spread is not None:
                self.spread[place] = spread(values[1:], targets)
            for array in (found, self.probabilities, self.entropy, self.spread):
                if array is not None:
                    self.scratch.release(array)

    def cleaned(self, spacing_mm: Sequence[float], config: PostprocessConfig) -> NDArray[np.uint8]:
        """Return the ensemble's classes on the whole grid, after post-processing."""
        full = np.zeros(self.shape, dtype=np.uint8)
        full[_slices(self.start, self.part.shape)] = clean(self.masks[0], spacing_mm, config)
        return full

    def uncertainty(self, grid: Grid, config: PostprocessConfig) -> Uncertainty | None:
        """Return the maps and the range of volumes, or ``None`` when they were not wanted."""
        if self.entropy is None:
            return None
        ranges: dict[str, tuple[float, float]] = {}
        if self.spread is not None:
            masks = [clean(mask, grid.spacing, config) for mask in self.masks[1:]]
            ranges = {n: range_ml(masks, own, grid.voxel_size) for n, own in self.targets.structures.items()}
        spread_map = Volume(self.spread, grid) if self.spread is not None else None
        return Uncertainty(Volume(self.entropy, grid), spread_map, ranges)


def _slices(start: Sequence[int], shape: Sequence[int]) -> tuple[slice, ...]:
    return tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))


def _decoded(labels: LabelSet, classes: NDArray[np.uint8]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the stored values ``(1, x, y, z)``, plane by plane: looking up a volume at once takes eight times it."""
    result = np.empty((1, *classes.shape), dtype=labels.dtype)
    for plane, values in zip(result[0], classes, strict=True):
        plane[...] = labels.decode(values)
    return result
