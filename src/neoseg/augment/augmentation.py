"""All transforms in their order, as one thing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from .configs import AugmentConfig
from .intensity import BRIGHTNESS, CONTRAST, GAMMA, NOISE
from .resolution import BLUR, LOW_RESOLUTION
from .spatial import AFFINE, FLIP
from .transform import BatchInfo, Parameters

__all__ = ["AUGMENTATIONS", "Augmentation"]

AUGMENTATIONS = (AFFINE, FLIP, BLUR, LOW_RESOLUTION, BRIGHTNESS, CONTRAST, GAMMA, NOISE)
"""Every transform, in the order in which they are applied."""


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
        """Sample and apply.

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

    def apply(
        self, image: Tensor, label: Tensor, parameters: Mapping[str, Parameters], info: BatchInfo
    ) -> tuple[Tensor, Tensor]:
        """Apply the transforms that have parameters, in the order of :data:`AUGMENTATIONS`."""
        background: Tensor | None = None
        for transform in AUGMENTATIONS:
            if transform.name not in parameters:
                continue
            if not transform.moves and background is None and self.config.keep_background:
                background = (image == info.fill).all(dim=1, keepdim=True)
            image, label = transform.apply(image, label, parameters[transform.name], info)
        if background is not None:
            image = torch.where(background, info.fill, image)
        return image, label
