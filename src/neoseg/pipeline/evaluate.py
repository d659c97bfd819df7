"""Stage evaluate: scores of the network and of the rules beside it, on the scans' own grids."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import replacing
from ..cluster.local import run_all
from ..config import RunConfig
from ..data.store import CaseStore
from ..errors import InputError
from ..inference.configs import PostprocessSearch
from ..io import read_label
from ..methods.choice import Choice
from ..methods.configs import RuleConfig
from ..methods.threshold import apply_rule, choose_rule, rule_table
from ..metrics import METRICS, in_units_of, score_case, worst_value
from ..targets import inside
from ..volume import Volume
from .predict import choices_by_fold, mask_path
from .prepared import PreparedCase
from .run_folder import keep_config
from .session import CV, HELD_OUT, Session

__all__ = ["NETWORK", "ScoredRow", "evaluate", "read_rows"]

NETWORK = "network"


@dataclass(frozen=True)
class ScoredRow:
    """One line of scores.csv.

    Attributes:
        split: "cv" or "held_out".
        method: "network" or the name of a rule.
        case, label, metric: what was scored; a label is a region or a class.
        value: nan when undefined.
        worst: the worst value of this metric on this image.
        unit: of both.
    """

    split: str
    method: str
    case: str
    label: str
    metric: str
    value: float
    worst: float
    unit: str


@dataclass(frozen=True)
class _Job:
    case: str
    split: str
    mask: Path
    choices: dict[str, Choice]


def evaluate(session: Session, *, failed: Sequence[str] = ()) -> dict[str, Any]:
    """Score every predicted case that has a label; write scores.csv, with rows for each class and each region.

    Rules take their threshold and smallest lesion from the cases of the other folds (cross-validated cases) or from
    all cross-validated cases (held-out cases), like the network.

    Returns:
        The rules' choices and the tolerance of NSD, plain data.

    Raises:
        StateError: the run was trained with other values of what its weights depend on.
    """
    config, run = session.config, session.run
    keep_config(session)
    channels = session.run_plan.channels
    folds = session.folds
    cv = [n for f in folds for n in f.validation if n not in failed]
    chosen = _rule_choices(session, cv, channels)
    fold_of = {name: str(i) for i, f in enumerate(folds) for name in f.validation}
    jobs = []
    for case in session.used:
        if case.label is None or case.case in failed:
            continue
        split = HELD_OUT if case in session.held_out else CV
        key = fold_of[case.case] if split == CV else "all"
        picks = {rule: choices[key] for rule, choices in chosen.items()}
        jobs.append(_Job(case.case, split, mask_path(session, split, case), picks))
    work = partial(
        _score_one,
        store=session.store,
        config=config,
        channels=channels,
    )
    rows = [
        row
        for part in run_all(work, jobs, title="Scoring", progress=session.progress, jobs=config.jobs)
        for row in part
    ]
    _write_rows(rows, run.scores)
    return {
        "rules": {rule: {key: asdict(c) for key, c in choices.items()} for rule, choices in chosen.items()},
        "tolerance_mm": config.evaluate.tolerance_mm,
    }


def read_rows(path: Path) -> list[ScoredRow]:
    """Read scores.csv.

    Raises:
        InputError: it is damaged or was edited into something else.
    """
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            reader = csv.DictReader(stream)
            if list(reader.fieldnames or ()) != (wanted := [f.name for f in fields(ScoredRow)]):
                raise ValueError(f"its columns are {', '.join(reader.fieldnames or ())}, not {', '.join(wanted)}")
            return [
                ScoredRow(**{**row, "value": float(row["value"]), "worst": float(row["worst"])})  # type: ignore[arg-type]
                for row in reader
            ]
    except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
        raise InputError(f"{path}: the scores are damaged ({error}); delete them and run `neoseg evaluate`.") from error


def _write_rows(rows: Iterable[ScoredRow], path: Path) -> None:
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(ScoredRow)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _rule_choices(session: Session, cases: Sequence[str], channels: Sequence[str]) -> dict[str, dict[str, Choice]]:
    config = session.config
    search = config.postprocess
    result = {}
    for rule in config.rules:
        work = partial(
            _rule_table_of, store=session.store, rule=rule, channel=channels.index(rule.channel), search=search
        )
        found = run_all(work, cases, title=f"Tuning {rule.name} rule", progress=session.progress, jobs=config.jobs)
        result[rule.name] = choices_by_fold(
            dict(zip(cases, found, strict=True)),
            [f.validation for f in session.folds],
            partial(choose_rule, rule=rule, search=search),
        )
    return result


def _rule_table_of(
    name: str, *, store: CaseStore, rule: RuleConfig, channel: int, search: PostprocessSearch
) -> NDArray[np.float64]:
    case = PreparedCase(store, name)
    return rule_table(
        np.asarray(case.physical[channel]),
        case.mask,
        case.truth_in_box,
        rule=rule,
        search=search,
        voxel_mm3=case.native.voxel_volume,
    )


def _score_one(job: _Job, *, store: CaseStore, config: RunConfig, channels: Sequence[str]) -> list[ScoredRow]:
    case = PreparedCase(store, job.case)
    truth = np.asarray(case.truth)
    written: Volume = read_label(job.mask)
    # The file's own spacing, digit by digit: scores have to equal those of any other scorer.
    labels, spacing = config.label_set, written.grid.spacing
    masks = {NETWORK: labels.encode(written.array[0], str(job.mask))}
    for rule in config.rules:
        found = apply_rule(
            np.asarray(case.physical[channels.index(rule.channel)]),
            case.mask,
            rule=rule,
            choice=job.choices[rule.name],
            voxel_mm3=case.native.voxel_volume,
        )
        masks[rule.name] = case.on_native(found)
    rows = []
    for method, mask in masks.items():
        for label, members in config.targets.structures.items():
            scores = score_case(
                inside(truth, members), inside(mask, members), spacing, tolerance_mm=config.evaluate.tolerance_mm
            )
            for metric in METRICS:
                value, unit = in_units_of(written.grid, scores[metric.name], metric.unit)
                worst, _ = in_units_of(written.grid, worst_value(metric.name, truth.shape, spacing), metric.unit)
                rows.append(ScoredRow(job.split, method, job.case, label, metric.name, value, worst, unit))
    return rows
