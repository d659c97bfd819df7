"""A training on disk: weights and optimiser as safetensors, the rest as JSON; every folder is whole or absent.

No state of a random generator is stored: every step draws from generators made of (seed, step), so the step number is
the whole state, and a resumed run repeats the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..atomic import finish_exchange, read_json, replacing_folder, write_json
from ..errors import StateError

__all__ = ["TrainingState", "read_checkpoint", "read_weights", "write_checkpoint", "write_weights"]

MODEL, OPTIMISER, AVERAGE, STATE = "model.safetensors", "optimiser.safetensors", "average.safetensors", "state.json"


@dataclass
class TrainingState:
    """How far a training is.

    Attributes:
        step: steps done.
        epoch: epochs done.
        seconds: work so far, over all runs.
        epoch_loss: sum of the losses of the epoch under way.
        epoch_seconds: work on the epoch under way.
        smoothed: smoothed validation Dice; ``None`` before the first.
        best: its best value so far.
        best_epoch: the epoch (from 0) that reached it.
        best_dice: the validation Dice of that epoch, not smoothed.
    """

    step: int = 0
    epoch: int = 0
    seconds: float = 0.0
    epoch_loss: float = 0.0
    epoch_seconds: float = 0.0
    smoothed: float | None = None
    best: float | None = None
    best_epoch: int | None = None
    best_dice: float | None = None


def write_weights(folder: Path, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a folder with ``model.safetensors`` and ``state.json``."""
    with replacing_folder(folder) as temporary:
        save_file(_plain(weights), temporary / MODEL)
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
        reason = str(error).splitlines()[0]
        raise StateError(
            f"{folder / MODEL}: the weights cannot be loaded into this network ({reason}); train this fold again in "
            "another folder or restore the file."
        ) from error


def write_checkpoint(
    folder: Path,
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None,
    state: TrainingState,
) -> None:
    """Write everything that a resumed training needs."""
    with replacing_folder(folder) as temporary:
        save_file(_plain(network.state_dict()), temporary / MODEL)
        save_file(_plain(_optimiser_tensors(optimiser)), temporary / OPTIMISER)
        if average is not None:
            save_file(_plain(average), temporary / AVERAGE)
        write_json(temporary / STATE, asdict(state))


def read_checkpoint(
    folder: Path, network: nn.Module, optimiser: torch.optim.Optimizer, average: dict[str, Tensor] | None
) -> TrainingState | None:
    """Load a checkpoint into network, optimiser and average; ``None`` when there is none.

    Raises:
        StateError: a file of the checkpoint is missing or damaged.
    """
    finish_exchange(folder)
    if not folder.exists():
        return None
    read_weights(folder, network)
    try:
        _load_optimiser(optimiser, load_file(folder / OPTIMISER))
        if average is not None:
            for name, value in load_file(folder / AVERAGE).items():
                average[name].copy_(value)
        return TrainingState(**read_json(folder / STATE))
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{folder}: this checkpoint is damaged ({error}); remove the folder above it to train this fold anew."
        ) from error


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
