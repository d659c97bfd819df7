"""Stage report: summary.json for programs, report.html for people."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import read_record, write_json
from ..cluster.local import run_all
from ..config import RunConfig
from ..data.cases import Case
from ..data.units import MICRO, channel_kind
from ..errors import InputError
from ..io import read_grid, read_label
from ..metrics import METRICS
from ..networks.configs import NETWORKS
from ..plan.plan import Plan
from ..report.content import (
    ADC_CAUTIONS,
    CaseResult,
    CaseRow,
    Curve,
    LabelVolume,
    PlanEntry,
    ReportContent,
    StageRecord,
    StageWarning,
)
from ..report.figures import FieldOfView, case_panel, channel_of
from ..report.html import write_report
from ..report.pictures import picture_panel
from ..report.scores import metric_notes, metric_title
from ..targets import inside
from ..training.log import read_log
from ..volume import Volume
from ..wording import counted
from ..workspace import write_if_changed
from .evaluate import NETWORK, ScoredRow, read_rows
from .predict import mask_path
from .prepared import PreparedCase
from .session import CV, HELD_OUT, Session
from .summary import CaseScore, Judged, channel_title, judge

__all__ = ["STAGES", "keep_notice", "notice_in", "report"]

STAGES = ("check", "plan", "prepare", "train", "predict", "evaluate", "report")
TITLES = {HELD_OUT: "Held-out cases", CV: "Cross-validation"}
SHOWN = ("dice", "nsd", "masd", "hd95", "lesion_f1")

UNITS = {"adc": MICRO, "z": "z"}
"""In what the channels of a diffusion coefficient are drawn, by their kind."""

AGAIN = "copy it back from where the run was made"
"""What to do about a damaged record of a run."""


def report(session: Session, *, failed: Mapping[str, str], notice: str = "") -> dict[str, Any]:
    """Write report.html and then summary.json of a run.

    The seconds of "report" in summary.json are those from the start until it is written.

    Args:
        session: the run.
        failed: case to sentence, of the cases that could not be prepared.
        notice: a sentence that has to stand on top of the page; by default the one that was given before,
            for the run or for its workspace.

    Returns:
        What summary.json holds.
    """
    run, start = session.run, time.monotonic()
    if notice := notice or notice_in(run.notice) or notice_in(session.workspace.notice):
        keep_notice(run.notice, notice)
    # scores that lie there without the record are those of an evaluation that was begun again and not ended
    scored = run.stage_record("evaluate")
    rows = read_rows(run.scores) if scored is not None else []
    chosen = {**(run.stage_record("predict") or {}), **(scored or {})}
    judged = {split: found for split in (HELD_OUT, CV) if (found := judge(session, split, rows, chosen)) is not None}
    stages = {name: record for name in STAGES if (record := run.stage_record(name)) is not None}
    write_report(run.report, _content(session, judged, rows, stages, failed, notice))
    seconds = {name: record["seconds"] for name, record in stages.items()}
    summary = _summary(session, judged, {**seconds, "report": time.monotonic() - start}, failed)
    write_json(run.summary, summary)
    return summary


def keep_notice(path: Path, notice: str) -> None:
    """Keep a sentence that has to stand on top of every report of a run, or of a workspace."""
    write_if_changed(path, {"notice": notice})


def notice_in(path: Path) -> str:
    """Return the sentence that was kept, or "".

    Raises:
        StateError: its file is damaged.
    """
    return str(read_record(path, AGAIN).get("notice", "")) if path.is_file() else ""


def _summary(
    session: Session, judged: Mapping[str, Judged], seconds: Mapping[str, float], failed: Mapping[str, str]
) -> dict[str, Any]:
    held_out = judged[HELD_OUT].numbers if HELD_OUT in judged else None
    cv = judged[CV].numbers if CV in judged else None
    best = held_out or cv
    return {
        "name": session.config.name,
        "held_out": held_out,
        "cv": cv,
        "rules": best["rules"] if best else {},
        "failed": dict(failed),
        "stages": {name: round(spent, 2) for name, spent in seconds.items()},
    }


def _content(
    session: Session,
    judged: Mapping[str, Judged],
    rows: Sequence[ScoredRow],
    stages: Mapping[str, Any],
    failed: Mapping[str, str],
    notice: str,
) -> ReportContent:
    run, config = session.run, session.config
    plan = session.run_plan
    environment = read_record(run.environment, AGAIN)
    folds = session.folds
    predicted = [(CV, n) for f in folds for n in f.validation] + [(HELD_OUT, c.case) for c in session.held_out]
    jobs = [(split, name) for split, name in predicted if name not in failed]
    by_name = {c.case: c for c in session.cases}
    masks = {name: mask_path(session, split, by_name[name]) for split, name in jobs}
    grid = PreparedCase(session.store, jobs[0][1]).native
    work = partial(
        _result, session_parts=(session.store, config, plan), masks=masks, judged=judged, rows=_by_case(rows)
    )
    results = run_all(work, jobs, title="Drawing cases", progress=session.progress, jobs=config.jobs)
    warnings = [StageWarning(stage="prepare", text=text, case=case) for case, text in failed.items()]
    for _, name in jobs:
        warnings += [
            StageWarning(stage="prepare", text=text, case=name)
            for text in PreparedCase(session.store, name).record["warnings"]
        ]
    for name, record in stages.items():
        warnings += [
            StageWarning(stage=name, text=w["text"], case=w.get("case", "")) for w in record.get("warnings", [])
        ]
    return ReportContent(
        title=config.name,
        created=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        summary=f"{counted(len(session.trainable), 'cross-validated case')} in {counted(len(folds), 'fold')}, "
        f"{len(session.held_out)} held out, {len(session.healthy)} healthy; "
        f"{NETWORKS[plan.network.kind].title} on {', '.join(plan.channels)}.",
        notice=notice,
        structure=session.targets.names[0] if len(session.targets.names) == 1 else "structure",
        length_unit=grid.unit,
        size_unit=grid.size_unit,
        evaluations=tuple(j.evaluation for j in judged.values()),
        config=config.model_dump(mode="json"),
        cases=tuple(_case_row(session, c, failed) for c in session.cases),
        plan=tuple(PlanEntry(name=r.what, value=r.value, reason=r.told) for r in plan.reasons),
        curves=tuple(_curve(session, i) for i in range(len(folds))),
        results=tuple(results),
        warnings=tuple(warnings),
        stages=tuple(StageRecord(name=name, seconds=record["seconds"]) for name, record in stages.items()),
        metrics=metric_notes(
            [m.name for m in METRICS],
            length_unit=grid.unit,
            size_unit=grid.size_unit,
            tolerance=config.evaluate.tolerance_mm,
        )
        if judged
        else (),
        versions={"neoseg": environment["neoseg"], "python": environment["python"], **environment["packages"]},
        **_by_channels(plan.channels, len(plan.patch), makes_zmap=session.makes_zmap),
    )


def _by_channels(channels: Sequence[str], axes: int, *, makes_zmap: bool) -> dict[str, Any]:
    """Return what the page holds because of its channels: the whole of shares, the volume that is flagged, cautions.

    Args:
        channels: of the network.
        axes: of the images; of planes there are no volumes, and their foreground is the whole image.
        makes_zmap: whether the Z map was made here.
    """
    diffusion = not {channel_kind(c) for c in channels}.isdisjoint(UNITS)
    return {
        "region": "image" if axes == 2 else "brain" if diffusion else "foreground",
        "flag_ml": 1.0 if diffusion and axes == 3 else None,
        "cautions": (ADC_CAUTIONS if makes_zmap else ADC_CAUTIONS[:2]) if diffusion else (),
    }


def _by_case(rows: Sequence[ScoredRow]) -> dict[str, dict[tuple[str, str], float]]:
    table: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        if row.method == NETWORK:
            table.setdefault(row.case, {})[row.label, row.metric] = row.value
    return table


def _result(
    job: tuple[str, str],
    *,
    session_parts: tuple[Any, RunConfig, Plan],
    masks: Mapping[str, Path],
    judged: Mapping[str, Judged],
    rows: Mapping[str, Mapping[tuple[str, str], float]],
) -> CaseResult:
    split, name = job
    store, config, plan = session_parts
    labels, targets = config.label_set, config.targets
    prepared = PreparedCase(store, name)
    written = read_label(masks[name])
    mask = labels.encode(written.array[0], name)
    ml, brain = prepared.native.voxel_size, max(prepared.record["brain_ml"], 1e-9)
    truth_ml = prepared.record["label_ml"]
    volumes = []
    for label, members in targets.structures.items():
        found = float(inside(mask, members).sum() * ml)
        true = sum(truth_ml[i - 1] for i in members) if truth_ml is not None else None
        volumes.append(
            LabelVolume(
                label=label,
                predicted_ml=found,
                true_ml=true,
                predicted_percent=100 * found / brain,
                true_percent=100 * true / brain if true is not None else None,
                target=label in targets.names,
            )
        )
    own = rows.get(name, {})
    scores = {
        metric_title(metric) if len(targets.names) == 1 else f"{metric_title(metric)} {label}": _number(
            own[label, metric]
        )
        for metric in SHOWN
        for label in targets.names
        if (label, metric) in own
    }
    score = judged[split].cases.get(name) if split in judged else None
    return CaseResult(
        case=name,
        group=TITLES[split],
        volumes=tuple(volumes),
        scores=scores,
        risk=_risk(score),
        panel=_panel(prepared, replace(written, array=mask[None]), plan, labels.names),
        panel_text=f"{name} with the reference and the predicted outline.",
        notes=tuple(prepared.record["warnings"]),
    )


def _panel(prepared: PreparedCase, mask: Volume, plan: Plan, names: Sequence[str]) -> bytes:
    physical = np.asarray(prepared.physical)
    truth = np.asarray(prepared.truth_in_box) if prepared.has_truth else None
    box = tuple(slice(a, a + n) for a, n in zip(prepared.start, prepared.box.shape, strict=True))
    found, spacing = mask.array[0][box], prepared.native.spacing
    if (stored := mask.grid.stored) is not None and prepared.native.ndim == 2:
        # as programs for pictures show the file: its first axis to the right, its second one down
        return picture_panel(
            stored.turned(physical),
            None if truth is None else stored.turned(truth[None])[0],
            stored.turned(found[None])[0],
            pixel=(spacing[stored.order[0]], spacing[stored.order[1]]),
            label_names=names,
        )
    channels = [
        channel_of(channel_title(c), physical[i], UNITS.get(channel_kind(c), "")) for i, c in enumerate(plan.channels)
    ]
    view = FieldOfView(spacing, prepared.start, prepared.native.shape)
    return case_panel(channels, truth, found, view=view, label_names=names)


def _risk(score: CaseScore | None) -> float | None:
    """Sort key of the cases, the smallest first: the Dice; 0 for a false alarm where there is nothing, 1 for none."""
    if score is None or score.dice is not None:
        return score.dice if score else None
    return 0.0 if score.predicted_ml > 0 else 1.0


def _case_row(session: Session, case: Case, failed: Mapping[str, str]) -> CaseRow:
    common: dict[str, Any] = {
        "case": case.case,
        "subject": case.subject,
        "site": case.site,
        "group": case.group,
        "split": case.split,
    }
    if case.case in failed or case not in session.used:
        try:
            grid = read_grid(next(iter(case.images.values())))
        except InputError:
            return CaseRow(**common, grid=(0,), spacing_mm=(0.0,))
        return CaseRow(**common, grid=grid.shape, spacing_mm=grid.spacing)
    prepared = PreparedCase(session.store, case.case)
    truth = prepared.record["label_ml"]
    volume = sum(truth) if truth is not None else None
    return CaseRow(
        **common,
        grid=prepared.native.shape,
        spacing_mm=prepared.native.spacing,
        volume_ml=volume,
        share_percent=100 * volume / max(prepared.record["brain_ml"], 1e-9) if volume is not None else None,
    )


def _curve(session: Session, index: int) -> Curve:
    folder = session.run.fold(index)
    log = read_log(folder / "log.jsonl")
    finished = folder / "finished.json"
    best = read_record(finished, AGAIN).get("best_epoch") if finished.is_file() else None
    return Curve(
        name=f"fold {index}",
        epochs=tuple(line["epoch"] + 1 for line in log),
        loss=tuple(line["loss"] for line in log),
        dice=tuple(line["validation_dice"] for line in log),
        best_epoch=None if best is None else best + 1,
    )


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
