"""Light encoders as published: the tables of MobileNetV2 and of EfficientNet-B0 to B3; no torch here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

__all__ = ["FULL_WIDTH", "LIGHT_ENCODERS", "LightBlock", "LightEncoder", "LightName", "Stage"]

LightName = Literal["mobilenet_v2", "efficientnet_b0", "efficientnet_b1", "efficientnet_b2", "efficientnet_b3"]

FULL_WIDTH = 16
"""Channels at full resolution, which the papers' networks leave with their first convolution. As many as these have at
half resolution (B3: 24), so that two convolutions there do not outweigh the encoder."""

DIVISOR = 8
"""Scaled widths are multiples of it."""

SQUEEZED = 0.25
"""Channels inside a squeeze and excitation as a share of those that the block takes, before they are expanded."""


class Stage(NamedTuple):
    """One row of a paper's table.

    Attributes:
        expansion: what channels are multiplied by inside a block.
        kernel: size of the depthwise convolution along each axis.
        width: channels out.
        blocks: how many.
        stride: of the first of them.
    """

    expansion: int
    kernel: int
    width: int
    blocks: int
    stride: int


class LightBlock(NamedTuple):
    """One inverted residual.

    Attributes:
        inputs: channels in.
        outputs: channels out.
        expansion: what channels are multiplied by inside.
        kernel: size of the depthwise convolution along each axis.
        stride: what each axis is divided by.
        squeezed: channels inside squeeze and excitation; 0: there is none.
    """

    inputs: int
    outputs: int
    expansion: int
    kernel: int
    stride: int
    squeezed: int

    @property
    def hidden(self) -> int:
        """Channels of the depthwise convolution."""
        return self.inputs * self.expansion


class LightEncoder(NamedTuple):
    """A published network without what makes classes of its last features.

    Attributes:
        name: what configuration files call it.
        stem: channels of the first convolution, 3 voxels wide with stride 2.
        stages: rows of the paper's table.
        squeeze: squeeze and excitation in every block.
        activation: "relu6" is min(max(x, 0), 6), "silu" is x times its sigmoid.
    """

    name: LightName
    stem: int
    stages: tuple[Stage, ...]
    squeeze: bool
    activation: Literal["relu6", "silu"]

    @property
    def rows(self) -> tuple[tuple[LightBlock, ...], ...]:
        """Blocks of each resolution from half size down; a new row begins where a block has a stride."""
        rows: list[list[LightBlock]] = [[]]
        width = self.stem
        for stage in self.stages:
            for number in range(stage.blocks):
                stride = 1 if number else stage.stride
                if stride > 1:
                    rows.append([])
                squeezed = max(1, int(width * SQUEEZED)) if self.squeeze else 0
                rows[-1].append(LightBlock(width, stage.width, stage.expansion, stage.kernel, stride, squeezed))
                width = stage.width
        return tuple(tuple(row) for row in rows)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the features of each resolution, full size first."""
        return (FULL_WIDTH, *(row[-1].outputs for row in self.rows))

    def strides(self, axes: int) -> tuple[tuple[int, ...], ...]:
        """Return what each level divides each axis by, full size first."""
        return ((1,) * axes, *[(2,) * axes] * len(self.rows))


def _efficientnet(name: LightName, width: float, depth: float) -> LightEncoder:
    """Return B0 (Tan & Le 2019, table 1) with its channels and blocks multiplied as their equation 3 has it."""
    table = (
        Stage(1, 3, 16, 1, 1),
        Stage(6, 3, 24, 2, 2),
        Stage(6, 5, 40, 2, 2),
        Stage(6, 3, 80, 3, 2),
        Stage(6, 5, 112, 3, 1),
        Stage(6, 5, 192, 4, 2),
        Stage(6, 3, 320, 1, 1),
    )
    stages = (s._replace(width=_scaled(s.width, width), blocks=math.ceil(s.blocks * depth)) for s in table)
    return LightEncoder(name, _scaled(32, width), tuple(stages), squeeze=True, activation="silu")


def _scaled(channels: int, factor: float) -> int:
    """Return the nearest multiple of 8, the next one where that takes away more than a tenth (the authors' code)."""
    wanted = channels * factor
    nearest = max(DIVISOR, int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR)
    return nearest + DIVISOR if nearest < 0.9 * wanted else nearest


LIGHT_ENCODERS: Mapping[str, LightEncoder] = MappingProxyType(
    {
        "mobilenet_v2": LightEncoder(
            "mobilenet_v2",
            stem=32,
            stages=(
                Stage(1, 3, 16, 1, 1),
                Stage(6, 3, 24, 2, 2),
                Stage(6, 3, 32, 3, 2),
                Stage(6, 3, 64, 4, 2),
                Stage(6, 3, 96, 3, 1),
                Stage(6, 3, 160, 3, 2),
                Stage(6, 3, 320, 1, 1),
            ),
            squeeze=False,
            activation="relu6",
        ),
        "efficientnet_b0": _efficientnet("efficientnet_b0", 1.0, 1.0),
        "efficientnet_b1": _efficientnet("efficientnet_b1", 1.0, 1.1),
        "efficientnet_b2": _efficientnet("efficientnet_b2", 1.1, 1.2),
        "efficientnet_b3": _efficientnet("efficientnet_b3", 1.2, 1.4),
    }
)
"""Sandler et al., CVPR 2018, table 2, with a width of 1; Tan & Le, ICML 2019, table 1 and its scaled forms."""
