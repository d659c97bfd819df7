"""Folds for cross-validation and inner splits for choices: seeded, grouped by subject, stratified by lesion burden."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel, Field

from ..atomic import read_json, write_json
from ..errors import InputError
from ..wording import counted

__all__ = ["Fold", "FoldsConfig", "make_folds", "read_folds", "too_few_subjects", "write_folds"]


class FoldsConfig(BaseModel, frozen=True, extra="forbid"):
    """How the training split is divided.

    Attributes:
        count: number of folds of the cross-validation.
        inner_share: share of each fold's training cases that is set aside to choose the epoch and to stop early, taken
            as the nearest of a half, a third, a quarter and so on; 0: the network learns from all of them, and its last
            epoch predicts.
    """

    count: int = Field(5, ge=2)
    inner_share: float = Field(0.2, ge=0, lt=0.5)


@dataclass(frozen=True)
class Fold:
    """One fold: ``train`` moves the weights, ``inner`` chooses the epoch, ``validation`` is scored and never looked at.

    No subject stands in two of the three; ``inner`` may be empty.
    """

    train: tuple[str, ...]
    inner: tuple[str, ...]
    validation: tuple[str, ...]


def too_few_subjects(count: int, config: FoldsConfig) -> str | None:
    """Return one sentence when so many subjects cannot be divided into the folds, else None.

    Each fold needs one subject to train with, one to score and, with an inner share, one to choose with.
    """
    chooses = config.inner_share > 0
    # of three subjects a half is two, and one alone is left for training and for choosing
    needed = 4 if chooses and config.count == 2 else config.count
    if count >= needed:
        return None
    less = f"set folds.count = {count} or add cases" if count >= (3 if chooses else 2) else "add cases"
    return (
        f"folds: {counted(count, 'subject')} with a label, but {config.count} folds"
        f"{' with an inner split' if chooses else ''} need at least {needed}; {less}."
    )


def make_folds(
    subjects: Mapping[str, str], burden: Mapping[str, float], config: FoldsConfig, generator: np.random.Generator
) -> list[Fold]:
    """Divide cases into folds.

    Args:
        subjects: case to subject.
        burden: case to share of the foreground that is labelled, 0..1; it orders the strata.
        config: number of folds and the inner share.
        generator: all randomness.

    Raises:
        InputError: too few subjects: each fold needs one to train with, one to score and, with an inner share, one to
            choose with.
    """
    members: dict[str, list[str]] = {}
    for case, subject in subjects.items():
        members.setdefault(subject, []).append(case)
    if told := too_few_subjects(len(members), config):
        raise InputError(told)
    weight = {subject: float(np.mean([burden[c] for c in cases])) for subject, cases in members.items()}
    groups = _deal(sorted(members), weight, config.count, generator)
    folds = []
    for held in groups:
        rest = [s for s in sorted(members) if s not in held]
        inner: set[str] = set()
        if config.inner_share:
            parts = min(range(2, 1 + len(rest)), key=lambda n: abs(1 / n - config.inner_share), default=2)
            inner = _deal(rest, weight, min(parts, len(rest)), generator)[0]
        train = [s for s in rest if s not in inner]
        folds.append(
            Fold(*(tuple(sorted(c for s in group for c in members[s])) for group in (train, sorted(inner), held)))
        )
    return folds


def _deal(
    subjects: Sequence[str], weight: Mapping[str, float], count: int, generator: np.random.Generator
) -> list[set[str]]:
    """Order subjects by burden and deal each run of ``count`` neighbours in random order to the groups."""
    shuffled = [subjects[i] for i in generator.permutation(len(subjects))]
    ordered = sorted(shuffled, key=lambda s: weight[s])
    groups: list[set[str]] = [set() for _ in range(count)]
    for start in range(0, len(ordered), count):
        block = ordered[start : start + count]
        for subject, group in zip(block, generator.permutation(count), strict=False):
            groups[int(group)].add(subject)
    # The last, shorter block may leave groups that differ by one; an empty group takes from the largest.
    for group in groups:
        if not group:
            group.add(max(groups, key=len).pop())
    return groups


def write_folds(path: Path, folds: Sequence[Fold], key: str) -> None:
    """Write folds.json, which may be edited."""
    rows = [{"train": list(f.train), "inner": list(f.inner), "validation": list(f.validation)} for f in folds]
    write_json(path, {"key": key, "folds": rows})


def read_folds(path: Path, subjects: Mapping[str, str]) -> list[Fold]:
    """Read folds.json, which a person may have edited.

    Args:
        path: the file.
        subjects: case to subject, of every labelled training case.

    Raises:
        InputError: the file is not such a table, names a case that is no labelled training case, scores a case twice,
            or puts one subject on two sides of a fold.
    """
    try:
        rows = read_json(path)["folds"]
        folds = [Fold(tuple(r["train"]), tuple(r["inner"]), tuple(r["validation"])) for r in rows]
        wrong = [c for f in folds for c in (*f.train, *f.inner, *f.validation) if not isinstance(c, str)]
        if wrong or not folds:
            raise ValueError(f"{wrong[0]!r} is not the name of a case" if wrong else "no fold")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: this is not a table of folds ({error!r}); delete it and plan again.") from error
    for number, fold in enumerate(folds):
        sides: dict[str, str] = {}
        for side in ("train", "inner", "validation"):
            for case in getattr(fold, side):
                if case not in subjects:
                    raise InputError(
                        f"{path}, fold {number}: the case {case!r} is no labelled training case; remove it, or delete "
                        "the file and plan again."
                    )
                other = sides.setdefault(subjects[case], side)
                if other != side:
                    raise InputError(
                        f"{path}, fold {number}: the subject {subjects[case]!r} stands in {other!r} and in {side!r}; "
                        "keep all cases of a subject on one side."
                    )
    scored = [case for fold in folds for case in fold.validation]
    left = sorted(set(subjects) - set(scored))
    if left:
        raise InputError(f"{path}: the cases {left[:5]} are validation cases of no fold; put each into one.")
    if len(set(scored)) < len(scored):
        twice = sorted({c for c in scored if scored.count(c) > 1})
        raise InputError(f"{path}: the cases {twice[:5]} are validation cases of two folds; keep each in one.")
    return folds
