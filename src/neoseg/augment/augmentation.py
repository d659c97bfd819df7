"""All transforms in their order, as one thing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from .artefacts import BIAS_FIELD, GHOSTING
from .colour import COLOUR
from .configs import AugmentConfig
from .intensity import BRIGHTNESS, CONTRAST, GAMMA, NOISE
from .modality import DROPPED_MODALITY
from .pieces import Box, Piece
from .resolution import ANISOTROPY, BLUR, LOW_RESOLUTION
from .spatial import AFFINE, ELASTIC, FLIP, boxes, warp, warp_pieces
from .transform import BatchInfo, Parameters

__all__ = ["AUGMENTATIONS", "Augmentation"]

AUGMENTATIONS = (
    AFFINE,
    ELASTIC,
    FLIP,
    BLUR,
    LOW_RESOLUTION,
    ANISOTROPY,
    GHOSTING,
    BIAS_FIELD,
    COLOUR,
    BRIGHTNESS,
    CONTRAST,
    GAMMA,
    NOISE,
    DROPPED_MODALITY,
)
"""Every transform, in the order in which they are drawn and applied.

Space comes first: the artefacts of a scanner lie along the axes of its grid, so slices, ghosts and noise must not be
turned or interpolated with the head. Then sharpness and artefacts, which act on the signal: they come before the
values are bent, and a ghost, a copy of what the scanner resolves, after the resolution. Then intensity: the field of
the coil, the mixture of the colours, and the scale of the values. Noise follows, since it is as fine as a voxel and
nothing may smooth it again. A dropped modality is last, since it has to stay exactly empty.

Affine and elastic are neighbours, and one resampling does both.
"""

_MOVED = (AFFINE.name, ELASTIC.name)


class Augmentation:
    """Changes batches as a config says; the same generator state gives the same bits."""

    def __init__(self, config: AugmentConfig) -> None:
        """Keep the probabilities and ranges."""
        self.config = config

    def __call__(
        self,
        image: Tensor,
        label: Tensor,
        generator: np.random.Generator,
        *,
        spacing_mm: tuple[float, ...],
        fill: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """Sample and apply; what a turn or a zoom brings in from beyond the patches is the fill value.

        Training cuts larger pieces instead, by :meth:`sample`, :meth:`boxes` and :meth:`make`.

        Args:
            image: ``(b, c, x, y, z)`` or ``(b, c, x, y)`` float32 on any device.
            label: ``(b, x, y, z)`` or ``(b, x, y)`` class indices.
            generator: of the parameters.
            spacing_mm: voxel size of the patches.
            fill: image value outside the image.
        """
        info = BatchInfo(image.shape[0], image.shape[1], tuple(image.shape[2:]), spacing_mm, fill)
        return self.apply(image, label, self.sample(generator, info), info)

    def sample(self, generator: np.random.Generator, info: BatchInfo) -> dict[str, Parameters]:
        """Draw the parameters of every transform, by name."""
        return {transform.name: transform.sample(self.config, generator, info) for transform in AUGMENTATIONS}

    def boxes(self, parameters: Mapping[str, Parameters], info: BatchInfo) -> list[Box | None]:
        """Return for each sample the voxels that its patch is made from; ``None``: the patch itself."""
        return boxes(parameters[AFFINE.name], parameters[ELASTIC.name], info)

    def make(
        self, pieces: Sequence[Piece], parameters: Mapping[str, Parameters], info: BatchInfo
    ) -> tuple[Tensor, Tensor]:
        """Make a batch of the pieces, and apply the transforms.

        Args:
            pieces: for each sample its box, or what of it lies in the volume; without a box, the patch.
            parameters: of every transform.
            info: of the batch; its shape is that of the patch.
        """
        image, label = warp_pieces(pieces, parameters[AFFINE.name], parameters[ELASTIC.name], info)
        return self.apply(image, label, {k: v for k, v in parameters.items() if k not in _MOVED}, info)

    def apply(
        self, image: Tensor, label: Tensor, parameters: Mapping[str, Parameters], info: BatchInfo
    ) -> tuple[Tensor, Tensor]:
        """Apply the transforms that have parameters, in the order of :data:`AUGMENTATIONS`."""
        waiting = [transform for transform in AUGMENTATIONS if transform.name in parameters]
        if AFFINE in waiting and ELASTIC in waiting:
            image, label = warp(image, label, parameters[AFFINE.name], parameters[ELASTIC.name], info)
            waiting = [transform for transform in waiting if transform not in (AFFINE, ELASTIC)]
        background: Tensor | None = None
        for transform in waiting:
            if not transform.moves and background is None:
                before = replace(info, background=None, empty=None)
                background = before.outside(image)
                info = replace(info, background=background, empty=before.empty_channels(image))
            image, label = transform.apply(image, label, parameters[transform.name], info)
        if background is not None and (self.config.keep_background or len(info.shape) == 3):
            # a sequence that was not taken is empty in prediction too, whatever black means in the others; the channels
            # of a picture are colours, of which none is ever missing
            filled = info.empty_channels(image)[(...,) + (None,) * len(info.shape)]
            filled = filled | background if self.config.keep_background else filled
            image = torch.where(filled, info.fill, image)
        return image, label
