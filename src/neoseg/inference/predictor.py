"""Predictor: arrays in, arrays out, no files; loaded once, used for any number of cases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ..data.foreground import bounding_box
from ..data.loading import LoadedImages
from ..errors import InputError
from ..labels import LabelSet
from ..plan.plan import Plan
from ..prepare.atlas import Atlas
from ..prepare.case import Physical, physical_maps, prepared_array
from ..prepare.configs import PrepareConfig, PrepareSettings
from ..prepare.standardise import Space, Template
from ..register.plausible import unlike
from ..volume import Grid, Volume
from .configs import WindowConfig
from .ensemble import mean_of
from .postprocess import PostprocessConfig, apply
from .restore import restore
from .sliding_window import predict_probabilities

__all__ = ["Ensemble", "Prediction", "Predictor"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was found in one case, on the grid of its image.

    Attributes:
        label: the values that the label set writes (uint8 or uint16), one channel.
        probabilities: float32, one channel a foreground class; 0 outside the foreground of the image.
        physical: the maps in physical units that the network's input was made from.
        warnings: sentences that a reader of the result should know.
    """

    label: Volume
    probabilities: Volume
    physical: Physical
    warnings: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks of one plan whose probabilities are averaged.

    Attributes:
        networks: in evaluation mode, on ``device``.
        plan: the patch.
        classes: with background.
        window: how a volume is covered.
        device: where the networks are.
    """

    networks: Sequence[nn.Module]
    plan: Plan
    classes: int
    window: WindowConfig
    device: str

    def probabilities(self, image: NDArray[np.float32], space: Space, target: Grid) -> NDArray[np.float32]:
        """Return the class probabilities ``(classes, x, y, z)`` of a prepared image on a grid of the scan's world.

        Args:
            image: ``(c, x, y, z)`` as prepared.
            space: where ``image`` lies.
            target: the grid wanted, usually the part of the scan's grid around its foreground.
        """
        found = predict_probabilities(
            mean_of(self.networks),
            image,
            patch=self.plan.patch,
            classes=self.classes,
            config=self.window,
            device=self.device,
        )
        return restore(found.cpu().numpy(), space.grid, target, space.transform)


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
    """

    ensemble: Ensemble
    labels: LabelSet
    prepare: PrepareConfig
    postprocess: PostprocessConfig
    atlas: Atlas | None = None
    template: Template | None = None
    cohort: Sequence[Mapping[str, float]] = ()

    def predict(self, image: Volume, channels: Sequence[str]) -> Prediction:
        """Segment one case.

        Args:
            image: ``(c, x, y, z)``; ADC in 1e-6 mm2/s, other channels as in training.
            channels: name of each channel; "zadc" may be missing when the run makes it from ADC.

        Raises:
            InputError: a channel is missing, or the image is empty.
        """
        missing = [c for c in self.ensemble.plan.channels if c not in channels and not (c == "zadc" and self.atlas)]
        if missing or len(channels) != image.array.shape[0]:
            raise InputError(
                f"The channels {list(channels)} were given for an image of {image.array.shape[0]} channels, but "
                f"{list(self.ensemble.plan.channels)} are wanted."
            )
        loaded = LoadedImages(image.with_array(image.array.astype(np.float32, copy=False)), tuple(channels), ())
        want = self.ensemble.plan.channels
        physical = physical_maps(loaded, self.prepare, self.atlas, want=want, template=self.template)
        prepared = prepared_array(physical, self.prepare, self._settings, template=self.template)
        start, shape = bounding_box(physical.mask, margin=1)
        box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
        inside = self.ensemble.probabilities(prepared.image, prepared.space, physical.image.grid.cropped(start, shape))
        classes = apply(inside, image.grid.spacing, self.postprocess)
        full = np.zeros((inside.shape[0] - 1, *image.grid.shape), dtype=np.float32)
        full[(slice(None), *box)] = inside[1:]
        label = np.zeros(image.grid.shape, dtype=np.uint8)
        label[box] = classes
        return Prediction(
            label=Volume(self.labels.decode(label)[None], image.grid),
            probabilities=Volume(full, image.grid),
            physical=physical,
            warnings=(*physical.warnings, *unlike(physical.facts, self.cohort), *prepared.warnings),
        )

    @property
    def _settings(self) -> PrepareSettings:
        plan = self.ensemble.plan
        return PrepareSettings(
            channels=plan.channels, spacing_mm=plan.spacing_mm, rules=plan.rules, statistics=plan.statistics
        )
