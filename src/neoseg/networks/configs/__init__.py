"""What each network is called, asks and allows; no torch here, so plans and config files read it cheaply."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import Discriminator, Tag

from .adopted import MEDNEXT_SIZES, DynUNetConfig, MedNeXtConfig, SegResNetConfig, SwinUnetrConfig
from .base import NetworkBase, check_lowest, check_patch, longer, required_multiple, times
from .light import LIGHT_ENCODERS, LightEncoder
from .published import PUBLISHED, Published
from .unetr import UnetrConfig, step_sizes
from .unetr_pp import UnetrPPConfig, axes_of, check_orientation, token_grids
from .unets import AttentionUNetConfig, ConvUNet, UNetBase, UNetConfig, UNetPlusPlusConfig, WideUNetConfig

__all__ = [
    "DEFAULT",
    "LIGHT_ENCODERS",
    "MEDNEXT_SIZES",
    "NETWORKS",
    "PUBLISHED",
    "AttentionUNetConfig",
    "ConvUNet",
    "DynUNetConfig",
    "LightEncoder",
    "MedNeXtConfig",
    "NetworkBase",
    "NetworkConfig",
    "NetworkEntry",
    "Published",
    "SegResNetConfig",
    "SwinUnetrConfig",
    "UNetBase",
    "UNetConfig",
    "UNetPlusPlusConfig",
    "UnetrConfig",
    "UnetrPPConfig",
    "WideUNetConfig",
    "axes_of",
    "check_lowest",
    "check_orientation",
    "check_patch",
    "longer",
    "required_multiple",
    "step_sizes",
    "times",
    "token_grids",
]

DEFAULT = "unetr_pp"
"""The network of a configuration that names none."""


def _kind_of(value: Any) -> str:
    kind = value.get("kind", DEFAULT) if isinstance(value, Mapping) else getattr(value, "kind", DEFAULT)
    return kind if isinstance(kind, str) else repr(kind)


NetworkConfig = Annotated[
    Annotated[UnetrPPConfig, Tag("unetr_pp")]
    | Annotated[UNetConfig, Tag("unet")]
    | Annotated[WideUNetConfig, Tag("wide_unet")]
    | Annotated[UNetPlusPlusConfig, Tag("unet_plus_plus")]
    | Annotated[AttentionUNetConfig, Tag("attention_unet")]
    | Annotated[UnetrConfig, Tag("unetr")]
    | Annotated[SegResNetConfig, Tag("segresnet")]
    | Annotated[DynUNetConfig, Tag("dynunet")]
    | Annotated[MedNeXtConfig, Tag("mednext")]
    | Annotated[SwinUnetrConfig, Tag("swin_unetr")],
    Discriminator(_kind_of),
]
"""The union of all network configs, told apart by `kind`."""


class NetworkEntry(NamedTuple):
    """One network: its config class, its title, and the paper that it comes from."""

    config: type[NetworkBase]
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
        "unet": NetworkEntry(
            UNetConfig,
            "U-Net",
            "Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, "
            "arXiv:1505.04597; as configured by Isensee et al., nnU-Net, Nature Methods 18, 2021",
        ),
        "wide_unet": NetworkEntry(
            WideUNetConfig,
            "wide U-Net",
            "the wider U-Net that UNet++ is compared with in Zhou et al., IEEE Transactions on Medical Imaging 39(6), "
            "2020, arXiv:1912.05074",
        ),
        "unet_plus_plus": NetworkEntry(
            UNetPlusPlusConfig,
            "UNet++",
            "Zhou et al., UNet++: Redesigning Skip Connections to Exploit Multiscale Features in Image Segmentation, "
            "IEEE Transactions on Medical Imaging 39(6), 2020, arXiv:1912.05074",
        ),
        "attention_unet": NetworkEntry(
            AttentionUNetConfig,
            "Attention U-Net",
            "Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018, arXiv:1804.03999",
        ),
        "unetr": NetworkEntry(
            UnetrConfig,
            "UNETR",
            "Hatamizadeh et al., UNETR: Transformers for 3D Medical Image Segmentation, WACV 2022, arXiv:2103.10504",
        ),
        "segresnet": NetworkEntry(
            SegResNetConfig,
            "SegResNet",
            "Myronenko, 3D MRI Brain Tumor Segmentation Using Autoencoder Regularization, BrainLes 2018, "
            "arXiv:1810.11654; as implemented by MONAI",
        ),
        "dynunet": NetworkEntry(
            DynUNetConfig,
            "DynUNet",
            "Isensee et al., nnU-Net, Nature Methods 18, 2021, and Futrega et al., Optimized U-Net for Brain Tumor "
            "Segmentation, BrainLes 2021, arXiv:2110.03352; as implemented by MONAI",
        ),
        "mednext": NetworkEntry(
            MedNeXtConfig,
            "MedNeXt",
            "Roy et al., MedNeXt: Transformer-Driven Scaling of ConvNets for Medical Image Segmentation, MICCAI 2023, "
            "arXiv:2303.09975; as implemented by MONAI",
        ),
        "swin_unetr": NetworkEntry(
            SwinUnetrConfig,
            "Swin UNETR",
            "Hatamizadeh et al., Swin UNETR: Swin Transformers for Semantic Segmentation of Brain Tumors in MRI "
            "Images, BrainLes 2021, arXiv:2201.01266; as implemented by MONAI",
        ),
    }
)
