"""UNETR: what it asks and allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from neoseg.errors import ConfigError

from .base import NetworkBase, Positive, Share, axes_wanted, times

__all__ = ["STAGES", "UnetrConfig", "step_sizes"]

STAGES = 4
"""Steps of the decoder from the grid of tokens to the voxels."""


class UnetrConfig(NetworkBase, frozen=True, extra="forbid"):
    """UNETR (Hatamizadeh et al., WACV 2022, arXiv 2103.10504): a vision transformer as the encoder of a U-Net.

    The defaults are the paper's ViT-B/16 and its decoder, with 92.8 million parameters. A smaller network is made by
    `hidden`, `mlp`, `heads`, `layers` and `feature_size`.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: four outputs, one of each step of the decoder, full size first, in place of one. The paper has
            one.
        patch_size: voxels that become one token, on each axis: powers of two, such as (16, 16, 4) for thick slices.
            Omitted: from the plan. The decoder comes back in four steps, the largest at the lowest resolution:
            16 is 2 x 2 x 2 x 2, 4 is 2 x 2 x 1 x 1, and 32 is 4 x 2 x 2 x 2.
        hidden: channels of a token; a multiple of `heads`.
        layers: transformer layers.
        heads: attention heads of each layer.
        mlp: channels inside the perceptron of each layer.
        skip_layers: three layers, counted from 1, whose tokens go to the decoder beside those of the last one. Omitted:
            those at a quarter, a half and three quarters, 3, 6 and 9 of 12, as the paper says. The authors' code and
            MONAI take 4, 7 and 10; their weights need those.
        feature_size: channels at full resolution; 2, 4 and 8 times as many at the lower ones.
        norm: normalisation of the decoder's convolutions. "plain_instance" (no scale, no shift) is published; it takes
            from each patch its mean. The others: see UNETR++.
        dropout: share of values dropped in the transformer while training.
        checkpointing: what is computed again in the backward pass in place of being kept, which saves memory and
            costs time: "none", the convolutions at "full_size", or "all" of those, the layers and the lower decoder.
            Results are the same.
    """

    kind: Literal["unetr"] = "unetr"
    deep_supervision: bool = False
    patch_size: tuple[Positive, ...] | None = None
    hidden: Positive = 768
    layers: Annotated[int, Field(ge=4)] = 12
    heads: Positive = 12
    mlp: Positive = 3072
    skip_layers: tuple[Positive, Positive, Positive] | None = None
    feature_size: Positive = 16
    norm: Literal["batch", "instance", "group", "plain_instance"] = "plain_instance"
    dropout: Share = 0.0
    checkpointing: Literal["none", "full_size", "all"] = "none"

    @property
    def learns_positions(self) -> bool:
        """A table of positions."""
        return True

    @property
    def any_size(self) -> bool:
        """The table of positions is resized, so any size goes in."""
        return True

    @property
    def multiple(self) -> tuple[int, ...]:
        """The voxels of a token.

        Raises:
            ConfigError: there is no patch size, or one for other axes.
        """
        if self.patch_size is None:
            raise ConfigError(f"network.patch_size of {self.kind!r} is not set: set it, or let the plan choose it")
        if len(self.patch_size) != self.spatial_dims:
            raise ConfigError(
                f"network.spatial_dims = {self.spatial_dims}, but the patch_size {times(self.patch_size)} has "
                f"{len(self.patch_size)} axes: set network.spatial_dims to the axes of the images"
            )
        return self.patch_size

    @property
    def skips(self) -> tuple[int, int, int]:
        """The layers, counted from 1, whose tokens the decoder takes beside those of the last one."""
        if self.skip_layers is not None:
            return self.skip_layers
        return self.layers // 4, self.layers // 2, 3 * self.layers // 4

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Refuse widths, layers and patch sizes that make no network."""
        if self.hidden % self.heads:
            raise ValueError(
                f"hidden = {self.hidden} is not a multiple of heads = {self.heads}: "
                f"use {max(self.hidden // self.heads, 1) * self.heads}"
            )
        first, second, third = self.skips
        if not first < second < third < self.layers:
            raise ValueError(
                f"skip_layers = {list(self.skips)}, but they have to rise and to stay below layers = {self.layers}"
            )
        if self.patch_size is None:
            return self
        if len(self.patch_size) != self.spatial_dims:
            wanted = axes_wanted(len(self.patch_size), self.spatial_dims)
            raise ValueError(f"patch_size has {len(self.patch_size)} entries: {wanted}")
        if any(size & (size - 1) for size in self.patch_size) or max(self.patch_size) == 1:
            raise ValueError(
                f"patch_size is {list(self.patch_size)}, but every size has to be a power of two, and one of them more "
                "than 1"
            )
        return self


def step_sizes(patch_size: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Return what each of the four steps of the decoder multiplies the axes by, the lowest resolution first.

    Each axis is a power of two; its twos are dealt out from the lowest step upwards, so that an axis of thick slices
    is left alone at the high resolutions, where its voxels are longer than the others.
    """
    twos = [size.bit_length() - 1 for size in patch_size]
    return tuple(tuple(2 ** (n // STAGES + (n % STAGES > stage)) for n in twos) for stage in range(STAGES))
