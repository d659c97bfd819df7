"""Squeeze and excitation: features weighted channel by channel, and voxel by voxel."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.tokens import conv_of

__all__ = ["SqueezeExcitation", "skip_attention_of"]

REDUCTION = 2
"""Channels are squeezed to half as many, which Roy et al. found best for segmentation (Hu et al. have a sixteenth)."""


class SqueezeExcitation(nn.Module):
    """Weigh features (B, C, x, y, z) by factors in 0..1 that are computed from themselves.

    For each channel: sigmoid(W2 relu(W1 mean)), with the mean over all voxels (Hu et al., CVPR 2018, equations 2 to 4).
    EfficientNet has a SiLU in place of the ReLU.
    With `spatial` the features weighed by a factor for each voxel, the sigmoid of a 1x1x1 convolution, are added, the
    "scSE" of Roy et al., MICCAI 2018 (arXiv 1803.02579, section 2.3).

    Args:
        channels: channels C.
        axes: 2 for planes, 3 for volumes.
        spatial: a factor for each voxel too.
        squeezed: channels inside; None: half as many.
        activation: of the squeezed channels.
    """

    def __init__(
        self,
        channels: int,
        axes: int,
        *,
        spatial: bool,
        squeezed: int | None = None,
        activation: Literal["relu", "silu"] = "relu",
    ) -> None:
        super().__init__()
        hidden = squeezed or max(channels // REDUCTION, 1)
        self.activation = functional.silu if activation == "silu" else functional.relu
        self.squeeze, self.excite = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.voxels = conv_of(axes)(channels, 1, 1) if spatial else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, x, y, z) to the same shape."""
        mean = x.mean(dim=tuple(range(2, x.ndim)))
        factor = torch.sigmoid(self.excite(self.activation(self.squeeze(mean))))
        factor = factor.view(*factor.shape, *(1,) * (x.ndim - 2))
        if self.voxels is not None:
            factor = factor + torch.sigmoid(convolve(self.voxels, x))
        return x * factor


def skip_attention_of(kind: Literal["none", "se", "scse"], channels: int, axes: int) -> nn.Module:
    """Return what encoder features pass on their way to the decoder; "none" passes them as they are."""
    return nn.Identity() if kind == "none" else SqueezeExcitation(channels, axes, spatial=kind == "scse")
