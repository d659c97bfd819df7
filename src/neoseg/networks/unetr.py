"""UNETR: a vision transformer as the encoder of a U-Net (Hatamizadeh et al., WACV 2022, arXiv 2103.10504)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from neoseg.errors import ConfigError
from neoseg.networks.blocks.any_size import check_channels, check_image, on_padded
from neoseg.networks.blocks.convolve import convolve
from neoseg.networks.blocks.normalisation import Norm
from neoseg.networks.blocks.recompute import recomputed
from neoseg.networks.blocks.residual_conv import ResidualConv
from neoseg.networks.blocks.token_grid import resize_table
from neoseg.networks.blocks.tokens import as_tokens, as_volume, conv_of, step_up_of
from neoseg.networks.blocks.transformer_layer import TransformerLayer
from neoseg.networks.configs import UnetrConfig, check_patch, step_sizes

__all__ = ["Unetr", "unetr_weights_from_monai"]


class Unetr(nn.Module):
    """UNETR for patches of any size.

    Voxels become tokens by one strided convolution; transformer layers see all tokens at once. The tokens of four
    layers go to the decoder, each on its own row of transposed convolutions, and the decoder comes back to full size
    in four steps. The image itself joins at full size.

    Tokens have a learned table of positions for the grid of the patch that the network was built for. On another grid
    it is interpolated linearly between the centres of its cells, stretched to the whole image; on that grid it is used
    as it is. Sizes that are no multiple of a token are padded with zeros at the end of each axis, and outputs are cut.

    With a patch size of 16 and `skip_layers` of (4, 7, 10) it computes what `monai.networks.nets.UNETR` does, see
    :func:`unetr_weights_from_monai`.

    Args:
        config: the network; its patch size has to be set, with the axes of the patch.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the patches that it will be trained on, on each of two or three axes.

    Raises:
        ConfigError: the patch size is not set, or there is no channel or no class.
        GeometryError: the patch does not suit the patch size.
    """

    def __init__(self, config: UnetrConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__()
        check_channels(in_channels, classes)
        check_patch(config, patch)
        self.config, self.in_channels, self.classes, self.patch = config, in_channels, classes, tuple(patch)
        self.multiple, axes = config.multiple, len(self.patch)
        self.grid = tuple(size // step for size, step in zip(self.patch, self.multiple, strict=True))
        hidden, norm, steps = config.hidden, config.norm, step_sizes(self.multiple)
        widths = [config.feature_size * factor for factor in (8, 4, 2, 1)]
        self.embedding = conv_of(axes)(in_channels, hidden, self.multiple, stride=self.multiple)
        self.positions = nn.Parameter(torch.empty(1, math.prod(self.grid), hidden))
        self.layers = nn.ModuleList(
            TransformerLayer(hidden, config.heads, config.mlp, config.dropout) for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.skips = nn.ModuleList(_SkipUp(hidden, widths[i], steps[: i + 1], norm) for i in range(3))
        self.full_skip = ResidualConv(in_channels, config.feature_size, norm, axes)
        self.up = nn.ModuleList(
            _step_up(before, width, step) for before, width, step in zip([hidden, *widths], widths, steps, strict=False)
        )
        self.fuse = nn.ModuleList(ResidualConv(2 * width, width, norm, axes) for width in widths)
        outputs = widths[::-1] if config.deep_supervision else widths[-1:]
        self.heads = nn.ModuleList(conv_of(axes)(width, classes, 1) for width in outputs)
        nn.init.trunc_normal_(self.positions, std=0.02, a=-2.0, b=2.0)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits (B, classes, x, y, z); with deep supervision of all four steps of the decoder, full size first.

        The tuple has the same length in training and in evaluation.

        Args:
            x: images (B, in_channels, any sizes).

        Raises:
            GeometryError: another number of channels or axes than the network was built for.
        """
        check_image(x, self.in_channels, self.patch)
        return on_padded(self._outputs, x, self.multiple)

    def _outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the logits of an image whose sizes are multiples of a token."""
        everything, full_size = self.config.checkpointing == "all", self.config.checkpointing != "none"
        encoded = self._encoded(x)
        features = [encoded.pop()]
        for up, fuse, row, tokens in zip(self.up[:3], self.fuse[:3], self.skips, reversed(encoded), strict=True):
            skip = recomputed(row, tokens) if everything else row(tokens)
            joined = torch.cat((up(features[-1]), skip), dim=1)
            features.append(recomputed(fuse, joined) if everything else fuse(joined))
        skip = recomputed(self.full_skip, x) if full_size else self.full_skip(x)
        joined = torch.cat((self.up[3](features[-1]), skip), dim=1)
        features.append(recomputed(self.fuse[3], joined) if full_size else self.fuse[3](joined))
        return tuple(convolve(head, feature) for head, feature in zip(self.heads, reversed(features), strict=False))

    def _encoded(self, x: Tensor) -> list[Tensor]:
        """Return the tokens of the three skip layers and of the last one as volumes (B, hidden, ...) of their grid."""
        embedded = self.embedding(x)
        shape = embedded.shape
        tokens = as_tokens(embedded) + resize_table(self.positions, self.grid, shape[2:])
        tokens = nn.functional.dropout(tokens, self.config.dropout, self.training)
        kept = []
        for number, layer in enumerate(self.layers, start=1):
            tokens = recomputed(layer, tokens) if self.config.checkpointing == "all" else layer(tokens)
            if number in self.config.skips:
                kept.append(as_volume(tokens, shape))
        return [*kept, as_volume(self.norm(tokens), shape)]


class _SkipUp(nn.Module):
    """A row of transposed convolutions that brings tokens to a step of the decoder, with convolutions from the second.

    Args:
        hidden: channels of the tokens.
        width: channels of the step.
        steps: what each transposed convolution multiplies the axes by.
        norm: the normalisation after each convolution.
    """

    def __init__(self, hidden: int, width: int, steps: Sequence[Sequence[int]], norm: Norm) -> None:
        super().__init__()
        self.first = _step_up(hidden, width, steps[0])
        self.up = nn.ModuleList(_step_up(width, width, step) for step in steps[1:])
        self.convs = nn.ModuleList(ResidualConv(width, width, norm, len(step)) for step in steps[1:])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, hidden, grid of tokens) to (B, width, grid of the step)."""
        x = self.first(x)
        for up, conv in zip(self.up, self.convs, strict=True):
            x = conv(up(x))
        return x


def _step_up(in_channels: int, out_channels: int, step: Sequence[int]) -> nn.Module:
    """Return a transposed convolution whose kernel is its stride: each axis is multiplied by `step`."""
    return step_up_of(len(step))(in_channels, out_channels, tuple(step), stride=tuple(step), bias=False)


RENAMED = (
    (r"vit\.patch_embedding\.position_embeddings", "positions"),
    (r"vit\.patch_embedding\.patch_embeddings\.(weight|bias)", r"embedding.\1"),
    (r"vit\.blocks\.(\d+)\.mlp\.(linear[12])\.(weight|bias)", r"layers.\1.\2.\3"),
    (r"vit\.blocks\.(\d+)\.(norm[12])\.(weight|bias)", r"layers.\1.\2.\3"),
    (r"vit\.blocks\.(\d+)\.attn\.qkv\.weight", r"layers.\1.qkv.weight"),
    (r"vit\.blocks\.(\d+)\.attn\.out_proj\.(weight|bias)", r"layers.\1.project.\2"),
    (r"vit\.norm\.(weight|bias)", r"norm.\1"),
    (r"encoder1\.layer\.(.+)", r"full_skip.\1"),
    (r"encoder([234])\.transp_conv_init\.conv\.weight", r"skips.<4-\1>.first.weight"),
    (r"encoder([23])\.blocks\.(\d)\.0\.conv\.weight", r"skips.<4-\1>.up.\2.weight"),
    (r"encoder([23])\.blocks\.(\d)\.1\.(.+)", r"skips.<4-\1>.convs.\2.\3"),
    (r"decoder([2345])\.transp_conv\.conv\.weight", r"up.<5-\1>.weight"),
    (r"decoder([2345])\.conv_block\.(.+)", r"fuse.<5-\1>.\2"),
    (r"out\.conv\.conv\.(weight|bias)", r"heads.0.\1"),
)
"""Names of MONAI's UNETR and ours; <5-2> stands for 3."""

UNUSED = r"vit\.blocks\.\d+\.(norm_cross_attn|cross_attn)\..+"
"""What MONAI's transformer layers carry for attention to another input, which a UNETR has not."""


def unetr_weights_from_monai(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of `monai.networks.nets.UNETR` under the names that a :class:`Unetr` loads.

    The network needs a patch size of 16 on each axis, 12 layers, skip_layers = (4, 7, 10), and the patch, widths,
    heads and norm ("plain_instance" for MONAI's default) of the weights. Of MONAI's options those for an attention with
    biases and for a decoder without residuals are not known here.

    Args:
        state: what `UNETR.state_dict()` returned.

    Raises:
        ConfigError: there is a weight that a UNETR of this kind does not have.
    """
    renamed = {}
    for name, weight in state.items():
        if re.fullmatch(UNUSED, name):
            continue
        for pattern, ours in RENAMED:
            if match := re.fullmatch(pattern, name):
                ours = match.expand(ours).replace(".conv.weight", ".weight")
                renamed[re.sub(r"<(\d)-(\d)>", lambda m: str(int(m[1]) - int(m[2])), ours)] = weight
                break
        else:
            raise ConfigError(
                f"The weights hold {name!r}, which is no part of a UNETR with residual decoder blocks and no biases in "
                "its attention: give the state_dict of monai.networks.nets.UNETR with its default options."
            )
    return renamed
