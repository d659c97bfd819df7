"""The list of all terms that `loss.terms` may hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel
from torch import Tensor

from neoseg.losses import configs
from neoseg.losses.binary_cross_entropy import binary_cross_entropy_loss
from neoseg.losses.boundary import boundary_loss
from neoseg.losses.focal import focal_loss
from neoseg.losses.focal_tversky import focal_tversky_loss
from neoseg.losses.hausdorff import hausdorff_loss
from neoseg.losses.jaccard import jaccard_loss
from neoseg.losses.ms_ssim import ms_ssim_loss
from neoseg.losses.tversky import tversky_loss

__all__ = ["TERMS", "TermEntry"]


class TermEntry(NamedTuple):
    """One term: its config class, its function (logits, target, config) -> scalar, its title and its paper."""

    config: type[BaseModel]
    function: Callable[[Tensor, Tensor, Any], Tensor]
    title: str
    paper: str


TERMS: Mapping[str, TermEntry] = MappingProxyType(
    {
        "binary_cross_entropy": TermEntry(
            configs.BinaryCrossEntropyTerm, binary_cross_entropy_loss, "binary cross-entropy", "Zhou et al. 2018"
        ),
        "focal": TermEntry(configs.FocalTerm, focal_loss, "focal", "Lin et al. 2017"),
        "tversky": TermEntry(configs.TverskyTerm, tversky_loss, "Tversky", "Salehi et al. 2017"),
        "focal_tversky": TermEntry(
            configs.FocalTverskyTerm, focal_tversky_loss, "focal Tversky", "Abraham and Khan 2019"
        ),
        "jaccard": TermEntry(configs.JaccardTerm, jaccard_loss, "Jaccard", "Rahman and Wang 2016"),
        "ms_ssim": TermEntry(configs.MsSsimTerm, ms_ssim_loss, "MS-SSIM", "Wang et al. 2003; Huang et al. 2020"),
        "hausdorff": TermEntry(
            configs.HausdorffTerm, hausdorff_loss, "Hausdorff by distance transforms", "Karimi and Salcudean 2019"
        ),
        "boundary": TermEntry(configs.BoundaryTerm, boundary_loss, "boundary", "Kervadec et al. 2019"),
    }
)
