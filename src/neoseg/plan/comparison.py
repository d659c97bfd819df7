"""What nnU-Net would choose for the same training cases, beside the plan: shown, and used for nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ..wording import counted
from .conv_unet import PRESETS, Preset, UnetPlan, plan_unets
from .fingerprint import CaseFacts
from .reason import Reason, as_text

__all__ = ["COMPARED", "compared_with_nnunet"]

COMPARED = ("plain", "resenc_l")
"""nnU-Net's default, and what its authors recommend."""


def compared_with_nnunet(facts: Sequence[CaseFacts], classes: int) -> tuple[Reason, ...]:
    """Return one entry for each configuration that nnU-Net 2.8 would make.

    Args:
        facts: of the training cases.
        classes: background included.

    Raises:
        ConfigError: no patch of these volumes keeps within nnU-Net's budget.
    """
    found = []
    for name in COMPARED:
        preset = PRESETS[name]
        plans = plan_unets(
            [f.spacing_mm for f in facts], [f.nonzero_shape for f in facts], classes=classes, preset=preset
        )
        title = f"{preset.title}, {preset.memory_gib:g} GB"
        found += [_entry(f"nnU-Net {key} ({title})", plan, preset, len(facts)) for key, plan in plans.items()]
    return tuple(found)


def _entry(what: str, plan: UnetPlan, preset: Preset, cases: int) -> Reason:
    topology = plan.topology
    bound = (
        f"the patch was shortened {plan.cut} times to keep within the budget"
        if plan.cut
        else "the patch covers the typical volume, padded for the poolings"
    )
    batch = {
        "budget": "the batch takes the rest of the budget",
        "data": f"the batch holds at most {preset.dataset_share:.0%} of all voxels",
        "least": "the batch is the least there is",
    }[plan.batch_bound]
    return Reason(
        what=what,
        value=f"patch {as_text(topology.patch)}, batch {plan.batch}, spacing {as_text(plan.spacing_mm)}",
        why=(
            f"{bound}; {batch}; poolings {as_text(topology.pools)}, first kernel {as_text(topology.kernels[0])}, "
            f"channels {as_text(plan.features)}"
        ),
        inputs=(
            f"{counted(cases, 'case')}, typical {as_text(plan.typical)} voxels at this spacing; {plan.elements:,} "
            f"elements of convolutions' outputs a patch, {plan.allowed:,.0f} allowed"
        ),
    )
