"""A cohort of procedural heads as files, laid out and named like the BONBID-HIE collection, and its truth beside it.

Z maps are absent on purpose: they come from an atlas of the healthy group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing, write_json
from ..io import write_volume
from ..progress import Progress, Silent
from .anatomy import TISSUES
from .config import CohortConfig, HeadConfig
from .head import Head, make_head
from .lesions import stratified

__all__ = ["ADC_FOLDER", "FOLDERS", "LABEL_FOLDER", "MemberPlan", "plan_cohort", "write_cohort"]

FOLDERS = {"train": "BONBID2023_Train", "test": "BONBID2023_Test", "healthy": "healthy"}
ADC_FOLDER, LABEL_FOLDER = "1ADC_ss", "3LABEL"


@dataclass(frozen=True)
class MemberPlan:
    """One head before it is made.

    Attributes:
        case: name as in BONBID-HIE, ``MGHNICU_010-VISIT_01``.
        group: "train", "test" or "healthy".
        burden: percent of the brain; None for a healthy head.
        entropy: seeds of the head's own generator.
        head: what the head is made of.
        folder: root of the cohort.
    """

    case: str
    group: str
    burden: float | None
    entropy: tuple[int, int]
    head: HeadConfig
    folder: Path


def plan_cohort(folder: Path, config: CohortConfig) -> list[MemberPlan]:
    """Decide names, groups and lesion burdens of all heads; the same seed gives the same plan."""
    counts = {"train": config.patients, "test": config.held_out, "healthy": config.healthy}
    naming = np.random.default_rng([config.seed, 0])
    total = sum(counts.values())
    numbers = np.sort(naming.choice(np.arange(10, 10 + max(90, 2 * total)), total, replace=False))
    shuffled = naming.permutation(numbers)
    plan, start = [], 0
    for group, (name, count) in enumerate(counts.items()):
        burdens: Sequence[float | None] = [None] * count
        if name != "healthy":
            burdens = stratified(np.random.default_rng([config.seed, 1, group]), count)
        for place, (number, burden) in enumerate(zip(shuffled[start : start + count], burdens, strict=True)):
            case = f"MGHNICU_{number:03d}-VISIT_01"
            plan.append(MemberPlan(case, name, burden, (config.seed, 1000 * (group + 1) + place), config.head, folder))
        start += count
    return plan


def write_cohort(
    folder: Path,
    config: CohortConfig,
    *,
    progress: Progress | None = None,
    run_each: Callable[[Callable[[MemberPlan], dict[str, Any]], Sequence[MemberPlan]], Iterable[dict[str, Any]]] = map,
) -> None:
    """Write all heads below ``folder``.

    Layout: ``BONBID2023_{Train,Test}/{1ADC_ss,3LABEL}``, ``healthy/1ADC_ss`` (int16 ADC in 1e-6 mm2/s, background 0),
    ``truth/<case>.npz`` and ``truth/index.json``. A truth file holds, on the grid of the ADC in canonical (x, y, z)
    order: ``tissues`` (uint8, index into the names of the index), ``shares`` (uint8, 250 = the whole voxel),
    ``lesion_weight`` (uint8, 250 = 1), ``field`` and ``clean_adc`` (float32 and uint16), ``affine``; and the map to the
    common anatomy as ``pose`` and ``displacement`` (see :class:`neoseg.phantom.deformation.Deformation`).

    Args:
        folder: root of the cohort; files of the same names are replaced.
        config: numbers of heads, seed, what the heads are made of.
        progress: listener.
        run_each: runs a function over all heads, in any order but with results in order (a pool's ``map`` serves).
    """
    listener = progress or Silent()
    plan = plan_cohort(folder, config)
    records = []
    with listener.track("writing heads", len(plan)) as advance:
        for record in run_each(_write_member, plan):
            records.append(record)
            advance(1, str(record["case"]))
    index = {"config": config.model_dump(mode="json"), "tissues": list(TISSUES), "cases": records}
    write_json(folder / "truth" / "index.json", index)


def _write_member(member: MemberPlan) -> dict[str, Any]:
    generator = np.random.default_rng(np.random.SeedSequence(member.entropy))
    head = make_head(generator, member.head, lesion_burden=member.burden)
    root = member.folder / FOLDERS[member.group]
    adc = np.where(head.brain.array > 0, np.maximum(np.rint(head.adc.array), 1), 0).astype(np.int16)
    image = root / ADC_FOLDER / f"{member.case}-ADC_ss.mha"
    write_volume(head.adc.with_array(adc), image)
    record: dict[str, Any] = {
        "case": member.case,
        "group": member.group,
        "image": image.relative_to(member.folder).as_posix(),
        "label": None,
    }
    if member.burden is not None:
        label = root / LABEL_FOLDER / f"{member.case}_lesion.mha"
        write_volume(head.label, label)
        record["label"] = label.relative_to(member.folder).as_posix()
    truth = member.folder / "truth" / f"{member.case}.npz"
    _write_truth(head, truth)
    record["truth"] = truth.relative_to(member.folder).as_posix()
    return record | head.parameters


def _write_truth(head: Head, path: Path) -> None:
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            tissues=head.tissues.array.argmax(0).astype(np.uint8),
            shares=_bytes(head.tissues.array),
            lesion_weight=_bytes(head.lesion.array[0]),
            field=head.field.array[0],
            clean_adc=np.rint(head.clean.array[0]).astype(np.uint16),
            affine=head.adc.grid.affine,
            pose=head.deformation.pose,
            displacement=head.deformation.displacement,
            lattice_step_mm=np.float64(head.deformation.lattice.step_mm),
        )


def _bytes(shares: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.asarray(np.rint(shares * 250), dtype=np.uint8)
