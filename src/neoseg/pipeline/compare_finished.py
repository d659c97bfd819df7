"""Finished runs beside each other on the cases that all of them have scored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import read_json
from ..errors import ConfigError, InputError, StateError, nearest
from ..metrics import Metric, metric_named
from ..report.compare import RunScores, standings
from ..report.comparison_table import Comparison, RunCost
from ..report.scores import metric_title
from ..report.summary import subject_numbers
from ..wording import counted
from .finished_runs import FinishedRun, distinct_names, read_finished
from .session import CV, HELD_OUT

__all__ = ["compare_finished"]

SPLITS = (CV, HELD_OUT)


def compare_finished(
    folders: Sequence[Path], *, metric: str = "dice", label: str | None = None, split: str | None = None
) -> Comparison:
    """Compare finished runs by one metric and by what they took.

    All numbers are over the cases that every run has scored. The value of a case is the mean over the classes (of runs
    with regions: over the regions) that its truth holds. Cases without any of them are counted apart, as false alarms
    or none, as in the reports; only amounts (volume differences, false positive lesions) take them in. Of signed
    metrics the size without the sign is compared.

    Args:
        folders: ``runs/<name>`` of one workspace or of several.
        metric: a key of ``neoseg.metrics.METRICS``.
        label: one class or region; None for the mean over all classes, or over all regions.
        split: "cv" or "held_out"; None takes held-out cases where every run has them, else the cross-validated ones.

    Raises:
        ConfigError: fewer than two runs; an unknown metric, label or split.
        InputError: a folder is missing or stands twice, the runs have other labels, truths or units, or share no case.
        StateError: a folder is no finished run, or its scores are out of date.
    """
    if len(folders) < 2:
        raise ConfigError(
            f"compare: {len(folders)} run was given, but a comparison takes two or more; its own scores stand in its "
            "report.html."
        )
    chosen = metric_named(metric)
    if split is not None and split not in SPLITS:
        raise ConfigError(f"--split {split}: there is no such split{nearest(split, SPLITS)}; give cv or held_out.")
    names = distinct_names(folders)
    runs = {name: read_finished(folder) for name, folder in zip(names, folders, strict=True)}
    part = split or (HELD_OUT if all(HELD_OUT in run.scores for run in runs.values()) else CV)
    labels = _labels(runs, label)
    _require_same_tolerance(runs, chosen)
    shared = _shared(runs, part)
    _require_same_truth(runs, shared)
    held = {case: [name for name in labels if _holds(runs.values(), part, case, name)] for case in shared}
    amount = chosen.empty.truth is None
    empty = [case for case in shared if not held[case]]
    cases = shared if amount else [case for case in shared if held[case]]
    if not cases:
        raise InputError(
            f"compare: none of the {len(shared)} shared cases holds {' or '.join(labels)}, so there is no {metric}; "
            "choose another label or split."
        )
    view = _View(part, chosen, {case: labels if amount else held[case] for case in cases})
    subjects, about_subjects = _subjects(runs, cases)
    unit = _unit(runs, view)
    found = standings(
        [_scores(name, run, view) for name, run in runs.items()],
        better="higher" if chosen.direction == "higher" else "lower",
        subjects=subjects,
    )
    sizes = {run.architecture: run for run in runs.values()}
    counted = {architecture: run.network_cost() for architecture, run in sizes.items()}
    costs = {name: run.cost(counted[run.architecture], part, cases) for name, run in runs.items()}
    order = [standing.name for standing in found]
    return Comparison(
        metric=metric,
        title=f"Size of the {metric_title(metric)}" if chosen.direction == "zero" else metric_title(metric),
        unit=unit,
        better="higher" if chosen.direction == "higher" else "lower",
        label=label,
        split=part,
        cases=tuple(cases),
        standings=found,
        costs=tuple(costs[name] for name in order),
        false_alarms=tuple(sum(_alarm(runs[name], part, case, labels) for case in empty) for name in order),
        empty_cases=tuple(empty),
        folders=tuple(runs[name].run.folder for name in order),
        notes=(
            *_about_cases(runs, part, shared, len(cases)),
            *_about_empty(empty, labels, amount=amount),
            *about_subjects,
            *_about_test(cases, subjects, found[0].name, len(runs)),
            *_about_folds(runs, part),
            *_about_starts(runs),
            *_about_costs(runs, costs, part, cases),
        ),
    )


@dataclass(frozen=True)
class _View:
    """What is looked at: the split, the metric, and for each case the classes or regions that count."""

    split: str
    metric: Metric
    classes: Mapping[str, Sequence[str]]


def _labels(runs: Mapping[str, FinishedRun], label: str | None) -> list[str]:
    """Return the classes or regions to score, after making sure that they mean the same in all runs."""
    (first, one), *others = runs.items()
    meant, coding = _meaning(one), _coding(one)
    if label is not None and label not in meant:
        raise ConfigError(f"--label {label}: {first} has no such class{nearest(label, meant)}.")
    wanted = list(one.config.targets.names) if label is None else [label]
    for name, run in others:
        theirs, asked = _meaning(run), set(run.config.targets.names)
        same = (theirs == meant and asked == set(wanted)) if label is None else theirs.get(label) == meant[label]
        if not same or _coding(run) != coding:
            way_out = (
                "only runs with the same labels can be compared, or one class that means the same in all, given with "
                "--label"
                if label is None
                else f"{label!r} does not mean the same in both, so it cannot be compared"
            )
            raise InputError(
                f"compare: {first} has the labels {_told_labels(one)} and {name} has {_told_labels(run)}; {way_out}."
            )
    return wanted


def _coding(run: FinishedRun) -> tuple[float, bool]:
    """Return what else decides what stored values mean: their tolerance, and whether they number instances."""
    labels = run.config.label_set
    return labels.tolerance, labels.instances


def _meaning(run: FinishedRun) -> dict[str, set[float]]:
    """Return the stored values that each class and region of a run means."""
    values, structures = run.config.label_set.values, run.config.targets.structures
    return {name: {value for index in own for value in values[index - 1]} for name, own in structures.items()}


def _told_labels(run: FinishedRun) -> str:
    """Return the classes and regions of a run as its configuration has them."""
    labels, targets = run.config.label_set, run.config.targets
    told = ", ".join(f"{n} = {list(v)}" for n, v in zip(labels.names, labels.values, strict=True))
    told = f"{told} with {targets.told}" if targets.overlapping else told
    told = f"{told}, values being instances" if labels.instances else told
    return f"{told} (tolerance {labels.tolerance:g})" if labels.tolerance else told


def _require_same_tolerance(runs: Mapping[str, FinishedRun], metric: Metric) -> None:
    used = {name: run.tolerance_mm for name, run in runs.items()}
    if metric.name == "nsd" and len(set(used.values())) > 1:
        told = ", ".join(f"{name} {mm:g} mm" for name, mm in used.items())
        raise InputError(
            f"compare: nsd was scored with different tolerances ({told}); evaluate the runs with the same one."
        )


def _shared(runs: Mapping[str, FinishedRun], split: str) -> list[str]:
    for name, run in runs.items():
        if not run.cases(split):
            raise InputError(
                f"compare: {name} has no scored {_called(split)}; choose another --split, or leave this run out."
            )
    first, *others = runs.values()
    scored = [set(run.cases(split)) for run in others]
    shared = [case for case in first.cases(split) if all(case in cases for cases in scored)]
    if not shared:
        told = "; ".join(f"{name} has {_listed(run.cases(split))}" for name, run in runs.items())
        raise InputError(
            f"compare: no case is among the {_called(split)} of all runs ({told}); compare runs of the same cases."
        )
    return shared


def _require_same_truth(runs: Mapping[str, FinishedRun], cases: Iterable[str]) -> None:
    for case in cases:
        found = {name: run.truth.get(case) for name, run in runs.items()}
        if len(set(found.values())) > 1 or None in found.values():
            told = ", ".join(f"{name} {digest or 'no record'}" for name, digest in found.items())
            raise InputError(
                f"compare: the label file of {case} is not the same in all runs (hashes: {told}); only runs that were "
                "scored against the same truth can be compared."
            )


def _holds(runs: Iterable[FinishedRun], split: str, case: str, label: str) -> bool:
    """Tell whether the truth of a case holds a class, from the scores of the runs, which share it.

    Sensitivity is undefined when something was found in an empty truth. A Dice of 1 says that mask and truth are the
    same, so the mask is looked at.
    """
    masks = []
    for run in runs:
        if not run.value(split, (case, label, "sensitivity")).defined:
            return False
        if run.value(split, (case, label, "dice")).value < 1:
            return True
        masks.append((run, run.mask(split, case)))
    for run, path in masks:
        if path is not None:
            return not run.predicts_nothing(path, label)
    folders = " or ".join(str(run.run.predictions(split)) for run, _ in masks)
    raise InputError(f"{folders}: the mask of {case} is not there; run `neoseg predict`, or copy the masks too.")


def _alarm(run: FinishedRun, split: str, case: str, labels: Iterable[str]) -> bool:
    return any(run.value(split, (case, label, "dice")).value < 1 for label in labels)


def _unit(runs: Mapping[str, FinishedRun], view: _View) -> str:
    """Return the one unit of all scores that are compared; "" for ratios.

    Raises:
        InputError: there are several.
    """
    found = {
        name: sorted(
            {
                run.value(view.split, (case, label, view.metric.name)).unit
                for case, own in view.classes.items()
                for label in own
            }
        )
        for name, run in runs.items()
    }
    units = {unit for own in found.values() for unit in own}
    if len(units) > 1:
        told = ", ".join(f"{name} {' and '.join(own)}" for name, own in found.items())
        raise InputError(
            f"compare: the units of {view.metric.name} differ ({told}); only scores in one unit can be compared."
        )
    unit = units.pop()
    return "" if unit == "ratio" else unit


def _scores(name: str, run: FinishedRun, view: _View) -> RunScores:
    values: dict[str, float | None] = {}
    worst: dict[str, float] = {}
    for case in (c for c in run.cases(view.split) if c in view.classes):
        scores = [run.value(view.split, (case, label, view.metric.name)) for label in view.classes[case]]
        sizes = [abs(s.value) if view.metric.direction == "zero" else s.value for s in scores]
        filled = [size if s.defined else s.worst for s, size in zip(scores, sizes, strict=True)]
        worst[case] = sum(filled) / len(filled)
        values[case] = worst[case] if all(s.defined for s in scores) else None
    return RunScores(name, values, worst, run.config.seed, run.config.evaluate.resamples)


def _subjects(runs: Mapping[str, FinishedRun], cases: Sequence[str]) -> tuple[dict[str, str] | None, list[str]]:
    """Return whose each case is, None where no run tells it of all cases, and what has to be said about it."""
    told = {
        name: [run.subjects[case] for case in cases]
        for name, run in runs.items()
        if all(case in run.subjects for case in cases)
    }
    if not told:
        return None, ["No manifest.json tells whose the cases are, so each counts as a subject of its own."]
    fewest = min(told, key=lambda name: len(set(told[name])))
    subjects = dict(zip(cases, told[fewest], strict=True))
    notes = []
    if len({tuple(subject_numbers(own, len(own)).tolist()) for own in told.values()}) > 1:
        notes.append(f"The runs tell other subjects of these cases; those of {fewest} are taken, which are the fewest.")
    if (count := len(set(subjects.values()))) < len(cases):
        of = counted(count, "subject")
        notes.append(
            f"The {len(cases)} cases are of {of}. A subject was drawn whole, with all its cases, for each interval and "
            "in the test."
        )
    return subjects, notes


def _about_cases(runs: Mapping[str, FinishedRun], split: str, shared: Sequence[str], compared: int) -> list[str]:
    notes = []
    left = {name: [case for case in run.cases(split) if case not in shared] for name, run in runs.items()}
    if any(left.values()):
        told = "; ".join(f"of {name} {_listed(cases)}" for name, cases in left.items() if cases)
        of_them = f", of which {compared} hold what is compared" if compared < len(shared) else ""
        notes.append(f"All runs have scored {len(shared)} {_called(split)}{of_them}; left out are {told}.")
    everywhere = {case for run in runs.values() for case in run.cases(split)}
    nowhere = set.intersection(*(set(run.failed) for run in runs.values())) - everywhere
    if nowhere:
        notes.append(f"No run could prepare {_listed(sorted(nowhere))}.")
    for name, run in runs.items():
        lost = sorted(everywhere & set(run.failed))
        if lost:
            notes.append(
                f"{name} could not prepare {_listed(lost)}; its report leaves them out of its means, so they are left "
                "out here for all runs, which favours it."
            )
    return notes


def _about_empty(empty: Sequence[str], labels: Sequence[str], *, amount: bool) -> list[str]:
    if not empty:
        return []
    what = f"{_listed(empty)} {'holds' if len(empty) == 1 else 'hold'} no {' or '.join(labels)}"
    if amount:
        return [f"{what}; counted among the cases, and a run that predicts some there has a false alarm."]
    return [f"{what}; not among the cases of the means, but a run that predicts some there has a false alarm."]


def _about_test(cases: Sequence[str], subjects: Mapping[str, str] | None, best: str, runs: int) -> list[str]:
    count = len(cases) if subjects is None else len(set(subjects.values()))
    drawn = "case" if count == len(cases) else "subject"
    corrected = f"; p (Holm) is corrected for the {runs - 1} of them" if runs > 2 else ""
    notes = [
        f"p: paired permutation test over the {drawn}s against {best}, which was chosen by these same scores"
        f"{corrected}. It does not cover what another seed of the training would change."
    ]
    if count < 2:
        notes.append(f"With one {drawn} there is no interval, and p is 1.")
    elif count < 6:
        notes.append(f"With {count} {drawn}s p cannot be below {2 / 2**count:g}, however large a difference is.")
    return notes


def _about_starts(runs: Mapping[str, FinishedRun]) -> list[str]:
    """Say what the trainings warned of: weights that they began with may have seen the compared cases."""
    told = {name: (run.run.stage_record("train") or {}).get("warnings", []) for name, run in runs.items()}
    return [f"{name}: {warning['text']}" for name, warnings in told.items() for warning in warnings]


def _about_folds(runs: Mapping[str, FinishedRun], split: str) -> list[str]:
    if split != CV:
        return []
    folds = {name: _folds_of(run.run.folder / "folds.json") for name, run in runs.items()}
    known = {name: fold for name, fold in folds.items() if fold is not None}
    without = [name for name in folds if name not in known]
    first = next(iter(known.values()), None)
    notes = [f"The folds of {_listed(without)} are not known, since folds.json is not there."] if without else []
    if any(fold != first for fold in known.values()):
        notes.append("The folds of the runs differ, so a case was predicted by networks trained on other cases.")
    return notes


def _folds_of(path: Path) -> Any:
    try:
        return read_json(path) if path.is_file() else None
    except ValueError as error:
        raise StateError(
            f"{path}: this file is damaged ({error}); copy it back from where the run was made."
        ) from error


def _about_costs(
    runs: Mapping[str, FinishedRun], costs: Mapping[str, RunCost], split: str, cases: Sequence[str]
) -> list[str]:
    notes = []
    fields = {"peak_gib": "peak memory", "training_seconds": "training", "prediction_seconds": "prediction"}
    for field, told in fields.items():
        without = [name for name, cost in costs.items() if getattr(cost, field) is None]
        if without:
            notes.append(f"Shown as -, because no record of it is there: {told} of {_listed(without)}.")
    for name in costs:
        known = len(runs[name].prediction_seconds(split, cases))
        if 0 < known < len(cases):
            notes.append(
                f"The seconds of prediction of {name} are recorded for {known} of {counted(len(cases), 'case')}."
            )
        for what, count in zip(("seconds", "memory"), runs[name].recorded_folds(), strict=True):
            if 0 < count < runs[name].folds:
                notes.append(f"The {what} of training of {name} are of {count} of {runs[name].folds} folds.")
    return notes + _about_machines(runs)


def _about_machines(runs: Mapping[str, FinishedRun]) -> list[str]:
    machines, manners = (
        {n: told(run) for n, run in runs.items()} for told in (FinishedRun.machine, FinishedRun.manner)
    )
    notes = []
    if unknown := [name for name, machine in machines.items() if machine is None]:
        notes.append(f"It is not known on which machine {_listed(unknown)} ran, so seconds and memory may not compare.")
    known = {name: machine for name, machine in machines.items() if machine is not None}
    if len(set(known.values())) > 1:
        told = "; ".join(f"{name} on {machine}" for name, machine in known.items())
        notes.append(f"Memory and seconds are from different machines: {told}.")
    if len(set(manners.values())) > 1:
        told = "; ".join(f"{name} with {manner or 'one fold at a time'}" for name, manner in manners.items())
        notes.append(f"The folds had different shares of a machine, so their seconds do not compare: {told}.")
    return notes


def _called(split: str) -> str:
    return "held-out cases" if split == HELD_OUT else "cross-validated cases"


def _listed(cases: Sequence[str]) -> str:
    more = f" and {len(cases) - 5} more" if len(cases) > 5 else ""
    return f"{', '.join(cases[:5])}{more}"
