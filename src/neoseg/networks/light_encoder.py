"""MobileNetV2 and EfficientNet as encoders of U-shaped networks."""

from __future__ import annotations

from torch import Tensor, nn

from neoseg.networks.blocks.conv_block import ConvBlock, Form, row_of
from neoseg.networks.blocks.inverted_residual import InvertedResidual
from neoseg.networks.configs import ConvUNet, LightEncoder
from neoseg.networks.configs.unets import CONVOLUTIONS, KERNEL

__all__ = ["InvertedResidualEncoder"]


class InvertedResidualEncoder(nn.Module):
    """Features of each level, full size first.

    The published network reads the image with a strided convolution; what it has at the end of each resolution is
    handed on, half size first. What is beyond belongs to its classifier: the last 1x1 convolution to 1280 channels or
    more is not built. Beside it two plain convolutions read the image at full resolution, for the decoder alone.

    Batch normalisation has torch's momentum and epsilon, 0.1 and 1e-5, since trainings here are short; the authors'
    code has 0.01 and 1e-3.

    Args:
        config: the network; its own activation and normalisation are those of the full resolution.
        light: the published network.
        in_channels: channels of the input.
        levels: how many levels to build, full resolution included.
    """

    def __init__(self, config: ConvUNet, light: LightEncoder, in_channels: int, levels: int) -> None:
        super().__init__()
        axes, own = config.spatial_dims, Form(config.norm, light.activation)
        full, kernel = config.levels[0], (KERNEL,) * axes
        form = Form(config.norm, config.activation)
        stages = [row_of(CONVOLUTIONS, (in_channels, full.width), full.kernel, form, dropout=config.dropout)]
        for row in light.rows[: levels - 1]:
            blocks = [
                InvertedResidual(size, own, axes, dropout=0 if n else config.dropout) for n, size in enumerate(row)
            ]
            stages.append(nn.Sequential(*blocks))
        self.stem = ConvBlock(in_channels, light.stem, kernel, own, stride=(2,) * axes)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map (B, in_channels, x, y, z) to one tensor for each level."""
        full, *rows = self.stages
        features, x = [full(x)], self.stem(x)
        for row in rows:
            x = row(x)
            features.append(x)
        return features
