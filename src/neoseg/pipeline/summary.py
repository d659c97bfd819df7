"""From scores.csv to what a run is judged by: means with intervals, rules beside the network, burden bins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..metrics import metric_named
from ..networks.configs import NETWORKS
from ..prepare.configs import ADC, ZADC
from ..report.content import Evaluation, ScoreRow, System
from ..report.scores import metric_title, score_lines
from ..report.summary import by_burden, false_positives, paired_difference, subject_means, summarise
from .evaluate import NETWORK, ScoredRow
from .prepared import PreparedCase
from .session import HELD_OUT, Session

__all__ = ["CaseScore", "Judged", "channel_title", "judge"]

HEADLINE = "dice"


@dataclass(frozen=True)
class CaseScore:
    """What one case brings to the headline of one method.

    Attributes:
        dice: mean Dice over the classes, or over the regions, that the truth holds; None in a case without any.
        predicted_ml: predicted volume of all classes; of a plane the area in mm² or px².
        percent: true share of the brain, 0..100.
    """

    dice: float | None
    predicted_ml: float
    percent: float


@dataclass(frozen=True)
class Judged:
    """The summary of one split.

    Attributes:
        evaluation: for the page.
        numbers: for summary.json.
        cases: the network's headline by case.
    """

    evaluation: Evaluation
    numbers: dict[str, Any]
    cases: Mapping[str, CaseScore]


def judge(session: Session, split: str, rows: Sequence[ScoredRow], chosen: Mapping[str, Any]) -> Judged | None:
    """Summarise the scored cases of one split ("cv" or "held_out"); None when there are none.

    The headline is the mean Dice over cases with something to find; false alarms on the others are counted apart.

    Args:
        session: the run.
        split: which cases.
        rows: all rows of scores.csv.
        chosen: the record of the stages predict and evaluate, for the words about thresholds.
    """
    mine = [row for row in rows if row.split == split]
    if not mine:
        return None
    resamples, seed = session.config.evaluate.resamples, session.config.seed
    methods = list(dict.fromkeys(row.method for row in mine))
    cases = {m: _case_scores(session, [r for r in mine if r.method == m]) for m in methods}
    names = list(cases[NETWORK])
    subject_of = {case.case: case.subject for case in session.cases}

    def generator() -> np.random.Generator:
        return np.random.default_rng([seed, 2])

    unit = next(row.unit for row in mine if row.metric == "volume_difference")
    sizes = unit.replace("mL", "mm³")

    def system(method: str) -> System:
        scores = [cases[method][n] for n in names]
        full = [s for s in scores if s.dice is not None]
        values = [s.dice for s in full]
        zeros = [0.0] * len(values)
        named = [n for n in names if cases[method][n].dice is not None]
        network = [cases[NETWORK][n].dice for n in named]
        whose = [subject_of[n] for n in named]
        own = subject_means(values, whose) if len(set(whose)) < len(whose) else None
        return System(
            name=_method_title(session, method),
            detail=_detail(session, method, split, chosen, sizes),
            score=summarise(values, zeros, generator=generator(), resamples=resamples, subjects=whose),
            difference=None
            if method == NETWORK
            else paired_difference(network, values, generator(), resamples=resamples, subjects=whose),
            by_subject=None
            if own is None
            else summarise(own, [0.0] * len(own), generator=generator(), resamples=resamples),
            difference_by_subject=None
            if own is None or method == NETWORK
            else paired_difference(subject_means(network, whose), own, generator(), resamples=resamples),
            by_burden=tuple(
                by_burden(
                    values, zeros, [s.percent for s in full], generator=generator(), resamples=resamples, subjects=whose
                )
            ),
            false_positives=false_positives([s.predicted_ml for s in scores if s.dice is None])
            if len(full) < len(scores)
            else None,
        )

    systems = {m: system(m) for m in methods}
    lines = score_lines(
        [_row(r) for r in mine if r.method == NETWORK],
        generator=generator(),
        resamples=resamples,
        subjects=subject_of,
    )
    subjects = len({subject_of[n] for n in names})
    return Judged(
        evaluation=Evaluation(
            title="Held-out cases" if split == HELD_OUT else "Cross-validation",
            how=_how(split, session.labels.count, chosen["postprocess"]),
            network=systems[NETWORK],
            rules=tuple(s for m, s in systems.items() if m != NETWORK),
            lines=lines,
            cases=len(names),
            subjects=subjects,
        ),
        numbers={
            "cases": len(names),
            "subjects": subjects,
            **_numbers(systems[NETWORK], unit),
            "metrics": {f"{line.label}.{line.metric}": {"unit": line.unit, **line.summary.to_json()} for line in lines},
            "rules": {m: _numbers(s, unit) for m, s in systems.items() if m != NETWORK},
        },
        cases=cases[NETWORK],
    )


def _how(split: str, classes: int, picks: Mapping[str, Any]) -> str:
    """Say which networks predicted the cases, and where what was chosen for them was chosen.

    Args:
        split: "cv" or "held_out".
        classes: their number, the background included.
        picks: the post-processing that was chosen, by fold; empty where there was nothing to choose.
    """
    if split == HELD_OUT:
        return "Predicted by the mean of all folds; no choice of any kind was made on these cases."
    predicted = "Each case is predicted by the fold that has not seen it"
    if not picks:
        return f"{predicted}."
    if classes > 2:
        return f"{predicted}; how many of the largest components of each class stay was chosen on other folds."
    return f"{predicted}; its threshold was chosen on other folds."


def channel_title(channel: str) -> str:
    """Return how a channel is called on the page."""
    return {ADC: "ADC", ZADC: "Z-ADC"}.get(channel, channel)


def _numbers(system: System, unit: str) -> dict[str, Any]:
    """Plain data of one system; ``dice`` is over the cases with something to find.

    Where subjects have several of them, ``dice_by_subject`` is over the means of the subjects.
    """
    apart = {"dice_by_subject": system.by_subject, "network_minus_this_by_subject": system.difference_by_subject}
    return {
        "dice": system.score.to_json(),
        **{name: found.to_json() for name, found in apart.items() if found is not None},
        "detail": system.detail,
        "network_minus_this": system.difference.to_json() if system.difference else None,
        "by_burden": [b.to_json() for b in system.by_burden],
        "empty_cases": system.false_positives.to_json(unit) if system.false_positives else None,
    }


def _case_scores(session: Session, rows: Sequence[ScoredRow]) -> dict[str, CaseScore]:
    result = {}
    for name in dict.fromkeys(row.case for row in rows):
        prepared = PreparedCase(session.store, name)
        true_ml = dict(zip(session.labels.names, prepared.record["label_ml"], strict=True))
        own = {(r.label, r.metric): r.value for r in rows if r.case == name}
        amounts = list(true_ml.values())
        held = zip(session.targets.names, session.targets.members, strict=True)
        dices = [own[name, HEADLINE] for name, members in held if any(amounts[i - 1] > 0 for i in members)]
        predicted = sum(own[label, "volume_difference"] + ml for label, ml in true_ml.items())
        result[name] = CaseScore(
            dice=float(np.mean(dices)) if dices else None,
            predicted_ml=max(0.0, predicted),
            # a label may reach beyond the foreground
            percent=min(100.0, 100 * sum(true_ml.values()) / max(prepared.record["brain_ml"], 1e-9)),
        )
    return result


def _row(row: ScoredRow) -> ScoreRow:
    metric = metric_named(row.metric)
    return ScoreRow(
        case=row.case,
        label=row.label,
        metric=metric_title(row.metric),
        value=row.value if math.isfinite(row.value) else None,
        worst=row.worst,
        unit="" if row.unit == "ratio" else row.unit,
        better=metric.direction,
    )


def _method_title(session: Session, method: str) -> str:
    if method == NETWORK:
        return NETWORKS[session.run_plan.network.kind].title
    rule = next(r for r in session.config.rules if r.name == method)
    return f"{channel_title(rule.channel)} {rule.side} a threshold"


def _detail(session: Session, method: str, split: str, chosen: Mapping[str, Any], sizes: str) -> str:
    picks = chosen["postprocess"] if method == NETWORK else chosen["rules"][method]
    if not picks:
        return "regions of probability ≥ 0.5" if session.targets.overlapping else "most probable class"
    keys = ["all"] if split == HELD_OUT else [k for k in picks if k != "all"]
    kept = sorted({tuple(picks[k].get("keep_largest", ())) for k in keys if any(picks[k].get("keep_largest", ()))})
    largest = f", largest components kept: {' / '.join(_counts(session, counts) for counts in kept)}" if kept else ""
    if session.labels.count > 2:
        return f"most probable class{largest}"
    thresholds = sorted({round(picks[k]["threshold"], 3) for k in keys})
    volumes = sorted({picks[k]["minimum_lesion_mm3"] for k in keys})
    what = "probability ≥" if method == NETWORK else ("value <" if _below(session, method) else "value >")
    shown = " / ".join(f"{t:g}" for t in thresholds)
    return f"{what} {shown}, components of at least {' / '.join(f'{v:g}' for v in volumes)} {sizes}{largest}"


def _counts(session: Session, counts: Sequence[int]) -> str:
    return ", ".join(f"{n} of {name}" for name, n in zip(session.labels.names, counts, strict=True) if n)


def _below(session: Session, method: str) -> bool:
    return next(r for r in session.config.rules if r.name == method).side == "below"
