"""The length that is asked of a training against what its folder holds: kept, extended, or refused before the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..config import LENGTHS
from ..errors import StateError
from ..training.configs import TrainingConfig
from ..workspace import Run

__all__ = ["length_words", "lengths_in", "require_length", "without_length"]

FREE = ("epochs", "steps", "time_budget_s", "early_stop_patience", "checkpoint_every_seconds")
"""Fields of [training] that a finished run may change: those that set its length, and how often it is kept."""


def without_length(training: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of [training] that have to stay as they are once a run is trained."""
    return {key: value for key, value in training.items() if key not in FREE}


def lengths_in(training: TrainingConfig) -> dict[str, Any]:
    """Return the fields of [training] that a finished run may change."""
    return training.model_dump(include=set(FREE))


def length_words(training: TrainingConfig) -> str:
    """Return what sets the length of a training: "steps = 60", "time_budget_s = 1800.0" or "epochs = 100"."""
    for key in ("time_budget_s", "steps"):
        if (value := getattr(training, key)) is not None:
            return f"{key} = {value}"
    return f"epochs = {training.epochs}"


def require_length(run: Run, folds: Sequence[int], settings: TrainingConfig) -> list[int]:
    """Check the length asked for against every fold's folder, before anything is written.

    Args:
        run: the run.
        folds: those that are to be trained.
        settings: the training, with what the plan decided.

    Returns:
        The finished folds that get more steps.

    Raises:
        StateError: an unfinished training of another length, or a finished one that is as long already.
    """
    from ..training.loop import read_result
    from ..training.segments import length_of, length_told, stored_segments

    wanted, longer = length_of(settings), []
    for index in folds:
        folder = run.fold(index)
        if not (folder / "training.json").is_file():
            continue
        before = stored_segments(folder)[0][-1].length
        if before == wanted:
            continue
        if not (folder / "finished.json").is_file():
            raise StateError(
                f"{folder}: this training is unfinished; its length is {length_told(before, wanted)}, but "
                f"{length_told(wanted, before)} was given; let it finish with the former length "
                f"({_how(before, wanted)}), then ask for more."
            )
        done = asdict(read_result(folder / "finished.json"))
        if not _is_longer(settings, done):
            raise StateError(
                f"{folder}: this training is finished after {done['steps']} steps and {done['seconds']:.0f} s of work, "
                f"and {length_words(settings)} is not longer; give the former length ({_how(before, wanted)}) to go on "
                "with this run, ask for more, or choose another `name` in the configuration."
            )
        longer.append(index)
    return longer


def _is_longer(settings: TrainingConfig, done: dict[str, Any]) -> bool:
    if settings.time_budget_s is not None:
        return settings.time_budget_s > float(done["seconds"])
    steps = settings.steps if settings.steps is not None else settings.epochs * settings.steps_per_epoch
    return steps > int(done["steps"])


def _how(length: dict[str, Any], other: dict[str, Any]) -> str:
    """Return how a length is given in another's place: by an option, or by the configuration."""
    patience = "early_stop_patience"
    if {**length, patience: None} == {**other, patience: None}:
        value = length.get(patience)
        return f"without training.{patience}" if value is None else f"training.{patience} = {value}"
    key = next(k for k in ("time_budget_s", "steps", "epochs") if length.get(k) is not None)
    # in full: an option takes no exponent
    told = str(length[key]).removesuffix(".0")
    return f"`{LENGTHS[key]} {told}{'s' if key == 'time_budget_s' else ''}`"
