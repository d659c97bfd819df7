"""A training on disk: weights and optimiser as safetensors, the rest as JSON; every folder is whole or absent.

The checkpoint before the newest is kept beside it, and each states the hashes of its files: a damaged one is noticed,
and the training goes on from the one before.

No state of a random generator is stored: every step draws from generators made of (seed, step), so the step number is
the whole state, and a resumed run repeats the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..atomic import finish_exchange, read_json, replacing_folder, write_json
from ..errors import StateError
from .guard import Guard

__all__ = ["TrainingState", "read_checkpoint", "read_weights", "write_checkpoint", "write_weights"]

_SYSTEM_ERROR = re.compile(r"os error (\d+)")
MODEL, OPTIMISER, AVERAGE, STATE = "model.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        step: steps done.
        epoch: epochs done.
        seconds: work so far, over all runs.
        epoch_start: steps done before the epoch under way.
        epoch_loss: sum of the losses of the epoch under way.
        epoch_good: steps of it that were not undone.
        epoch_seconds: work on it.
        epoch_waited: of those, in which its steps waited for batches.
        smoothed: smoothed validation Dice; ``None`` before the first.
        best: its best value so far.
        best_epoch: the epoch (from 0) that reached it.
        best_dice: the validation Dice of that epoch, not smoothed.
        plateau_rate: factor of the learning rate by the schedule "plateau".
        lowered_epoch: the epoch that lowered it last.
        guard: scales, and steps that were undone.
    """

    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    epoch_start: int = 0
    epoch_loss: float = 0.0
    epoch_good: int = 0
    epoch_seconds: float = 0.0
    epoch_waited: float = 0.0
    smoothed: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    best_dice: float | None = None
    plateau_rate: float = 1.0
    lowered_epoch: int = -1
    guard: Guard = field(default_factory=Guard)

    def count(self, loss: float | None, seconds: float, waited: float) -> None:
        """Take in a step and how long it waited for its batch; ``None`` is the loss of one that was undone."""
        self.step += 1
        if loss is not None:
            self.epoch_loss += loss
            self.epoch_good += 1
        self.epoch_seconds += seconds
        self.epoch_waited += waited
        self.seconds += seconds

    def next_epoch(self, seconds: float) -> None:
        """Take in what followed the steps of an epoch, and begin the next one."""
        self.epoch += 1
        self.epoch_start = self.step
        self.epoch_loss = self.epoch_seconds = self.epoch_waited = 0.0
        self.epoch_good = 0
        self.seconds += seconds


_WORDS = TypeAdapter(TrainingState)


def write_weights(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a folder with ``model.safetensors`` and ``state.json``."""
    with replacing_folder(folder) as temporary:
        _save(weights, temporary / MODEL)
        write_json(temporary / STATE, dict(facts))


def read_weights(folder: Path, network: nn.Module) -> None:
    """Load ``model.safetensors`` of a folder into a network of the same shape.

    Raises:
        StateError: the file is missing, damaged, or belongs to another network.
    """
    finish_exchange(folder)
    try:
        network.load_state_dict(load_file(folder / MODEL))
    except (OSError, SafetensorError, RuntimeError) as error:
        # torch has the reason behind a heading
        reason = " ".join(str(error).splitlines()[:2]).replace("\t", "")
        raise StateError(
            f"{folder / MODEL}: the weights cannot be loaded into this network ({reason}); restore the file, or delete "
            f"{folder.parent} to train this fold anew."
        ) from error


def write_checkpoint(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None,
    state: TrainingState,
) -> None:
    """Write everything that a resumed training needs; the checkpoint that was there stays as the one before."""
    with replacing_folder(folder, keep=_before(folder)) as temporary:
        _save(network.state_dict(), temporary / MODEL)
        _save(_optimiser_tensors(optimiser), temporary / OPTIMISER)
        if average is not None:
            _save(average, temporary / AVERAGE)
        hashes = {path.name: _hash(path) for path in sorted(temporary.glob("*.safetensors"))}
        hashes[STATE] = _hash_of_state(asdict(state))
        write_json(temporary / STATE, asdict(state) | {"hashes": hashes})


def read_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor] | None
) -> tuple[TrainingState | None, str]:
    """Load the newest whole checkpoint into network, optimiser and average.

    Returns:
        How far the training is, ``None`` when there is no checkpoint; and a sentence when the newest one is damaged,
        so that the one before was taken.

    Raises:
        StateError: every checkpoint that is there is damaged.
    """
    finish_exchange(folder)
    there = [place for place in (folder, _before(folder)) if place.exists()]
    damage = ""
    for place in there:
        try:
            state = _state(place)
            read_weights(place, network)
            _load_optimiser(optimiser, load_file(place / OPTIMISER))
            if average is not None:
                for name, value in load_file(place / AVERAGE).items():
                    average[name].copy_(value)
        except (OSError, SafetensorError, StateError, ValueError, TypeError, KeyError) as error:
            damage = damage or f"{place}: this checkpoint is damaged ({error})"
            continue
        return state, f"{damage}; going on from the one before it, step {state.step}." if damage else ""
    if there:
        raise StateError(f"{damage}, and no other is whole; remove the folder above it to train this fold anew.")
    return None, ""


def _before(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}-before")


def _state(folder: Path) -> TrainingState:
    """Return the state of a checkpoint whose files are what they were when it was written."""
    words = read_json(folder / STATE)
    hashes = words.pop("hashes")
    for name, known in hashes.items():
        if known != (_hash_of_state(words) if name == STATE else _hash(folder / name)):
            raise ValueError(f"{name} is not what was written")
    unknown = set(words) - {field.name for field in fields(TrainingState)}
    if unknown:
        raise ValueError(f"the keys {sorted(unknown)} are not known")
    state = _WORDS.validate_json(json.dumps(words), strict=True)
    if min(state.step, state.epoch, state.epoch_start, state.epoch_good) < 0:
        raise ValueError("a count in it is negative")
    return state


def _hash_of_state(words: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(words, sort_keys=True).encode()).hexdigest()[:32]


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").hexdigest()[:32]


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors.

    Raises:
        OSError: the disk refuses; safetensors puts the number of that error into words.
    """
    try:
        save_file(_plain(tensors), path)
    except SafetensorError as error:
        found = _SYSTEM_ERROR.search(str(error))
        if found is None:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1]))) from error


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy to main memory, contiguous and each on its own storage, as safetensors wants them."""
    return {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    states: dict[int, dict[str, Any]] = optimiser.state_dict()["state"]
    return {
        f"{index}.{name}": value if isinstance(value, Tensor) else torch.tensor(value)
        for index, entries in states.items()
        for name, value in entries.items()
        if value is not None
    }


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    states: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if value.shape == parameter.shape:
            # the same strides as the parameter: mixed memory formats would leave the fast path of the optimiser
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        states.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": states, "param_groups": optimiser.state_dict()["param_groups"]})
