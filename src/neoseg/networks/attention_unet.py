"""Attention U-Net: gates on the skips of a U-Net (Oktay et al., MIDL 2018, arXiv 1804.03999)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from neoseg.networks.blocks.any_size import on_padded
from neoseg.networks.blocks.attention_gate import AttentionGate, enlarged
from neoseg.networks.blocks.conv_block import initialise, row_of, step_up
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.configs import AttentionUNetConfig
from neoseg.networks.configs.unets import CONVOLUTIONS
from neoseg.networks.u_shaped import UShaped, head

__all__ = ["AttentionUNet"]


class AttentionUNet(UShaped):
    """U-Net whose skips are weighed voxel by voxel, for images of any size.

    The gate of a level sees the encoder's features there and the decoder's of the level below, before they are brought
    to its size. All skips have one; the authors' code leaves the first as it is. With deep supervision each level has
    an output of its own, where that code joins all levels at full size to one.

    Args:
        config: the network; its widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each of two or three axes that the network is planned for.

    Raises:
        ConfigError: widths or strides are not set, or there is no channel or no class.
        GeometryError: the patch is no multiple of the strides, or leaves a single voxel where it cannot be normalised.
    """

    def __init__(self, config: AttentionUNetConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__(config, in_channels=in_channels, classes=classes, patch=patch)
        self.config = config
        pairs = list(pairwise(self.levels))
        self.gates = nn.ModuleList(
            AttentionGate(high.width, low.width, config.gate_channels(high.width), low.stride) for high, low in pairs
        )
        self.up = nn.ModuleList(step_up(low.width, high.width, low.stride, self.form) for high, low in pairs)
        self.decoder = nn.ModuleList(
            row_of(CONVOLUTIONS, (2 * level.width, level.width), level.kernel, self.form, dropout=config.dropout)
            for level in self.levels[:-1]
        )
        supervised = self.levels[:-1] if config.deep_supervision else self.levels[:1]
        self.heads = nn.ModuleList(head(level.width, classes, len(self.patch)) for level in supervised)
        initialise(self)

    def attention(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the factors in 0..1 of each level's gate for every voxel, full resolution first, (B, 1, x, y, z) each.

        Those of lower levels are interpolated to the input's size, as for a figure. Normalisation and dropout are as
        in the mode that the network is in.

        Args:
            x: images (B, in_channels, any sizes).

        Raises:
            GeometryError: as `forward`.
        """
        return on_padded(self._maps, self._checked(x), self.multiple)

    def _maps(self, x: Tensor) -> tuple[Tensor, ...]:
        _, maps = self._decoded(x)
        return tuple(enlarged(one, x.shape[2:]) for one in maps)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of images whose sizes suit the network."""
        features, _ = self._decoded(x)
        return tuple(convolve(head, feature) for head, feature in zip(self.heads, features, strict=False))

    def _decoded(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the decoder's features and the gates' factors, full resolution first."""
        skips, feature = self._encoded(x)
        features, maps = [], []
        for level in reversed(range(len(skips))):
            factors = self.gates[level](skips[level], feature)
            gated = torch.cat((self.up[level](feature), skips[level] * factors), dim=1)
            feature = self.decoder[level](gated)
            features.append(feature)
            maps.append(factors)
        return features[::-1], maps[::-1]
