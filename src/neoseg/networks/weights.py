"""Weights under the names of the authors' code: read into a network, and written back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from neoseg.errors import ConfigError, InputError, nearest
from neoseg.networks.configs import PUBLISHED, Published, token_grids
from neoseg.networks.unetr_pp import UnetrPP
from neoseg.wording import counted

__all__ = [
    "load_published",
    "published_name",
    "published_state",
    "require_tensors",
    "same_tensor",
    "variant_of",
    "without_prefix",
]

PREFIX = "module."
SUPERVISED_HEADS = {f"out{i}.conv.conv.{part}" for i in (2, 3) for part in ("weight", "bias")}

# Parts of our names and the authors' own, in order; levels are counted from the highest resolution, 0.
BLOCK_NAMES = (
    (r"\.position$", ".pos_embed"),
    (r"\.gain$", ".gamma"),
    (r"\.attention\.temperature_channel$", ".epa_block.temperature"),
    (r"\.attention\.temperature_spatial$", ".epa_block.temperature2"),
    (r"\.attention\.qkvv\.", ".epa_block.qkvv."),
    (r"\.attention\.project_keys\.", ".epa_block.E."),
    (r"\.attention\.project_values\.", ".epa_block.F."),
    (r"\.attention\.project_matrix$", ".epa_block.EF"),
    (r"\.attention\.out_spatial\.", ".epa_block.out_proj."),
    (r"\.attention\.out_channel\.", ".epa_block.out_proj2."),
    (r"\.convs\.0\.", ".conv51."),
    (r"\.convs\.1\.", ".conv52."),
    (r"\.mix\.", ".conv8.1."),
    (r"\.(conv[123])\.weight$", r".\1.conv.weight"),
)


def published_name(name: str) -> str:
    """Return the authors' name of a parameter or buffer of `UnetrPP`."""
    for ours, theirs in BLOCK_NAMES:
        name = re.sub(ours, theirs, name)
    first, _, rest = name.partition(".")
    level, _, deeper = rest.partition(".")
    match first:
        case "stem":
            return f"unetr_pp_encoder.downsample_layers.0.{_step(rest)}"
        case "down":
            return f"unetr_pp_encoder.downsample_layers.{int(level) + 1}.{_step(deeper)}"
        case "encoder":
            return f"unetr_pp_encoder.stages.{rest}"
        case "up":
            return f"decoder{int(level) + 3}.transp_conv.conv.{deeper}"
        case "decoder":
            return f"decoder{int(level) + 3}.decoder_block.0.{deeper}"
        case "full_skip":
            return f"encoder1.{rest}"
        case "full_up":
            return f"decoder2.transp_conv.conv.{rest}"
        case "full_fuse":
            return f"decoder2.decoder_block.0.{rest}"
        case "heads":
            return f"out{int(level) + 1}.conv.conv.{deeper}"
        case _:
            raise KeyError(name)


def load_published(network: UnetrPP, weights: Mapping[str, Tensor]) -> None:
    """Copy weights under the authors' names into a network, after all of them have been found and fit.

    A "module." prefix is dropped. Weights that repeat a shared projection under a second name have to be equal, and
    the outputs of deep supervision are left out where the network has a single one. Dtype and device stay as they are.

    Args:
        network: a network of the weights' sizes; with the aligned layout they are a start for training, no more.
        weights: tensors by name, as in the authors' `state_dict`.

    Raises:
        ConfigError: a network that the authors' code has no weights for.
        InputError: no tensors by name, names that are missing or unknown, or a tensor of another shape; where the
            weights look like those of a published variant, it is named.
    """
    _refuse_other_parts(network)
    require_tensors(weights)
    given = without_prefix(weights)
    own = {published_name(name): tensor for name, tensor in network.state_dict().items()}
    for name in [name for name in given if ".epa_block.F." in name and name not in own]:
        first = name.replace(".F.", ".E.")
        if first in own and first in given and not same_tensor(given[name], given[first]):
            raise InputError(
                f"Weight {name!r} differs from its twin E, but this network has one projection for both: give weights "
                f"of the same variant, or set network.token_projection = 'separate'.{_looks_like(network, weights)}"
            )
        if first in own:
            del given[name]
    if len(network.heads) == 1:
        given = {name: tensor for name, tensor in given.items() if name not in SUPERVISED_HEADS}
    if missing := [name for name in own if name not in given]:
        raise InputError(
            f"{len(missing)} of {counted(len(own), 'weight')} missing, first {missing[0]!r}"
            f"{nearest(missing[0], given)}: give all weights of the same variant.{_looks_like(network, weights)}"
        )
    if unknown := [name for name in given if name not in own]:
        raise InputError(
            f"{counted(len(unknown), 'weight')} with no place in this network, first {unknown[0]!r}: "
            f"give weights of the same variant.{_looks_like(network, weights)}"
        )
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            raise InputError(
                f"Weight {name!r} has shape {tuple(given[name].shape)} and this network wants {tuple(tensor.shape)}: "
                f"use the patch, channels and classes that the weights were made with.{_looks_like(network, weights)}"
            )
        if given[name].is_floating_point() != tensor.is_floating_point():
            raise InputError(
                f"Weight {name!r} holds numbers of the kind {given[name].dtype} and this network wants {tensor.dtype}: "
                "give weights as they were trained."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def published_state(network: UnetrPP) -> dict[str, Tensor]:
    """Return a network's weights as the authors' `state_dict` has them, shared projections under both of their names.

    Raises:
        ConfigError: a network that the authors' code would compute something else with, or could not load: another
            layout than "legacy", parts, normalisations or levels that it does not have, or a single output.
    """
    _refuse_other_parts(network)
    if network.config.layout != "legacy":
        raise ConfigError(
            f"network.layout = {network.config.layout!r}: the authors' code mixes tokens and channels, so that it "
            "would compute something else with these weights; only layout 'legacy' can be written for it."
        )
    if len(network.heads) == 1:
        raise ConfigError(
            "The network has one output and the authors' code wants three: only a network with "
            "network.deep_supervision = true can be written for it."
        )
    _refuse_other_than_published(network)
    state = {published_name(name): tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if network.config.token_projection != "shared":
        return state
    twins = {name: name.replace(".epa_block.E.", ".epa_block.F.") for name in state if ".epa_block.E." in name}
    return state | {twin: state[name] for name, twin in twins.items()}


def without_prefix(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without the "module." that training on several GPUs puts before their names.

    Raises:
        InputError: a name is there with and without it.
    """
    for name in weights:
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) in weights:
            raise InputError(
                f"There is a weight {name!r} and a weight {name.removeprefix(PREFIX)!r}: give one of the two, since "
                f"{PREFIX!r} before a name says nothing."
            )
    return {name.removeprefix(PREFIX): tensor for name, tensor in weights.items()}


def require_tensors(weights: object) -> None:
    """Refuse what is not a mapping of names to dense tensors that have values.

    Raises:
        InputError: says what was given.
    """
    if not isinstance(weights, Mapping):
        raise InputError(f"The weights are of the type {type(weights).__name__}; a dict of tensors by name is wanted.")
    if "state_dict" in weights:
        raise InputError(
            "The dict has an entry 'state_dict', so it is a whole checkpoint and not its weights: give that entry, or "
            "read the file with neoseg.networks.published_file.read_checkpoint_file."
        )
    for name, value in weights.items():
        if not isinstance(name, str) or not isinstance(value, Tensor):
            given = f"of the type {type(value).__name__}" if isinstance(name, str) else "not named by a text"
        elif value.layout != torch.strided or value.is_meta or value.is_quantized:
            given = "sparse, quantized, or without values"
        else:
            continue
        raise InputError(f"Weight {name!r} is {given}; dense tensors by name are wanted.")


def same_tensor(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors have the same shape and values, where both may hold the same NaN."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    return torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)


def variant_of(weights: Mapping[str, Tensor]) -> str | None:
    """Return the published variant that weights look like, by their parts and their number of tokens, or None."""
    given = without_prefix(weights)
    first = "unetr_pp_encoder.stages.0.0."
    position = given.get(f"{first}pos_embed")
    if position is None or position.ndim != 3:
        return None
    one, other = (given.get(f"{first}epa_block.{name}.weight") for name in "EF")
    separate = one is not None and other is not None and not same_tensor(one, other)
    projection = "matrix" if f"{first}epa_block.EF" in given else "separate" if separate else "shared"
    blocks = 2 if f"{first}conv52.conv1.conv.weight" in given else 1
    for name, preset in PUBLISHED.items():
        if (preset.config.token_projection, preset.config.conv_blocks, _tokens(preset)) == (
            projection, blocks, position.shape[1],
        ):  # fmt: skip
            return name
    return None


def _tokens(preset: Published) -> int:
    return math.prod(token_grids(preset.config, preset.patch)[0])


WRITTEN_IN = ("stem", "token_projection", "fusion", "conv_blocks", "proj", "decoder_proj")
"""Fields that are numbers in the authors' code, others in the copy for each of their four data sets."""


def _looks_like(network: UnetrPP, weights: Mapping[str, Tensor]) -> str:
    """Return a sentence on the variant that weights look like, or nothing where it is the network's own."""
    name = variant_of(weights)
    if name is None:
        return ""
    preset, own = PUBLISHED[name], network.config
    if network.patch == preset.patch and all(getattr(own, f) == getattr(preset.config, f) for f in WRITTEN_IN):
        return ""
    return f" The weights given look like the published variant {name!r}."


def _refuse_other_parts(network: UnetrPP) -> None:
    """Refuse a network with parts that the authors' code does not have, naming the first."""
    config = network.config
    reasons = {
        "size = 'free'": config.size == "free",
        f"branches = {config.branches!r}": config.branches != "both",
        "shared_queries_keys = false": not config.shared_queries_keys,
        "as_printed = true": config.as_printed,
        "spatial_dims = 2": config.spatial_dims == 2,
    }
    for reason, given in reasons.items():
        if given:
            raise ConfigError(f"network.{reason}: the authors' code has no such network, and so no weights for it.")


def _refuse_other_than_published(network: UnetrPP) -> None:
    """Refuse a network that differs from all published ones in what the authors' code has no argument for."""
    own, first = network.config, next(iter(PUBLISHED.values())).config
    fixed = {
        f"norm = {own.norm!r}": (own.norm, first.norm),
        f"full_norm = {own.full_norm!r}": (own.full_norm, first.full_norm),
        f"dims = {list(own.dims)}": (f"{len(own.dims)} levels", f"{len(first.dims)} levels"),
    }
    for field, (given, wanted) in fixed.items():
        if given != wanted:
            raise ConfigError(
                f"network.{field}: the authors' code always has {wanted}, so that it could not load these weights, or "
                "would compute something else with them; only such a network can be written for it."
            )
    copies = {name: [(f, getattr(p.config, f)) for f in WRITTEN_IN] for name, p in PUBLISHED.items()}
    if own.stem is not None:  # of a turned network the weights keep the order of the authors' axes
        own = own.model_copy(update={"stem": network.turn.sizes(own.stem)})
    alike = {name: sum(getattr(own, f) == value for f, value in copy) for name, copy in copies.items()}
    nearest_copy = max(alike, key=lambda name: alike[name])
    for field, wanted in copies[nearest_copy]:
        if getattr(own, field) != wanted:
            raise ConfigError(
                f"network.{field} = {getattr(own, field)!r}: no copy of the authors' code has this beside the other "
                f"fields, the nearest, for {nearest_copy!r}, has {wanted!r}; only a network of one copy can be written."
            )


def _step(name: str) -> str:
    """Return the authors' name inside a step between resolutions: a convolution, then a normalisation."""
    return name.replace("norm.", "1.") if name.startswith("norm.") else name.replace("conv.", "0.conv.", 1)
