"""A finished run as its folder tells it: scores, truth and labels, what went wrong, and what it took."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING

from ..atomic import read_record
from ..config import RunConfig
from ..errors import InputError, StateError
from ..io import read_volume, strip_ending
from ..networks.configs import NETWORKS
from ..plan.plan import Plan
from ..report.comparison_table import RunCost
from ..targets import inside
from ..training.log import read_log
from ..workspace import Run
from .evaluate import NETWORK, read_rows
from .made_with import config_of, plan_of
from .manifest import read_manifest
from .run import scores_are_of_predictions, weights_of

if TYPE_CHECKING:
    from ..networks.cost import NetworkCost

__all__ = ["FinishedRun", "Value", "distinct_names", "read_finished"]

Key = tuple[str, str, str]
"""Case, label, metric."""


@dataclass(frozen=True)
class Value:
    """A score, the worst that it can be on that image, and their unit; the score is nan where it is undefined."""

    value: float
    worst: float
    unit: str

    @property
    def defined(self) -> bool:
        """Whether the score is a number."""
        return math.isfinite(self.value)


@dataclass(frozen=True)
class FinishedRun:
    """What a comparison reads of a run.

    Attributes:
        run: its paths.
        config, plan: what it was made with.
        scores: of its network, by split.
        truth: hash of the file of the label that was scored against, by case.
        folds: how many networks predicted.
        failed: why a case could not be prepared.
        subjects: of the cases, as far as manifest.json tells them.
        tolerance_mm: of NSD, that the scores were made with.
    """

    run: Run
    config: RunConfig
    plan: Plan
    scores: Mapping[str, Mapping[Key, Value]]
    truth: Mapping[str, str]
    failed: Mapping[str, str]
    subjects: Mapping[str, str]
    tolerance_mm: float
    folds: int

    def cases(self, split: str) -> list[str]:
        """Return the scored cases of a split, in the order of the scores."""
        return list(dict.fromkeys(case for case, _, _ in self.scores.get(split, {})))

    def value(self, split: str, key: Key) -> Value:
        """Return one score.

        Raises:
            InputError: it is not among the scores.
        """
        found = self.scores[split].get(key)
        if found is None:
            raise InputError(
                f"{self.run.scores}: there is no {key[2]} of {key[1]} for the case {key[0]}; delete the file and run "
                "`neoseg evaluate`."
            )
        return found

    def mask(self, split: str, case: str) -> Path | None:
        """Return the predicted mask of a case, where it is still there."""
        files = sorted(self.run.predictions(split).glob("*"))
        return next((path for path in files if strip_ending(path.name) == case), None)

    def predicts_nothing(self, path: Path, label: str) -> bool:
        """Tell whether a predicted mask holds no voxel of a class or region.

        Raises:
            InputError: the mask cannot be read.
        """
        labels = self.config.label_set
        classes = labels.encode(read_volume(path).array[0], str(path))
        return not inside(classes, self.config.targets.structures[label]).any()

    @property
    def architecture(self) -> str:
        """What the size of the network follows from; alike for runs with networks of one size."""
        plan = self.plan
        sizes = [len(plan.channels), self.config.targets.channels, plan.patch]
        return json.dumps([plan.network.model_dump(mode="json"), *sizes])

    def network_cost(self) -> NetworkCost:
        """Return the size of the network of a fold, which is built without weights to count."""
        from ..networks.cost import network_cost

        plan, classes = self.plan, self.config.targets.channels
        return network_cost(plan.network, in_channels=len(plan.channels), classes=classes, patch=plan.patch)

    def cost(self, counted: NetworkCost, split: str, cases: Sequence[str]) -> RunCost:
        """Return what the run took, given the size of its network.

        Raises:
            StateError: a record is damaged.
        """
        plan, folds = self.plan, self.run.fold_records()
        logs = [line for index in folds for line in read_log(self.run.fold(index) / "log.jsonl")]
        peaks = [line["peak_gib"] for line in logs if line.get("peak_gib") is not None]
        seconds = [record["seconds"] for record in folds.values()]
        spent = self.prediction_seconds(split, cases)
        return RunCost(
            kind=plan.network.kind,
            title=NETWORKS[plan.network.kind].title,
            parameters=counted.parameters,
            multiply_adds=counted.multiply_adds,
            patch=plan.patch,
            peak_gib=max(peaks, default=None),
            training_seconds=fmean(seconds) if seconds else None,
            prediction_seconds=median(spent) if spent else None,
        )

    def prediction_seconds(self, split: str, cases: Iterable[str]) -> list[float]:
        """Return the seconds of the cases for which they were recorded.

        Raises:
            StateError: a record is damaged.
        """
        files = [self.run.probabilities(split) / f"{case}.json" for case in cases]
        again = "delete it and run `neoseg predict`"
        found = {path: read_record(path, again).get("seconds") for path in files if path.is_file()}
        for path, seconds in found.items():
            if not isinstance(seconds, int | float | None):
                raise StateError(f"{path}: this record is damaged (seconds is {seconds!r}); {again}.")
        return [float(seconds) for seconds in found.values() if seconds is not None]

    def recorded_folds(self) -> tuple[int, int]:
        """Return of how many folds the seconds of training are known, and the memory.

        Raises:
            StateError: a record is damaged.
        """
        folds = self.run.fold_records()
        logs = [read_log(self.run.fold(index) / "log.jsonl") for index in folds]
        return len(folds), sum(any(line.get("peak_gib") is not None for line in log) for log in logs)

    def machine(self) -> str | None:
        """Return the processor that the run was trained on; None where it is not known.

        Raises:
            StateError: a record is damaged.
        """
        if not self.run.environment.is_file():
            return None
        known = read_record(self.run.environment, "copy it back from where the run was made")
        devices = {str(record["summary"].get("device")) for record in self.run.fold_records().values()}
        return known.get("cpu") if devices <= {"cpu"} else known.get("gpu")

    def manner(self) -> str:
        """Return with what share of the machine each fold was trained, in words.

        Raises:
            StateError: a record is damaged.
        """
        folds = list(self.run.fold_records().values())
        on_cpu = all(record["summary"].get("device") == "cpu" for record in folds)
        threads = sorted({record["threads"] for record in folds if on_cpu and "threads" in record})
        told = [f"{' or '.join(map(str, threads))} thread{'' if threads == [1] else 's'}"] if threads else []
        processes = max((int(record.get("processes", 1)) for record in folds), default=1)
        told += [f"{processes} processes, of which one tells its memory"] if processes > 1 else []
        spans = [record["span"] for record in folds if "span" in record]
        beside = max((sum(a < end <= b for a, b in spans) for _, end in spans), default=1)
        return ", ".join([*told, *([f"{beside} folds at a time"] if beside > 1 else [])])


def read_finished(folder: Path) -> FinishedRun:
    """Read a run that was evaluated.

    Raises:
        InputError: there is no such folder, it is a file, or the scores are damaged.
        StateError: it is no finished run, or its scores are not those of its weights and predictions.
        ConfigError: its configuration or plan is damaged or of another version.
    """
    if folder.is_file():
        raise InputError(f"{folder}: this is a file; give folders of finished runs, such as work/runs/first.")
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; give folders of finished runs, such as work/runs/first.")
    run = Run(folder)
    missing = [p.name for p in (run.config, run.plan, run.manifest, run.scores) if not p.is_file()]
    if missing:
        raise StateError(f"{folder}: this is no finished run ({', '.join(missing)} not there); {run.instead}.")
    record = run.need("evaluate")
    scored_with, there = record.get("weights", {}), weights_of(run)
    if any(there.get(fold, known) != known for fold, known in scored_with.items()):
        raise StateError(
            f"{run.scores}: these scores were made with other weights than those of now; run `neoseg evaluate` (or "
            "`neoseg run`) first."
        )
    if not scores_are_of_predictions(run):
        raise StateError(
            f"{run.scores}: these scores are older than the predictions beside them; run `neoseg evaluate` (or `neoseg "
            "run`) first."
        )
    scores: dict[str, dict[Key, Value]] = {}
    for row in read_rows(run.scores):
        if row.method == NETWORK:
            scores.setdefault(row.split, {})[row.case, row.label, row.metric] = Value(row.value, row.worst, row.unit)
    known = read_manifest(run)["cases"]
    files = {name: facts.get("files", {}) for name, facts in known.items()}
    labels = {name: hashes["label"] for name, hashes in files.items() if "label" in hashes}
    truth = record.get("truth", labels)  # scores of former versions do not say it
    if changed := sorted(name for name in labels if truth.get(name, labels[name]) != labels[name]):
        raise StateError(
            f"{run.scores}: these scores were made against another label of {changed[0]} than the run has now; run "
            "`neoseg evaluate` (or `neoseg run`) first."
        )
    config = config_of(run)
    return FinishedRun(
        run=run,
        config=config,
        plan=plan_of(run),
        scores=scores,
        truth=truth,
        failed=dict((run.stage_record("prepare") or {}).get("failed", {})),
        subjects={name: str(facts["subject"]) for name, facts in known.items() if facts.get("subject")},
        tolerance_mm=float(record.get("tolerance_mm", config.evaluate.tolerance_mm)),
        folds=max(len(scored_with), len(run.fold_records())),
    )


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """Return the name of each run folder, with its workspace before it where two runs are called alike.

    Raises:
        InputError: a folder was given twice.
    """
    whole = [folder.resolve() for folder in folders]
    for folder, path in zip(folders, whole, strict=True):
        if whole.count(path) > 1:
            raise InputError(f"{folder}: this run was given twice; give each run once.")
    names = [path.name for path in whole]
    if len(set(names)) < len(names):
        names = ["/".join(p.parts[-3:-2] + p.parts[-1:]) if names.count(p.name) > 1 else p.name for p in whole]
    return [str(p) if names.count(name) > 1 else name for name, p in zip(names, whole, strict=True)]
