"""Networks that MONAI implements, behind the interface of this package's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, assert_never

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from neoseg.networks.blocks.any_size import check_channels, check_image, on_padded
from neoseg.networks.blocks.normalisation import with_exact_groups
from neoseg.networks.blocks.recompute import recomputed
from neoseg.networks.blocks.short_axes import with_right_gradients
from neoseg.networks.blocks.window_attention import WindowAttention
from neoseg.networks.configs import (
    MEDNEXT_SIZES,
    DynUNetConfig,
    MedNeXtConfig,
    SegResNetConfig,
    SwinUnetrConfig,
    check_lowest,
    check_patch,
)

__all__ = ["Adopted", "AdoptedConfig"]

AdoptedConfig = SegResNetConfig | DynUNetConfig | MedNeXtConfig | SwinUnetrConfig
"""Configs of the networks that come from MONAI."""

Outputs = tuple[Tensor, ...]


class Adopted(nn.Module):
    """A network of MONAI's, for images of any size.

    MONAI's own networks with deep supervision give several outputs in training and one in evaluation, and a DynUNet
    stretches all of them to full size. Here there are the same in both, at the sizes that the network makes them.

    Args:
        config: SegResNet, DynUNet, MedNeXt or Swin UNETR; a DynUNet's widths and strides have to be set.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels of the patches that it will be trained on, on each of two or three axes.

    Raises:
        ConfigError: a field that the plan has to fill is empty, or there is no channel or no class.
        GeometryError: the patch does not suit the levels, or leaves nothing to normalise at the lowest.
    """

    def __init__(self, config: AdoptedConfig, *, in_channels: int, classes: int, patch: Sequence[int]) -> None:
        super().__init__()
        check_channels(in_channels, classes)
        check_patch(config, patch)
        self.config, self.in_channels, self.classes, self.patch = config, in_channels, classes, tuple(patch)
        self.multiple = config.multiple
        check_lowest(config, self.patch)
        self._outputs: Callable[[Any, Tensor], Outputs]
        match config:
            case SegResNetConfig():
                self.network, self._outputs = _segresnet(config, in_channels, classes), _of_one
            case DynUNetConfig():
                self.network, self._outputs = _dynunet(config, in_channels, classes), _of_dynunet
            case MedNeXtConfig():
                self.network, self._outputs = _mednext(config, in_channels, classes), _of_mednext
            case SwinUnetrConfig():
                self.network = _swin_unetr(config, in_channels, classes)
                self._outputs = partial(_of_swin_unetr, checkpointing=config.checkpointing)
            case _:
                assert_never(config)
        with_exact_groups(with_right_gradients(self.network))

    def forward(self, x: Tensor) -> Outputs:
        """Return logits (B, classes, x, y, z), full size first; the same number in training and in evaluation.

        Sizes that the levels do not halve evenly are padded with zeros at the end of each axis; outputs are cut.

        Args:
            x: images (B, in_channels, any sizes).

        Raises:
            GeometryError: another number of channels or axes than the network was built for, or an image so small that
                its lowest level has nothing to normalise.
        """
        check_image(x, self.in_channels, self.patch)
        padded = [size + -size % m for size, m in zip(x.shape[2:], self.multiple, strict=True)]
        alone = self.training and len(x) == 1 and getattr(self.config, "norm", None) == "batch"
        check_lowest(self.config, padded, 2 if alone else None)
        return on_padded(lambda image: self._outputs(self.network, image), x, self.multiple)


def _segresnet(config: SegResNetConfig, in_channels: int, classes: int) -> nn.Module:
    from monai.networks.nets.segresnet import SegResNet

    network: nn.Module = SegResNet(
        spatial_dims=config.spatial_dims,
        init_filters=config.width,
        in_channels=in_channels,
        out_channels=classes,
        dropout_prob=config.dropout or None,
        norm=_norm(config.norm),
        blocks_down=config.blocks_down,
        blocks_up=config.blocks_up,
        upsample_mode="nontrainable" if config.upsample == "linear" else "deconv",
    )
    return network


def _dynunet(config: DynUNetConfig, in_channels: int, classes: int) -> nn.Module:
    from monai.networks.nets.dynunet import DynUNet

    widths, strides, kernels = config.widths_strides_kernels
    slope = {"negative_slope": 0.01} if config.activation == "leaky_relu" else {}
    network: nn.Module = DynUNet(
        spatial_dims=config.spatial_dims,
        in_channels=in_channels,
        out_channels=classes,
        kernel_size=kernels,
        strides=strides,
        upsample_kernel_size=strides[1:],
        filters=widths,
        dropout=config.dropout or None,
        norm_name=_norm(config.norm),
        act_name=(config.activation.replace("_", ""), {"inplace": True, **slope}),
        deep_supervision=config.deep_supervision,
        deep_supr_num=len(strides) - 2,
        res_block=config.residual,
    )
    # The same layers are registered a second time here, as nested skips; files of weights hold each tensor once.
    del network.skip_layers
    return network


def _mednext(config: MedNeXtConfig, in_channels: int, classes: int) -> nn.Module:
    from monai.networks.nets.mednext import MedNeXt

    blocks, expansions = MEDNEXT_SIZES[config.size]
    middle = len(blocks) // 2
    network: nn.Module = MedNeXt(
        spatial_dims=config.spatial_dims,
        init_filters=config.width,
        in_channels=in_channels,
        out_channels=classes,
        encoder_expansion_ratio=expansions[:middle],
        decoder_expansion_ratio=expansions[middle + 1 :],
        bottleneck_expansion_ratio=expansions[middle],
        kernel_size=config.kernel,
        deep_supervision=config.deep_supervision,
        use_residual_connection=True,
        blocks_down=blocks[:middle],
        blocks_bottleneck=blocks[middle],
        blocks_up=blocks[middle + 1 :],
    )
    return network


def _swin_unetr(config: SwinUnetrConfig, in_channels: int, classes: int) -> nn.Module:
    from monai.networks.nets.swin_unetr import SwinUNETR

    with _LinspaceOnCpu():
        network: nn.Module = SwinUNETR(
            spatial_dims=config.spatial_dims,
            in_channels=in_channels,
            out_channels=classes,
            depths=config.depths,
            num_heads=config.heads,
            window_size=config.window,
            feature_size=config.feature_size,
            norm_name=_norm(config.norm),
            drop_rate=config.dropout,
            attn_drop_rate=config.attention_dropout,
            dropout_path_rate=config.drop_path,
            use_checkpoint=config.checkpointing == "all",
        )
    stages: Any = network.swinViT
    for number in range(1, len(config.depths) + 1):
        for block in getattr(stages, f"layers{number}")[0].blocks:
            block.attn = WindowAttention(block.attn)
    return network


class _LinspaceOnCpu(TorchFunctionMode):
    """Computes rows of numbers on the CPU: MONAI reads its shares of dropped paths from one, also on "meta"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cpu = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **cpu})


def _norm(name: str) -> tuple[str, dict[str, Any]]:
    """Return MONAI's name and arguments of a normalisation."""
    arguments: dict[str, dict[str, Any]] = {"instance": {"affine": True}, "group": {"num_groups": 8}, "batch": {}}
    return name.removeprefix("plain_"), arguments.get(name, {})


def _of_one(network: Any, x: Tensor) -> Outputs:
    """Return the output of a network that has one."""
    return (network(x),)


def _of_dynunet(network: Any, x: Tensor) -> Outputs:
    """Return the outputs of a DynUNet at their own sizes, in evaluation too."""
    skips = [network.input_block(x)]
    for down in network.downsamples:
        skips.append(down(skips[-1]))
    features = [network.bottleneck(skips[-1])]
    for up, skip in zip(network.upsamples, reversed(skips), strict=True):
        features.append(up(features[-1], skip))
    lower = network.deep_supervision_heads if network.deep_supervision else ()
    heads = (network.output_block, *lower)
    return tuple(head(feature) for head, feature in zip(heads, reversed(features), strict=False))


def _of_mednext(network: Any, x: Tensor) -> Outputs:
    """Return the outputs of a MedNeXt, in evaluation too."""
    x, skips = network.stem(x), []
    for stage, down in zip(network.enc_stages, network.down_blocks, strict=True):
        skips.append(stage(x))
        x = down(skips[-1])
    features = [network.bottleneck(x)]
    for up, stage, skip in zip(network.up_blocks, network.dec_stages, reversed(skips), strict=True):
        features.append(stage(up(features[-1]) + skip))
    lower = reversed(network.out_blocks) if network.do_ds else ()
    heads = (network.out_0, *lower)
    return tuple(head(feature) for head, feature in zip(heads, reversed(features), strict=False))


def _of_swin_unetr(network: Any, x: Tensor, *, checkpointing: str) -> Outputs:
    """Return the output of a Swin UNETR without keeping what is asked to be computed again."""
    lower = recomputed if checkpointing == "all" else _kept
    full_size = _kept if checkpointing == "none" else recomputed
    # Sizes are right already; MONAI's own check of them cannot be compiled.
    tokens = network.swinViT(x, network.normalize)
    skips = [
        full_size(network.encoder1, x),
        lower(network.encoder2, tokens[0]),
        lower(network.encoder3, tokens[1]),
        lower(network.encoder4, tokens[2]),
        tokens[3],
    ]
    feature = lower(network.encoder10, tokens[4])
    for number in (5, 4, 3, 2, 1):
        step = getattr(network, f"decoder{number}")
        joined = torch.cat((step.transp_conv(feature), skips[number - 1]), dim=1)
        feature = (full_size if number == 1 else lower)(step.conv_block, joined)
    return (network.out(feature),)


def _kept(module: nn.Module, x: Tensor) -> Tensor:
    """Return `module(x)`, with all that its backward pass needs."""
    made: Tensor = module(x)
    return made
