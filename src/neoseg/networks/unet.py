"""The U-Net, plain or with a residual encoder, as nnU-Net configures it (Isensee et al., Nature Methods 18, 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from neoseg.networks.blocks.conv_block import initialise, row_of, step_up
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.configs import UNetBase
from neoseg.networks.u_shaped import UShaped, head

__all__ = ["UNet"]


class UNet(UShaped):
    """U-Net of any number of levels (Ronneberger et al., MICCAI 2015) for images of any size.

    An encoder level is a row of convolutions, or of residual blocks behind a convolution at full resolution. A decoder
    level brings what is below to its size by a transposed convolution, sets the encoder's features beside it and
    convolves. Differences from nnU-Net's code: convolutions have a bias only where no normalisation follows, and the
    lowest decoder level too is compared with the truth, with the least weight.

    Args:
        config: the network; its widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each of two or three axes that the network is planned for.

    Raises:
        ConfigError: widths or strides are not set, or there is no channel or no class.
        GeometryError: the patch is no multiple of the strides, or leaves a single voxel where it cannot be normalised.
    """

    def __init__(self, config: UNetBase, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__(config, in_channels=in_channels, classes=classes, patch=patch)
        self.config = config
        pairs = list(pairwise(self.levels))
        up = [config.up_width(level.width) for level in self.levels[:-1]]
        self.up = nn.ModuleList(
            step_up(low.width, width, low.stride, self.form) for width, (_, low) in zip(up, pairs, strict=True)
        )
        self.decoder = nn.ModuleList(
            row_of(config.convs_up, (width + level.width, level.width), level.kernel, self.form, dropout=config.dropout)
            for width, level in zip(up, self.levels[:-1], strict=True)
        )
        supervised = self.levels[:-1] if config.deep_supervision else self.levels[:1]
        self.heads = nn.ModuleList(head(level.width, classes, len(self.patch)) for level in supervised)
        initialise(self)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of images whose sizes suit the network."""
        skips, feature = self._encoded(x)
        features = []
        for up, decoder, skip in zip(reversed(self.up), reversed(self.decoder), reversed(skips), strict=True):
            feature = decoder(torch.cat((up(feature), skip), dim=1))
            features.append(feature)
        return tuple(convolve(head, feature) for head, feature in zip(self.heads, reversed(features), strict=False))
