"""What each network is called, asks and allows; no torch here, so plans and config files read it cheaply."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, Field, model_validator

from neoseg.errors import ConfigError, GeometryError

__all__ = [
    "NETWORKS",
    "PUBLISHED",
    "NetworkConfig",
    "NetworkEntry",
    "Published",
    "UnetrPPConfig",
    "check_patch",
    "required_multiple",
    "token_grids",
]

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]


class UnetrPPConfig(BaseModel, frozen=True, extra="forbid"):
    """UNETR++ of Shaker et al. (IEEE TMI 2024, arXiv 2212.04497), with what its four published variants differ in.

    A network has `len(dims)` levels. The stem divides the patch by `stem`; each further level halves every axis.
    The positional tables and token projections tie the network to one patch size.

    Attributes:
        kind: the name of the network in configuration files.
        dims: channels of each level, highest resolution first; three levels or more; each a multiple of `heads`.
        depths: attention blocks of each level, in encoder and decoder alike (the lowest level has no decoder).
        heads: attention heads at every level.
        stem: voxels that become one token, on each axis; None leaves it to the plan.
        proj: slots that the tokens of each encoder level are projected to for spatial attention.
        decoder_proj: the same for every decoder level.
        token_projection: "shared" one linear layer for keys and values, "separate" one each, "matrix" one matrix
            without bias for both.
        fusion: "concat" of the two branches, each through a linear layer to half the width, or their "sum".
        conv_blocks: residual convolution blocks after each attention.
        attention_dropout: share of attention weights dropped while training; published 0.10 to 0.15. The default 0 lets
            the fused attention kernels work, which saves about a third of a step on a CPU.
        conv_dropout: share of channels dropped before the last 1x1x1 convolution of a block; published 0.1.
        feature_size: channels at full resolution.
        norm: normalisation inside the blocks' convolutions. "batch" is the published one. "instance" (affine) treats a
            patch alike in training and evaluation, which suits images without a unit and batches of one or two.
            "group" normalises groups of eight channels.
        full_norm: normalisation of the two convolution blocks at full resolution. "plain_instance" (no scale, no
            shift) is published; it takes from each patch its mean, and with it the level of a quantitative map: a
            brain that is injured throughout looks like a healthy one. "batch" keeps the level.
        layout: "aligned" gives each token its own spatial attention; "legacy" merges the axes in the order of the
            authors' code, which mixes tokens and channels, and is needed to reproduce published weights.
        deep_supervision: three outputs (full size, stem size, half of that) in place of one.
        layer_scale_init: start of the per-channel gain on the attention; 1e-6 is published and switches attention
            off at the start, short trainings may start higher, up to 1.
    """

    kind: Literal["unetr_pp"] = "unetr_pp"
    dims: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=6)] = (32, 64, 128, 256)
    depths: tuple[Positive, ...] = (3, 3, 3, 3)
    heads: Positive = 4
    stem: Annotated[tuple[Positive, ...], Field(min_length=3, max_length=3)] | None = None
    proj: tuple[Positive, ...] = (64, 64, 64, 32)
    decoder_proj: Positive = 64
    token_projection: Literal["shared", "separate", "matrix"] = "shared"
    fusion: Literal["concat", "sum"] = "concat"
    conv_blocks: Literal[1, 2] = 1
    attention_dropout: Share = 0.0
    conv_dropout: Share = 0.1
    feature_size: Positive = 16
    norm: Literal["batch", "instance", "group"] = "batch"
    full_norm: Literal["batch", "instance", "group", "plain_instance"] = "batch"
    layout: Literal["aligned", "legacy"] = "aligned"
    deep_supervision: bool = True
    layer_scale_init: Annotated[float, Field(ge=0, le=1)] = 1e-6

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


NetworkConfig = UnetrPPConfig
"""The union of all network configs, told apart by `kind`; with one member it is that member."""


class NetworkEntry(NamedTuple):
    """One network: its config class, its title, and the paper that it comes from."""

    config: type[UnetrPPConfig]
    title: str
    paper: str


NETWORKS: Mapping[str, NetworkEntry] = MappingProxyType(
    {
        "unetr_pp": NetworkEntry(
            UnetrPPConfig,
            "UNETR++",
            "Shaker et al., UNETR++: Delving Into Efficient and Accurate 3D Medical Image Segmentation, "
            "IEEE Transactions on Medical Imaging 43(9), 2024, arXiv:2212.04497",
        ),
    }
)


class Published(NamedTuple):
    """One published variant: its config and the data that it was made for.

    `patch` has the axes of the published weights: slices first, (z, y, x).
    """

    config: UnetrPPConfig
    in_channels: int
    classes: int
    patch: tuple[int, ...]


def _legacy(**fields: object) -> UnetrPPConfig:
    """Return a published config: the fields that all four variants share, and the given ones."""
    return UnetrPPConfig.model_validate(
        {"layout": "legacy", "norm": "batch", "full_norm": "plain_instance", "attention_dropout": 0.1, **fields}
    )


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "synapse": Published(_legacy(stem=(2, 4, 4), attention_dropout=0.15), 1, 14, (64, 128, 128)),
        "acdc": Published(_legacy(stem=(1, 4, 4), token_projection="separate", conv_blocks=2), 1, 4, (16, 160, 160)),
        "tumor": Published(_legacy(stem=(4, 4, 4), token_projection="matrix", fusion="sum"), 4, 4, (128, 128, 128)),
        "lung": Published(_legacy(stem=(1, 4, 4), token_projection="separate", conv_blocks=2), 1, 2, (32, 192, 192)),
    }
)


def _chosen_stem(config: UnetrPPConfig, stem: Sequence[int] | None) -> tuple[int, ...]:
    """Return the given stem, or the config's own when none is given."""
    chosen = config.stem if stem is None else tuple(int(step) for step in stem)
    if chosen is None:
        raise ConfigError(f"network.stem of {config.kind!r} is not set: set it, or let the plan choose it")
    return chosen


def required_multiple(config: NetworkConfig, stem: Sequence[int] | None = None) -> tuple[int, ...]:
    """Return what each axis of a patch has to be a multiple of: the stem times two for each further level.

    Args:
        config: the network.
        stem: voxels a token on each axis; None takes the config's own.

    Raises:
        ConfigError: neither the argument nor the config has a stem.
    """
    return tuple(step * 2 ** (len(config.dims) - 1) for step in _chosen_stem(config, stem))


def check_patch(config: NetworkConfig, patch: Sequence[int], *, stem: Sequence[int] | None = None) -> None:
    """Refuse a patch that the network cannot halve evenly down to its lowest level.

    Raises:
        ConfigError: there is no stem.
        GeometryError: a wrong number of axes or a size that is no multiple; the nearest right patch is named.
    """
    multiples = required_multiple(config, stem)
    if len(patch) != len(multiples):
        raise GeometryError(
            f"The patch {_times(patch)} has {len(patch)} axes and the network's stem has {len(multiples)}: "
            f"give {len(multiples)} sizes."
        )
    if any(size < 1 or size % multiple for size, multiple in zip(patch, multiples, strict=True)):
        right = [max(round(size / multiple), 1) * multiple for size, multiple in zip(patch, multiples, strict=True)]
        raise GeometryError(
            f"The patch {_times(patch)} does not suit a network whose axes must be multiples of {_times(multiples)}: "
            f"the nearest right patch is {_times(right)}."
        )


def token_grids(
    config: NetworkConfig, patch: Sequence[int], *, stem: Sequence[int] | None = None
) -> list[tuple[int, ...]]:
    """Return the grid of tokens at each level, highest resolution first.

    Raises:
        ConfigError: there is no stem.
        GeometryError: the patch does not suit the network.
    """
    check_patch(config, patch, stem=stem)
    first = [size // step for size, step in zip(patch, _chosen_stem(config, stem), strict=True)]
    return [tuple(size // 2**level for size in first) for level in range(len(config.dims))]


def _times(sizes: Sequence[int]) -> str:
    """Return sizes as they are read aloud: 64x128x128."""
    return "x".join(str(size) for size in sizes)
