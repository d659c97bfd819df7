"""How long a training is: segments, each with a schedule of its own; a finished training may get another one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter
from torch import nn

from ..atomic import read_record, write_json
from ..augment.configs import AugmentConfig
from ..errors import StateError
from ..wording import counted
from .checkpoint import TrainingState
from .configs import TrainingConfig
from .step import StepParts
from .time_budget import steps_within

__all__ = [
    "LENGTH",
    "Segment",
    "length_of",
    "length_told",
    "next_segments",
    "read_segments",
    "require_same",
    "stored_segments",
    "under_way",
    "write_segments",
]

RECORD = "training.json"

LENGTH = ("epochs", "steps", "time_budget_s", "early_stop_patience")
"""Fields of the configuration that may change once a training is finished."""


@dataclass(frozen=True)
class Segment:
    """A stretch of steps over which the learning rate runs through its schedule once.

    Attributes:
        first, last: steps done before it and at its end.
        epoch: epochs done before it.
        length: what the configuration asked for.
    """

    first: Annotated[int, Field(ge=0)]
    last: Annotated[int, Field(ge=0)]
    epoch: Annotated[int, Field(ge=0)]
    length: dict[str, int | float | None]


_SEGMENTS = TypeAdapter(Annotated[list[Segment], Field(min_length=1)])


def under_way(segments: Sequence[Segment], step: int) -> tuple[Segment, int]:
    """Return the segment of the step that comes after so many, and the steps done when the next segment begins.

    It is not the last one where its checkpoints were damaged and the training goes on from one of the segment before;
    that one may have been stopped early, so that it ended before its last step.
    """
    index = max(i for i, segment in enumerate(segments) if segment.first <= step)
    return segments[index], segments[index + 1].first if index + 1 < len(segments) else segments[index].last


def length_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the fields that set the length of a training."""
    return _effective(config.model_dump(mode="json", include=set(LENGTH)))


def _effective(length: dict[str, Any]) -> dict[str, Any]:
    """Return a length without the epochs where steps or a time are given, which rule then."""
    ruled = length.get("steps") is not None or length.get("time_budget_s") is not None
    return {key: value for key, value in length.items() if not (ruled and key == "epochs")}


def length_told(length: dict[str, Any], other: dict[str, Any]) -> str:
    """Return the fields of a length that differ from another one: "steps = 60, no early_stop_patience"."""
    differing = [key for key in {**length, **other} if length.get(key) != other.get(key)]
    return ", ".join(f"no {key}" if (value := length.get(key)) is None else f"{key} = {value}" for key in differing)


def stored_segments(folder: Path) -> tuple[list[Segment], dict[str, Any]]:
    """Return the segments in ``training.json`` of a fold's folder, and what they were trained with.

    Settings that the version which trained them did not have yet are given as they are by default. Segments that are
    only prescribed, as by a reproduction, have nothing to compare: an empty dict.

    Raises:
        StateError: the file is missing or damaged.
    """
    remedy = "copy it back, or delete the folder to train this fold anew"
    stored = read_record(folder / RECORD, remedy)
    try:
        segments = _SEGMENTS.validate_json(json.dumps(stored["segments"]), strict=True)
        segments = [replace(segment, length=_effective(segment.length)) for segment in segments]
        if not segments or any(not 0 <= s.first <= s.last or s.epoch < 0 for s in segments):
            raise ValueError("its segments are none, or end before they begin")
        identity = {} if stored["identity"] is None else dict(stored["identity"])
        if stored["identity"] is not None:
            identity["config"] = _with_defaults(identity["config"], TrainingConfig())
            if identity.get("augmentation") is not None:
                identity["augmentation"] = _with_defaults(identity["augmentation"], AugmentConfig())
    except (KeyError, TypeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise StateError(f"{folder / RECORD}: this file is damaged ({reason}); {remedy}.") from error
    return segments, identity


def _with_defaults(stored: Mapping[str, Any], defaults: BaseModel) -> dict[str, Any]:
    return {**defaults.model_dump(mode="json"), **stored}


def read_segments(folder: Path, identity: dict[str, Any], config: TrainingConfig) -> list[Segment]:
    """Return the segments of a fold's folder; none when it is new.

    Raises:
        StateError: the folder holds a training of other settings or data, or an unfinished one of another length.
    """
    if not (folder / RECORD).exists():
        return []
    segments, there = stored_segments(folder)
    if there:
        wanted = dict(identity)
        before, now = there.pop("config"), wanted.pop("config")
        changed = [key for key in wanted if there.get(key) != wanted[key]]
        changed += [f"config.{key}" for key, value in now.items() if before.get(key) != value]
        _refuse(folder, changed)
    wanted, last = length_of(config), segments[-1].length
    if wanted != last and not (folder / "finished.json").exists():
        raise StateError(
            f"{folder / RECORD}: this training is unfinished; its length is {length_told(last, wanted)}, but "
            f"{length_told(wanted, last)} was given; let it finish with the former length, then ask for more."
        )
    return segments


def require_same(folder: Path, parts: Mapping[str, Any]) -> None:
    """Refuse data that are not those which the training of a fold's folder has begun with.

    Args:
        folder: of the fold; a new one holds nothing to compare.
        parts: of the identity of the training, by name, as they would be now.

    Raises:
        StateError: one of them was another.
    """
    if (folder / RECORD).exists():
        _, there = stored_segments(folder)
        _refuse(folder, [key for key, value in parts.items() if there and there.get(key) != value])


_DATA = {"inputs", "train", "validation"}
"""What of the identity of a training follows from files, whose names say nothing to who changed one."""


def _refuse(folder: Path, changed: Sequence[str]) -> None:
    if _DATA & set(changed):
        raise StateError(
            f"{folder}: this fold was trained on other data: images, labels, the cases of the fold, the loss or the "
            "first weights have changed since; give the run another `name`, such as by --set name=second, or delete "
            f"{folder.parent} to train anew."
        )
    if changed:
        raise StateError(
            f"{folder / RECORD}: this folder holds a training with other values of {', '.join(sorted(changed))}; give "
            "the values of then to go on with it, or give the run another `name` to train anew."
        )


def next_segments(
    segments: list[Segment],
    state: TrainingState,
    network: nn.Module,
    parts: StepParts,
    *,
    folder: Path,
    spent_s: float,
) -> list[Segment]:
    """Return the segments with one more, from the state on.

    A time budget is translated into steps by timing some of them on a copy of the network.

    Args:
        segments: those that are finished.
        state: how far the training is.
        network: on its device.
        parts: of the fold.
        folder: of the fold.
        spent_s: seconds of the budget that are used up.

    Raises:
        StateError: the training is longer already.
    """
    config = parts.config
    if config.time_budget_s is not None:
        left = config.time_budget_s - spent_s
        last = state.step + (steps_within(left, network, parts, folder) if left > 0 or not segments else 0)
    else:
        last = config.steps if config.steps is not None else config.epochs * config.steps_per_epoch
    if last <= state.step:
        raise StateError(
            f"This training is finished after {counted(state.step, 'step')} and {state.seconds:.0f} s; "
            f"{_told(length_of(config))} is not longer, so there is nothing to add; ask for more, or give the former "
            "length."
        )
    return [*segments, Segment(state.step, last, state.epoch, length_of(config))]


def write_segments(folder: Path, segments: list[Segment], identity: dict[str, Any] | None) -> None:
    """Write training.json; without an identity the segments are prescribed to whatever training finds them."""
    write_json(folder / RECORD, {"segments": [asdict(segment) for segment in segments], "identity": identity})


def _told(length: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in length.items() if value is not None)
