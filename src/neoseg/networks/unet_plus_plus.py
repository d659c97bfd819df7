"""UNet++: nested decoders joined by dense skips (Zhou et al., DLMIA 2018; IEEE TMI 39, 2020, arXiv 1912.05074)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from neoseg.errors import InputError
from neoseg.networks.blocks.conv_block import initialise, row_of, step_up
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.configs import UNetPlusPlusConfig
from neoseg.networks.configs.unets import CONVOLUTIONS
from neoseg.networks.u_shaped import UShaped, head

__all__ = ["UNetPlusPlus", "load_unpruned", "pruned_state"]


class UNetPlusPlus(UShaped):
    """UNet++ for images of any size, whole or pruned.

    Node (i, 0) is level i of the encoder. Node (i, j) convolves the nodes (i, 0) to (i, j - 1) and node (i + 1, j - 1)
    brought to their size by a transposed convolution, side by side: equation 1 of the papers.

    With deep supervision each node (0, j) has a head at full size. With heads "accurate" the first output is the
    logarithm of the mean of the heads' probabilities, so that a softmax of it is that mean, and the single heads
    follow, the deepest first; with "fast" the heads alone are the outputs. All outputs are compared with the truth in
    training: the mean that is predicted counts half, then each head half as much as the one before. The papers weigh
    all heads alike. Where there is a single head, it is the only output.

    A pruned network computes what head `prune` of the whole one computes, bit by bit, without the nodes that it does
    not need. Its images are padded to the sizes of the whole network, for the same reason.

    Args:
        config: the network; its widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the input on each of two or three axes that the network is planned for.
        overlapping: whether the channels are regions: then the mean is that of their sigmoids, without a background.

    Raises:
        ConfigError: widths or strides are not set, or there is no channel or no class.
        GeometryError: the patch is no multiple of the strides, or leaves a single voxel where it cannot be normalised.
    """

    def __init__(
        self,
        config: UNetPlusPlusConfig,
        *,
        in_channels: int,
        classes: int,
        patch: Sequence[int],
        overlapping: bool = False,
    ) -> None:
        super().__init__(config, in_channels=in_channels, classes=classes, patch=patch, levels=config.depth + 1)
        self.config, self.depth, self.overlapping = config, config.depth, overlapping
        up, nodes = {}, {}
        for i, j in _places(self.depth):
            here, below = self.levels[i], self.levels[i + 1]
            up[_name(i, j)] = step_up(below.width, here.width, below.stride, self.form)
            widths = ((j + 1) * here.width, here.width)
            nodes[_name(i, j)] = row_of(CONVOLUTIONS, widths, here.kernel, self.form, dropout=config.dropout)
        self.up, self.nodes = nn.ModuleDict(up), nn.ModuleDict(nodes)
        supervised = range(1, self.depth + 1) if config.deep_supervision else [self.depth]
        self.heads = nn.ModuleDict({str(j): head(self.levels[0].width, classes, len(self.patch)) for j in supervised})
        initialise(self)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of images whose sizes suit the network."""
        features = cast(list[Tensor], self.encoder(x))
        # Aside each level hands on its features as `skip_attention` weighs them, upwards as they are.
        rows, newest = [[skip(f)] for skip, f in zip(self.skips, features, strict=False)], features
        for i, j in _places(self.depth):
            below = self.up[_name(i, j)](newest[i + 1])
            newest[i] = self.nodes[_name(i, j)](torch.cat((*rows[i], below), dim=1))
            rows[i].append(newest[i])
        logits = [convolve(self.heads[str(j)], rows[0][j]) for j in range(self.depth, 0, -1) if str(j) in self.heads]
        if len(logits) == 1 or self.config.heads == "fast":
            return tuple(logits)
        return ((_mean_of_regions if self.overlapping else _mean)(logits), *logits)


def pruned_state(network: UNetPlusPlus, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return those weights of a whole UNet++ that a pruned one has, by name.

    Left out are nodes, steps up, encoder levels, skip attention and heads beyond `prune`, and nothing else.

    Args:
        network: the pruned network; a whole one takes all weights.
        weights: tensors by name, as in the whole network's `state_dict`.

    Raises:
        InputError: weights that the pruned network needs are missing, as its head is where the whole network was
            trained without deep supervision, or weights that belong to no UNet++.
    """
    own = network.state_dict()
    unknown = [name for name in weights if name not in own and not _is_beyond(name, network.depth)]
    if unknown:
        raise InputError(
            f"{len(unknown)} weights have no place in this UNet++, first {unknown[0]!r}: give weights of a network "
            "with the same network.deep_supervision, norm and skip_attention."
        )
    if missing := [name for name in own if name not in weights]:
        raise InputError(
            f"{len(missing)} of {len(own)} weights are missing, first {missing[0]!r}: give weights of a whole UNet++ "
            "of the same widths, trained with network.deep_supervision = true."
        )
    return {name: weights[name] for name in own}


def load_unpruned(network: UNetPlusPlus, weights: Mapping[str, Tensor]) -> None:
    """Copy the weights of a whole UNet++ into a pruned one, see :func:`pruned_state`.

    Raises:
        InputError: weights that are missing, that belong to no UNet++, or of another shape.
    """
    kept = pruned_state(network, weights)
    for name, tensor in network.state_dict().items():
        if kept[name].shape != tensor.shape:
            raise InputError(
                f"Weight {name!r} has shape {tuple(kept[name].shape)} and this network wants {tuple(tensor.shape)}: "
                "use the widths, kernels, channels and classes that the weights were made with."
            )
    network.load_state_dict(kept)


def _places(depth: int) -> list[tuple[int, int]]:
    """Return level i and place j of the decoder's nodes, each after those that it takes."""
    return [(i, j) for j in range(1, depth + 1) for i in range(depth + 1 - j)]


def _name(i: int, j: int) -> str:
    return f"{i}_{j}"


def _is_beyond(name: str, depth: int) -> bool:
    """Whether a weight belongs to a part that a network of so many levels of decoders does not have."""
    if match := re.fullmatch(r"(?:up|nodes)\.(\d+)_(\d+)\..+", name):
        return int(match[1]) + int(match[2]) > depth
    if match := re.fullmatch(r"(encoder\.stages|heads|skips)\.(\d+)\..+", name):
        number = int(match[2])
        # Pruned and unsupervised networks have one head each; a lower one of the whole network is left out as well.
        return number != depth if match[1] == "heads" else number > depth - (match[1] == "skips")
    return False


def _mean(logits: Sequence[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the probabilities of logits (B, classes, ...), in float32 at least."""
    logs = torch.stack([functional.log_softmax(_at_least_float32(one), dim=1) for one in logits])
    return torch.logsumexp(logs, dim=0) - math.log(len(logits))


def _mean_of_regions(logits: Sequence[Tensor]) -> Tensor:
    """Return the logit of the mean of the sigmoids of logits (B, regions, ...), in float32 at least."""
    given = torch.stack([_at_least_float32(one) for one in logits])
    # log p - log(1 - p): both sums have the same divisor
    return functional.logsigmoid(given).logsumexp(dim=0) - functional.logsigmoid(-given).logsumexp(dim=0)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
