"""Train one fold: one function, to be read from top to bottom.

A fold's folder holds::

    training.json    what is trained and how many steps it takes; written first
    last/            the newest checkpoint
    best/            the weights of the best epoch; what predicts
    log.jsonl        one line an epoch
    progress.png     the curves
    finished.json    the summary; written last

Calling again with the same arguments goes on where the folder stands. On a CPU the weights are then bit-identical to
those of an uninterrupted training; on a GPU some kernels add in changing order.
"""

from __future__ import annotations

import copy
import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..atomic import read_json, write_json
from ..augment.augmentation import Augmentation
from ..data.patches import PatchSampler
from ..errors import InputError, StateError
from ..inference.configs import WindowConfig
from ..progress import Progress
from .checkpoint import TrainingState, read_checkpoint, read_weights, write_checkpoint, write_weights
from .configs import TrainingConfig
from .data import TrainingData
from .log import draw_curves, read_log, write_log
from .optim import MovingAverage, learning_rate_at, make_optimiser
from .precision import training_precision
from .step import StepParts, steps_within, train_step
from .validation import Loss, Validation, validate

__all__ = ["FoldRun", "TrainingResult", "train_fold"]


@dataclass(frozen=True)
class FoldRun:
    """Where and how one fold runs.

    Attributes:
        folder: of this fold; made when absent.
        seed: of patches, augmentation and dropout. The weights' first values are the caller's.
        device: "cpu", "cuda", "cuda:1".
        augmentation: of the training batches; ``None``: none.
        title: how the fold is called on the screen and above its curves.
        inputs: hash of what the weights depend on besides the other arguments: the bytes of the cases, the loss.
    """

    folder: Path
    seed: int
    device: str = "cpu"
    augmentation: Augmentation | None = None
    title: str = "fold"
    inputs: str = ""


@dataclass(frozen=True)
class TrainingResult:
    """Summary of a finished training, as in ``finished.json``.

    Attributes:
        best_epoch: counted from 0.
        best_dice: its inner validation Dice; ``None`` without a validation case that has foreground.
        epochs: done.
        steps: done.
        seconds: of work, over all runs.
        stopped_early: whether patience ended it.
        precision: number format of the arithmetic ("float32", "bfloat16").
        device: of the last run.
    """

    best_epoch: int
    best_dice: float | None
    epochs: int
    steps: int
    seconds: float
    stopped_early: bool
    precision: str
    device: str


def train_fold(
    network: nn.Module,
    loss: Loss,
    *,
    data: TrainingData,
    config: TrainingConfig,
    run: FoldRun,
    progress: Progress,
) -> TrainingResult:
    """Train a network on a fold, or go on with it, or return what is finished.

    On return the network holds the weights of the best epoch.

    Args:
        network: ``(b, c, x, y, z)`` -> tuple of logits, full size first.
        loss: of that tuple and the target ``(b, x, y, z)`` int64.
        data: training and inner validation cases.
        config: the training.
        run: folder, seed, device, augmentation.
        progress: who listens.

    Raises:
        InputError: there is no training case.
        StateError: the folder holds a training of other settings or data, or a damaged checkpoint.
        ConfigError: the precision asked for gives wrong gradients here.
        NeosegError: the loss became infinite or undefined.
    """
    if not data.train:
        raise InputError(f"{run.title}: no training case was given; at least one with a label is wanted.")
    device, folder, began = torch.device(run.device), run.folder, time.perf_counter()
    network.to(device)
    if len(data.patch) == 3:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    identity = _identity(network, data, config, run)
    stored = _stored_start(folder, identity)
    if (folder / "finished.json").exists():
        read_weights(folder / "best", network)
        return TrainingResult(**read_json(folder / "finished.json"))

    dtype, caution = training_precision(network, data, config, device)
    precision = str(dtype).removeprefix("torch.")
    if caution:
        progress.say(caution)
    labels = [case.label for case in data.train]
    sampler = PatchSampler(
        labels, data.patch, foreground_fraction=config.foreground_fraction, lesion_power=config.lesion_power
    )
    parts = StepParts(loss, data, sampler, run.augmentation, config, device, dtype, run.seed)
    window = WindowConfig(precision=config.precision)
    optimiser = make_optimiser(network, config)
    average = MovingAverage(network, config.ema_decay) if config.ema_decay is not None else None
    averaged = average.state if average else None
    judged = copy.deepcopy(network) if average else network

    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        if stored is None:
            total = _planned_steps(network, parts, run, window)
            write_json(folder / "training.json", {"total_steps": total, "precision": precision, "identity": identity})
        else:
            total = int(stored["total_steps"])
        state = read_checkpoint(folder / "last", network, optimiser, averaged)
        if state is None:
            state = TrainingState(seconds=time.perf_counter() - began)
        history = [line for line in read_log(folder / "log.jsonl") if line["epoch"] < state.epoch]
        progress.say(f"{run.title}: {total - state.step} of {total} steps to do, {precision} on {device}.")
        saved = time.perf_counter()

        while state.step < total and not _out_of_patience(state, config):
            first, last = state.epoch * config.steps_per_epoch, min((state.epoch + 1) * config.steps_per_epoch, total)
            dices: list[float] = []
            network.train()
            with progress.track(f"{run.title}, epoch {state.epoch + 1}", last - first) as advance:
                advance(state.step - first, "")
                while state.step < last:
                    start = time.perf_counter()
                    rate = learning_rate_at(state.step, total, config)
                    for group in optimiser.param_groups:
                        group["lr"] = rate
                    value, dice = train_step(network, optimiser, parts, state.step)
                    if average:
                        average.update(network, state.step)
                    dices += [] if dice is None else [dice]

                    seconds = time.perf_counter() - start
                    state.step += 1
                    state.epoch_loss += value
                    state.epoch_seconds += seconds
                    state.seconds += seconds
                    if state.step < last and time.perf_counter() - saved > config.checkpoint_every_seconds:
                        write_checkpoint(folder / "last", network, optimiser, averaged, state)
                        saved = time.perf_counter()
                    advance(1, _text(state, first, dices))

            start = time.perf_counter()
            scores: Validation | None = None
            ends = state.step == total
            due = ends or (state.epoch + 1) % config.validate_every == 0
            if due:
                if average:
                    judged.load_state_dict(average.state)
                scores = validate(judged, loss, data, window, device) if data.validation else None
                if _is_best(state, scores, config):
                    facts = {"epoch": state.epoch, "step": state.step, "validation_dice": scores and scores.dice}
                    write_weights(folder / "best", judged.state_dict(), facts)
            spent = time.perf_counter() - start
            history.append(
                {
                    "epoch": state.epoch,
                    "step": state.step,
                    "loss": state.epoch_loss / (last - first),
                    "validation_dice": scores and scores.dice,
                    "smoothed_dice": state.smoothed if due else None,
                    "validation_loss": scores and scores.loss,
                    "false_positive_voxels": scores and scores.false_positive_voxels,
                    "learning_rate": rate,
                    "seconds": round(state.epoch_seconds + spent, 3),
                }
            )
            write_log(folder / "log.jsonl", history)
            draw_curves(history, folder / "progress.png", run.title)
            state.epoch += 1
            state.epoch_loss = state.epoch_seconds = 0.0
            state.seconds += time.perf_counter() - start
            write_checkpoint(folder / "last", network, optimiser, averaged, state)
            saved = time.perf_counter()

    read_weights(folder / "best", network)
    assert state.best_epoch is not None
    result = TrainingResult(
        best_epoch=state.best_epoch,
        best_dice=state.best_dice,
        epochs=state.epoch,
        steps=state.step,
        seconds=round(state.seconds, 3),
        stopped_early=state.step < total,
        precision=precision,
        device=str(device),
    )
    write_json(folder / "finished.json", asdict(result))
    return result


def _identity(network: nn.Module, data: TrainingData, config: TrainingConfig, run: FoldRun) -> dict[str, Any]:
    """Return what must not change between two calls that share a folder."""
    shapes = "\n".join(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    augmentation = run.augmentation.config.model_dump(mode="json") if run.augmentation else None
    return {
        "config": config.model_dump(mode="json", exclude={"checkpoint_every_seconds"}),
        "augmentation": augmentation,
        "seed": run.seed,
        "inputs": run.inputs,
        "network": hashlib.sha256(shapes.encode()).hexdigest()[:16],
        "train": [case.name for case in data.train],
        "validation": [case.name for case in data.validation],
        "patch": list(data.patch),
        "classes": data.classes,
        "channels": data.channels,
        "spacing_mm": list(data.spacing_mm),
    }


def _stored_start(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Return ``training.json`` when the folder has one that fits, ``None`` when it has none."""
    path = folder / "training.json"
    if not path.exists():
        return None
    stored: dict[str, Any] = read_json(path)
    there = stored.get("identity", {})
    changed = [key for key in identity if key != "config" and there.get(key) != identity[key]]
    config = there.get("config", {})
    changed += [f"config.{key}" for key, value in identity["config"].items() if config.get(key) != value]
    if changed:
        raise StateError(
            f"{folder}: this folder holds a training with other values of {', '.join(sorted(changed))}; give the "
            "values of then (they are in training.json) to go on with it, or another folder to train anew."
        )
    return stored


def _planned_steps(network: nn.Module, parts: StepParts, run: FoldRun, window: WindowConfig) -> int:
    """Return the length of a new training; a time budget is translated by timing each part once."""
    config = parts.config
    if config.time_budget_s is None:
        return config.steps if config.steps is not None else config.epochs * config.steps_per_epoch
    began = time.perf_counter()
    draw_curves([], run.folder / "progress.png", run.title)
    start = time.perf_counter()
    draw_curves([], run.folder / "progress.png", run.title)
    if parts.data.validation:
        validate(network, parts.loss, parts.data, window, parts.device)
    overhead = (time.perf_counter() - start) / config.validate_every
    left = config.time_budget_s - (time.perf_counter() - began)
    return steps_within(left, network, parts, overhead)


def _out_of_patience(state: TrainingState, config: TrainingConfig) -> bool:
    if config.early_stop_patience is None or state.best_epoch is None:
        return False
    return state.epoch - 1 - state.best_epoch >= config.early_stop_patience


def _is_best(state: TrainingState, scores: Validation | None, config: TrainingConfig) -> bool:
    """Take a validation into the state and tell whether it is the best so far.

    Without a Dice (no validation case has foreground) the newest epoch counts as the best.
    """
    if scores is not None and scores.dice is not None:
        past = config.validation_smoothing
        state.smoothed = scores.dice if state.smoothed is None else past * state.smoothed + (1 - past) * scores.dice
        if state.best is not None and state.smoothed <= state.best:
            return False
        state.best = state.smoothed
        state.best_dice = scores.dice
    state.best_epoch = state.epoch
    return True


def _text(state: TrainingState, first: int, dices: list[float]) -> str:
    done = state.step - first
    dice = f"{sum(dices) / len(dices):.2f}" if dices else "-"
    return f"loss {state.epoch_loss / done:.3f}, Dice {dice}, {state.epoch_seconds / done:.2f} s/step"
