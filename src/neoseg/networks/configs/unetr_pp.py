"""UNETR++: what it asks and allows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, model_validator

from neoseg.errors import ConfigError

from .base import NetworkBase, Norm, Positive, Share, axes_wanted, check_patch, lowest_voxels_of, times

__all__ = ["UnetrPPConfig", "axes_of", "check_orientation", "token_grids"]

AXIS_OF_LETTER = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}


def axes_of(orientation: str) -> list[int]:
    """Return for each letter of an orientation such as "SPL" the axis of (x, y, z) that it runs along: [2, 1, 0]."""
    return [AXIS_OF_LETTER[letter] for letter in orientation]


def check_orientation(orientation: str) -> None:
    """Refuse an orientation that does not name each of the three axes of the body once.

    Raises:
        ConfigError: another number of letters, other letters, or an axis named twice.
    """
    if sorted(AXIS_OF_LETTER.get(letter, -1) for letter in orientation) != [0, 1, 2]:
        raise ConfigError(
            f"native_orientation = {orientation!r}: give one of R or L, one of A or P, and one of S or I, in the order "
            'of the array, such as "SPL".'
        )


class UnetrPPConfig(NetworkBase, frozen=True, extra="forbid"):
    """UNETR++ of Shaker et al. (IEEE TMI 2024, arXiv 2212.04497), with what its four published variants differ in.

    A network has `len(dims)` levels. The stem divides the patch by `stem`; each further level halves every axis.

    Attributes:
        kind: the name of the network in configuration files.
        dims: channels of each level, highest resolution first; three levels or more; each a multiple of `heads`.
        depths: attention blocks of each level, in encoder and decoder alike (the lowest level has no decoder).
        heads: attention heads at every level.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        stem: voxels that become one token, on each axis; omitted: from the plan.
        proj: slots that the tokens of each encoder level are projected to for spatial attention.
        decoder_proj: the same for every decoder level.
        token_projection: "shared" one linear layer for keys and values, "separate" one each, "matrix" one matrix
            without bias for both.
        size: "native" takes patches of one size, which positional tables and token projections are tied to. "flex"
            resizes both to the grid at hand, so that any size goes in; at the size that the network was built for it
            computes the same bits as "native". "free" has no parameter that depends on the grid: a depthwise
            convolution in place of the tables, and projections of tokens that are first averaged in cells. Sizes that
            do not suit stem and levels are padded with zeros and cut again. Only for layout "aligned".
        pool_cells: with size "free", cells along each axis that tokens are averaged in before they are projected.
        branches: "both", or the "spatial" or the "channel" attention alone, as in the paper's table of ablations.
        shared_queries_keys: one set of queries and keys for both branches, as published; false gives each its own.
        fusion: "concat" of the two branches, each through a linear layer to half the width, or their "sum".
        as_printed: blocks as the paper prints them in place of what the authors' code does: softmax(Q K^T / sqrt(d))
            without norms and temperatures, one head with a C x C channel map, the sum of both branches, one 3x3x3
            and one 1x1x1 convolution, no tables, no gain. Needs heads = 1, fusion = "sum", conv_blocks = 1.
        conv_blocks: residual convolution blocks after each attention.
        attention_dropout: share of attention weights dropped while training; published 0.10 to 0.15. The default 0 lets
            the fused attention kernels work, which saves time and memory.
        conv_dropout: share of channels dropped before the last 1x1x1 convolution of a block; published 0.1.
        feature_size: channels at full resolution.
        norm: normalisation inside the blocks' convolutions. "batch" is the published one. "instance" (affine) treats a
            patch alike in training and evaluation, which suits images without a unit and batches of one or two.
            "group" normalises groups of eight channels; of a number that is no multiple of eight, groups of the
            divisor nearest to eight: of seven where there are 35.
        full_norm: normalisation of the two convolution blocks at full resolution. "plain_instance" (no scale, no
            shift) is published; it takes from each patch its mean, and with it the level of a quantitative map: a
            brain that is injured throughout looks like a healthy one. "batch" keeps the level.
        layout: "aligned" gives each token its own spatial attention; "legacy" merges the axes in the order of the
            authors' code, which mixes tokens and channels, and is needed to reproduce published weights.
        deep_supervision: three outputs (full size, stem size, half of that) in place of one.
        layer_scale_init: start of the per-channel gain on the attention; 1e-6 is published and switches attention
            off at the start, short trainings may start higher, up to 1.
        checkpointing: what is computed again in the backward pass in place of being kept, which saves memory and
            costs time: "none", the convolutions at "full_size", or "all" of those and the blocks. Results are the same.
        native_orientation: for weights that saw their data in another order of axes than (x, y, z) in RAS+: where
            each axis of their arrays leads, the first one first, such as "SPL". Patches are turned to it and outputs
            back. Omitted: the network sees patches as they are.
    """

    kind: Literal["unetr_pp"] = "unetr_pp"
    dims: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=6)] = (32, 64, 128, 256)
    depths: tuple[Positive, ...] = (3, 3, 3, 3)
    heads: Positive = 4
    stem: tuple[Positive, ...] | None = None
    proj: tuple[Positive, ...] = (64, 64, 64, 32)
    decoder_proj: Positive = 64
    token_projection: Literal["shared", "separate", "matrix"] = "shared"
    size: Literal["native", "flex", "free"] = "native"
    pool_cells: Annotated[int, Field(gt=0, le=16)] = 4
    branches: Literal["both", "spatial", "channel"] = "both"
    shared_queries_keys: bool = True
    fusion: Literal["concat", "sum"] = "concat"
    as_printed: bool = False
    conv_blocks: Literal[1, 2] = 1
    attention_dropout: Share = 0.0
    conv_dropout: Share = 0.1
    feature_size: Positive = 16
    norm: Norm = "batch"
    full_norm: Literal["batch", "instance", "group", "plain_instance"] = "batch"
    layout: Literal["aligned", "legacy"] = "aligned"
    layer_scale_init: Annotated[float, Field(ge=0, le=1)] = 1e-6
    checkpointing: Literal["none", "full_size", "all"] = "none"
    native_orientation: str | None = None

    @property
    def any_size(self) -> bool:
        """Sizes "flex" and "free" take any image."""
        return self.size != "native"

    @property
    def learns_positions(self) -> bool:
        """A table of positions, which "free" does not have."""
        return self.size != "free"

    @property
    def multiple(self) -> tuple[int, ...]:
        """The stem times two for each further level.

        Raises:
            ConfigError: there is no stem, or one for other axes.
        """
        if self.stem is None:
            raise ConfigError(f"network.stem of {self.kind!r} is not set: set it, or let the plan choose it")
        if len(self.stem) != self.spatial_dims:
            raise ConfigError(
                f"network.spatial_dims = {self.spatial_dims}, but the stem {times(self.stem)} has {len(self.stem)} "
                "axes: set network.spatial_dims to the axes of the images"
            )
        return tuple(step * 2 ** (len(self.dims) - 1) for step in self.stem)

    @property
    def lowest_voxels(self) -> int:
        """A single token has no spread that could be normalised, nor where the step to it keeps the channels."""
        # that step always has groups, as many as the level above has channels
        kept = len(self.dims) > 1 and self.dims[-1] == self.dims[-2]
        return lowest_voxels_of("group" if kept else self.norm, one_a_group=kept)

    @model_validator(mode="after")
    def _levels_agree(self) -> Self:
        """Refuse widths, depths and slots that do not describe the same levels."""
        for name in ("depths", "proj"):
            if len(getattr(self, name)) != len(self.dims):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries and dims has {len(self.dims)}: "
                    "give one entry for each level"
                )
        for level, dim in enumerate(self.dims):
            if dim % self.heads:
                raise ValueError(
                    f"dims[{level}] = {dim} is not a multiple of heads = {self.heads}: "
                    f"use {max(dim // self.heads, 1) * self.heads}"
                )
            if self.fusion == "concat" and dim % 2:
                raise ValueError(f"dims[{level}] = {dim} is odd, and fusion 'concat' halves it: use an even number")
            if level and dim % self.dims[level - 1]:
                raise ValueError(
                    f"dims[{level}] = {dim} is not a multiple of dims[{level - 1}] = {self.dims[level - 1]}, "
                    "which is the number of groups that the step between them is normalised in"
                )
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        """Refuse fields that exclude each other, and those that would be read by nothing."""
        if self.stem is not None and len(self.stem) != self.spatial_dims:
            raise ValueError(f"stem has {len(self.stem)} entries: {axes_wanted(len(self.stem), self.spatial_dims)}")
        if self.size != "native" and self.layout == "legacy":
            raise ValueError(
                f"size = {self.size!r} and layout = 'legacy' exclude each other, since that order of axes has a "
                "meaning at one size only: use layout = 'aligned'"
            )
        if self.size != "free" and self.pool_cells != _default(self, "pool_cells"):
            raise ValueError(f"pool_cells is for size = 'free' and size is {self.size!r}: leave it out")
        if self.branches == "channel":
            for name in ("token_projection", "layout", "pool_cells"):
                if getattr(self, name) != _default(self, name):
                    raise ValueError(f"{name} is for the spatial branch and branches is 'channel': leave it out")
        if self.branches != "both" and not self.shared_queries_keys:
            raise ValueError(
                f"shared_queries_keys = false needs two branches and branches is {self.branches!r}: leave one out"
            )
        if self.as_printed:
            self._refuse_what_is_not_printed()
        if self.native_orientation is not None:
            try:
                check_orientation(self.native_orientation)
            except ConfigError as error:
                raise ValueError(str(error)) from error
            if self.spatial_dims == 2:
                raise ValueError("native_orientation is for volumes and spatial_dims is 2: leave it out")
        return self

    def _refuse_what_is_not_printed(self) -> None:
        """Refuse fields that the printed equations have no place for."""
        wanted = {"heads": 1, "fusion": "sum", "conv_blocks": 1, "layout": "aligned", "shared_queries_keys": True}
        others = [name for name, value in wanted.items() if getattr(self, name) != value]
        if others:
            needed = ", ".join(f"{name} = {wanted[name]!r}" for name in others)
            given = ", ".join(repr(getattr(self, name)) for name in others)
            raise ValueError(f"as_printed needs {needed} and was given {given}: change one")
        if self.layer_scale_init != _default(self, "layer_scale_init"):
            raise ValueError("as_printed has no gain that layer_scale_init could start: leave one of them out")


def _default(config: BaseModel, name: str) -> object:
    """Return the default of a field."""
    return type(config).model_fields[name].default


def token_grids(config: UnetrPPConfig, patch: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the grid of tokens at each level, highest resolution first.

    Raises:
        ConfigError: there is no stem.
        GeometryError: the patch does not suit the network.
    """
    check_patch(config, patch)
    assert config.stem is not None
    first = [size // step for size, step in zip(patch, config.stem, strict=True)]
    return [tuple(size // 2**level for size in first) for level in range(len(config.dims))]
