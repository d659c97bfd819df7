"""Per kind of network: which of its fields follow from the voxels, and how large it may be on a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from ..errors import ConfigError
from ..networks.configs import (
    ConvUNet,
    LightEncoder,
    MedNeXtConfig,
    NetworkBase,
    SegResNetConfig,
    SwinUnetrConfig,
    UNetBase,
    UNetPlusPlusConfig,
    UnetrConfig,
    UnetrPPConfig,
)
from .conv_unet import feature_counts, unet_topology
from .reason import as_text
from .topology import MOST_TOKENS, levels_for, stem_for

__all__ = ["PLANNERS", "Decided", "Planner", "Size", "Voxels"]

Decided = Callable[..., None]
"""Notes a decision: what, value, rule, numbers."""

PerLevel = tuple[tuple[int, ...], ...]
"""One number an axis for each level."""

N = TypeVar("N", bound=NetworkBase)

MOST_LEVELS = {2: 8, 3: 6}
"""Levels of a convolutional U-Net by the axes of its images, as in nnU-Net's plans."""

FEWEST_LEVELS = {"dynunet": 3}
"""Levels of a convolutional U-Net that needs more than two."""

CONV_WIDTHS = (32, 24, 16, 12, 8)
"""Channels of the first level, from nnU-Net's number down; widths that a network has by itself shrink alike."""

LARGEST_TOKEN, FEWEST_TOKENS = 16, 4
"""Voxels of a UNETR's token along the finest axis, as published, and tokens that the typical volume keeps an axis."""

UNETR_SIZES = ((768, 12, 16), (384, 12, 16), (192, 12, 16), (192, 8, 8))
"""Hidden channels, layers and channels at full resolution: the published ViT-B, ViT-S, ViT-Ti, and one below."""

SWIN_UNETR_SIZES = (48, 36, 24, 12)
"""Channels of a Swin UNETR at full resolution, from the published number down."""


@dataclass(frozen=True)
class Voxels:
    """The grid that a network is planned for.

    Attributes:
        spacing_mm: of a voxel along each axis.
        typical: median size of the training cases on that grid.
        unit: of the spacing: "mm", or "px" of pictures that do not tell the size of a pixel.
        patch: voxels along each axis of a patch that does not cover the typical size; None: it does.
    """

    spacing_mm: tuple[float, ...]
    typical: tuple[int, ...]
    unit: str = "mm"
    patch: tuple[int, ...] | None = None

    @property
    def seen(self) -> tuple[int, ...]:
        """What a network sees of the typical image at once."""
        return tuple(min(pair) for pair in zip(self.patch or self.typical, self.typical, strict=True))

    @property
    def told(self) -> str:
        """Spacing and typical size in words."""
        return f"typical {as_text(self.typical)} voxels of {as_text(self.spacing_mm)} {self.unit}"

    @property
    def told_seen(self) -> str:
        """Spacing and size of what is seen in words."""
        if self.patch is None:
            return self.told
        return f"a patch of {as_text(self.patch)} voxels of {as_text(self.spacing_mm)} {self.unit}"


@dataclass(frozen=True)
class Planner:
    """How a kind of network is fitted to data and budget.

    Attributes:
        shaped: fills the fields that follow from the voxels; takes the network as configured, the voxels, the names of
            the fields that the user set, which stay, and notes its decisions. The levels follow the patch if there is
            one that does not cover the typical size.
        sizes: the networks that a budget may choose from, the largest first; takes the network and those names.
        field: the field that tells their sizes apart.
    """

    shaped: Callable[[Any, Voxels, frozenset[str], Decided], NetworkBase]
    sizes: Callable[[Any, frozenset[str]], Sequence[NetworkBase]]
    field: str


@dataclass(frozen=True)
class Size:
    """How much of the published width and depth a UNETR++ has."""

    width: int
    depth: int
    heads: int
    slots: int
    features: int


SIZES = (
    Size(32, 3, 4, 64, 16),
    Size(32, 2, 4, 64, 16),
    Size(24, 2, 4, 32, 16),
    Size(16, 2, 4, 32, 16),
    Size(16, 1, 4, 32, 16),
)
"""From the published size down; the full-resolution branch, which sees the small lesions, keeps its published width."""


def _unetr_pp_shaped(network: UnetrPPConfig, voxels: Voxels, given: frozenset[str], decided: Decided) -> UnetrPPConfig:
    spacing, typical = voxels.spacing_mm, voxels.typical
    stem = network.stem or stem_for(spacing, typical)
    decided(
        "stem",
        stem,
        "given as network.stem"
        if network.stem
        else "2 along the finest axis, 4 above the limit of tokens; less along coarser axes",
        "" if network.stem else f"{voxels.told}, at most {MOST_TOKENS[len(typical)]:,} tokens",
    )
    fixed = given & {"dims", "depths", "proj"}
    levels = len(network.dims) if fixed else levels_for(stem, voxels.seen)
    tokens = tuple(math.ceil(n / s) for n, s in zip(voxels.seen, stem, strict=True))
    decided(
        "levels",
        levels,
        f"given as network.{min(fixed)}"
        if fixed
        else "each halves the tokens, and a fourth has to leave 4 an axis; 3 to 4",
        f"{as_text(tokens)} tokens in {'the typical volume' if voxels.patch is None else 'the patch'}",
    )
    fields: dict[str, Any] = {"stem": stem}
    if not fixed:
        fields |= {name: getattr(network, name)[:levels] for name in ("dims", "depths", "proj")}
    return network.model_copy(update=fields)


def _unetr_pp_sizes(network: UnetrPPConfig, given: frozenset[str]) -> Sequence[UnetrPPConfig]:
    levels = len(network.dims)
    found = []
    for size in SIZES:
        fields = {
            "dims": tuple(size.width * 2**i for i in range(levels)),
            "depths": (size.depth,) * levels,
            "heads": size.heads,
            "proj": (size.slots,) * (levels - 1) + (min(size.slots, 32),),
            "decoder_proj": size.slots,
            "feature_size": size.features,
        }
        found.append(network.model_copy(update={name: value for name, value in fields.items() if name not in given}))
    return _valid(found)


def _conv_shaped(network: ConvUNet, voxels: Voxels, given: frozenset[str], decided: Decided) -> ConvUNet:
    fields: dict[str, Any] = {}
    if network.light is not None:
        _check_light(network.light, network.multiple, voxels)
        decided(
            "encoder", network.light.name, "given as network.encoder: strides and widths are its paper's", voxels.told
        )
    if network.strides is None:
        strides, kernels, why, numbers = _levels(network, voxels, given)
        fields["strides"] = strides
        decided("strides", _listed(strides), why, numbers)
        if network.kernels is None:
            fields["kernels"] = kernels
            decided(
                "kernels",
                _listed(kernels),
                "1 along an axis until its voxels are less than twice the finest, then 3",
                voxels.told,
            )
        if network.widths is not None and "widths" not in given:
            fields["widths"] = network.widths[: len(strides)]
    return network.model_copy(update=fields)


def _levels(network: ConvUNet, voxels: Voxels, given: frozenset[str]) -> tuple[PerLevel, PerLevel, str, str]:
    """Return strides and kernels of a U-Net's levels by nnU-Net's rules, what decided their number, and from what."""
    axes = len(voxels.spacing_mm)
    topology = unet_topology(voxels.spacing_mm, voxels.seen)
    fewest, most = FEWEST_LEVELS.get(network.kind, 2), MOST_LEVELS[axes]
    if isinstance(network, UNetPlusPlusConfig) and network.prune is not None:
        fewest = max(fewest, network.prune + 1)
    if network.widths is not None:
        most = len(network.widths)
    fixed = {name: len(getattr(network, name)) for name in _one_entry_a_level(network) if name in given}
    if fixed:
        name, levels = next(iter(fixed.items()))
        # A number of levels that is given holds for every patch, and so do the strides of the typical size.
        topology = unet_topology(voxels.spacing_mm, voxels.typical)
        why = f"given as network.{name}: so many levels"
    else:
        levels = max(fewest, min(len(topology.strides), most))
        why = "nnU-Net's: the finest axes are halved while the lowest level keeps 4 voxels"
        if levels < len(topology.strides):
            why += f"; at most {levels} levels"
        if levels > len(topology.strides):
            why = f"the fewest levels that this network may have, {levels}, more than nnU-Net's rule gives"
            # Those of the typical size divide whatever a patch is shortened to.
            topology = unet_topology(voxels.spacing_mm, voxels.typical)
    strides = _levelled(topology.strides, voxels.typical, levels)
    kernels = (*topology.kernels, *[(3,) * axes] * levels)[: levels - 1]
    return strides, (*kernels, (3,) * axes), why, voxels.told if fixed else voxels.told_seen


def _one_entry_a_level(network: ConvUNet) -> tuple[str, ...]:
    """Return the names of the fields that have one entry for each level, beside the strides."""
    return ("widths", "kernels", "encoder_blocks") if isinstance(network, UNetBase) else ("widths", "kernels")


def _check_light(light: LightEncoder, multiple: tuple[int, ...], voxels: Voxels) -> None:
    """Refuse images that would be padded to twice their size or more before they are halved five times.

    Raises:
        ConfigError: the typical image is too small; spacing and encoders that would fit are named.
    """
    least = tuple(n // 2 + 1 for n in multiple)
    if all(n >= least for n, least in zip(voxels.typical, least, strict=True)):
        return
    fine = tuple(
        s if n >= m else math.floor(1e4 * s * n / m) / 1e4
        for s, n, m in zip(voxels.spacing_mm, voxels.typical, least, strict=True)
    )
    raise ConfigError(
        f"network.encoder = {light.name!r} halves every axis five times and takes images of {as_text(least)} voxels or "
        f"more, but here they are {voxels.told}: set plan.spacing_mm = {list(fine)} or finer, or network.encoder = "
        "'plain', whose levels follow the images."
    )


def _conv_sizes(network: ConvUNet, given: frozenset[str]) -> Sequence[ConvUNet]:
    if "widths" in given or network.light is not None:
        return _valid([network])
    assert network.strides is not None
    own = network.widths or feature_counts(len(network.strides), network.spatial_dims)
    most = CONV_WIDTHS[0]
    return _valid([network.model_copy(update={"widths": tuple(n * w // most for n in own)}) for w in CONV_WIDTHS])


def _valid(networks: Sequence[N]) -> list[N]:
    """Return those networks that keep their own rules, such as widths that come in groups.

    Raises:
        ConfigError: there is none.
    """
    found, problem = [], ""
    for network in networks:
        try:
            type(network).model_validate(network.model_dump())
            found.append(network)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(("network", *(str(part) for part in first["loc"])))
            problem = problem or f"{place}: {first['msg'].removeprefix('Value error, ')}"
    if not found:
        raise ConfigError(f"{problem}, in the network that is planned for these images; correct it.")
    return found


def _levelled(strides: Sequence[tuple[int, ...]], typical: Sequence[int], levels: int) -> PerLevel:
    """Return strides of so many levels: cut, or gone on halving every axis that has two voxels left."""
    result = [tuple(stride) for stride in strides[:levels]]
    left = [math.ceil(n / math.prod(axis)) for n, axis in zip(typical, zip(*result, strict=True), strict=True)]
    while len(result) < levels:
        result.append(tuple(2 if n > 1 else 1 for n in left))
        left = [math.ceil(n / 2) for n in left]
    return tuple(result)


def _unetr_shaped(network: UnetrConfig, voxels: Voxels, given: frozenset[str], decided: Decided) -> UnetrConfig:
    size = network.patch_size
    if size is None:
        size = _token(voxels)
        why = "16 along the finest axis, as published, less along coarser ones and where the lowest grid is below 4"
        decided("patch_size", size, why, voxels.told)
    return network.model_copy(update={"patch_size": size})


def _token(voxels: Voxels) -> tuple[int, ...]:
    """Return the voxels of a token: near to cubes, and small enough for four of them along the typical volume."""
    finest = min(voxels.spacing_mm)
    sizes = []
    for spacing, count in zip(voxels.spacing_mm, voxels.typical, strict=True):
        wanted = max(0, round(math.log2(LARGEST_TOKEN * finest / spacing)))
        most = max(0, int(math.log2(max(1.0, count / FEWEST_TOKENS))))
        sizes.append(2 ** min(wanted, most))
    # A token of one voxel has nothing to encode.
    return tuple(sizes) if max(sizes) > 1 else tuple(2 if n == max(voxels.typical) else 1 for n in voxels.typical)


def _unetr_sizes(network: UnetrConfig, given: frozenset[str]) -> Sequence[UnetrConfig]:
    if given & {"hidden", "heads", "mlp", "layers", "skip_layers"}:
        return [network]
    found = []
    for hidden, layers, features in UNETR_SIZES:
        fields = {"hidden": hidden, "mlp": 4 * hidden, "heads": hidden // 64, "layers": layers}
        if "feature_size" not in given:
            fields["feature_size"] = features
        found.append(network.model_copy(update=fields))
    return _valid(found)


def _as_it_is(network: Any, voxels: Voxels, given: frozenset[str], decided: Decided) -> NetworkBase:
    return cast(NetworkBase, network)


def _by_width(network: SegResNetConfig | MedNeXtConfig, given: frozenset[str]) -> Sequence[NetworkBase]:
    widths = (network.width,) if "width" in given else tuple(w for w in (32, 24, 16, 8) if w <= network.width)
    return [network.model_copy(update={"width": width}) for width in widths]


def _swin_unetr_sizes(network: SwinUnetrConfig, given: frozenset[str]) -> Sequence[SwinUnetrConfig]:
    if "feature_size" in given:
        return [network]
    return _valid([network.model_copy(update={"feature_size": size}) for size in SWIN_UNETR_SIZES])


BY_WIDTH = Planner(_as_it_is, _by_width, "width")

CONVOLUTIONAL = Planner(_conv_shaped, _conv_sizes, "widths")

PLANNERS: Mapping[str, Planner] = MappingProxyType(
    {
        "unetr_pp": Planner(_unetr_pp_shaped, _unetr_pp_sizes, "dims"),
        "unet": CONVOLUTIONAL,
        "wide_unet": CONVOLUTIONAL,
        "unet_plus_plus": CONVOLUTIONAL,
        "attention_unet": CONVOLUTIONAL,
        "unetr": Planner(_unetr_shaped, _unetr_sizes, "hidden"),
        "segresnet": BY_WIDTH,
        "dynunet": CONVOLUTIONAL,
        "mednext": BY_WIDTH,
        "swin_unetr": Planner(_as_it_is, _swin_unetr_sizes, "feature_size"),
    }
)
"""Every kind of network."""


def _listed(levels: Sequence[Sequence[int]]) -> str:
    return ", ".join(as_text(tuple(level)) for level in levels)
