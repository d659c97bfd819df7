"""Train one fold: one function, to be read from top to bottom.

A fold's folder holds::

    training.json    what is trained and the segments of its schedule; written first
    last/            the newest checkpoint, with last-before/ beside it
    best/            the weights of the best epoch; what predicts
    log.jsonl        one line an epoch
    progress.png     the curves
    tensorboard/     the same numbers, where the package tensorboard is installed
    finished.json    the summary; written last

Calling again with the same arguments goes on where the folder stands. On a CPU the weights are then bit-identical to
those of an uninterrupted training; on a GPU some kernels add in changing order. SIGINT and SIGTERM end the training
after the step or validation case under way, with a checkpoint.

Several processes may train together (``ranks``): all go through this function, rank 0 alone writes and speaks.
"""

from __future__ import annotations

import copy
import hashlib
import time
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..atomic import discard_unfinished, read_record, write_json
from ..augment.augmentation import Augmentation
from ..data.patches import PatchSampler
from ..errors import InputError, StateError
from ..inference.configs import WindowConfig
from ..inference.heap import kept_heap
from ..networks.blocks.short_axes import with_right_gradients
from ..progress import Progress, Silent
from .board import score_board
from .checkpoint import TrainingState, read_checkpoint, read_weights, write_checkpoint, write_weights
from .configs import TrainingConfig
from .data import TrainingData
from .guard import Guard
from .interrupt import stop_request
from .loader import loading
from .log import Curves, epoch_line, read_log, rounded, write_log
from .memory import PeakMemory
from .optim import MovingAverage, learning_rate_at, make_optimiser
from .precision import training_precision
from .ranks import ALONE, Ranks
from .segments import LENGTH, Segment, length_of, next_segments, read_segments, under_way, write_segments
from .step import StepParts, train_step
from .validation import OVERLAP, Loss, Validation, validate

__all__ = ["FoldRun", "TrainingResult", "read_result", "train_fold"]


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
        ranks: the processes that train this fold together, each with a call of its own.
    """

    folder: Path
    seed: int
    device: str = "cpu"
    augmentation: Augmentation | None = None
    title: str = "fold"
    inputs: str = ""
    ranks: Ranks = ALONE


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
        StateError: the folder holds a training of other settings or data, or no whole checkpoint.
        ConfigError: the device does not have the precision asked for, or the processes cannot share a batch evenly.
        NeosegError: the loss stayed infinite or undefined, or another process did not answer.
        Stopped: SIGINT or SIGTERM arrived.
    """
    if not data.train:
        raise InputError(f"{run.title}: no training case was given; at least one with a label is wanted.")
    device, folder, began = torch.device(run.device), run.folder, time.perf_counter()
    ranks = run.ranks
    progress = progress if ranks.leads else Silent()
    ranks.rows(config.batch_size)
    peak = PeakMemory(device)
    with_right_gradients(network).to(device)
    if len(data.patch) == 3:
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]

    identity, finished = _identity(network, data, config, run), folder / "finished.json"
    segments = read_segments(folder, identity, config)
    if ranks.agreed([finished.exists() and bool(segments) and _is_done(segments[-1], finished, config)])[0]:
        read_weights(folder / "best", network)
        return read_result(finished)
    if segments and ranks.leads:
        write_segments(folder, segments, identity)

    dtype = training_precision(config.precision, device)
    precision = str(dtype).removeprefix("torch.")
    labels = [case.label for case in data.train]
    sampler = PatchSampler(
        labels, data.patch, foreground_fraction=config.foreground_fraction, lesion_power=config.lesion_power
    )
    parts = StepParts(loss, data, sampler, run.augmentation, config, device, dtype, run.seed, ranks)
    window = WindowConfig(precision=config.precision, overlap=OVERLAP)
    optimiser = make_optimiser(network, config)
    average = MovingAverage(network, config.ema_decay) if config.ema_decay is not None else None
    averaged = average.state if average else None
    judged = copy.deepcopy(network) if average else network

    generators = torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else [])
    heap = kept_heap() if device.type == "cpu" else nullcontext()
    with generators, heap, stop_request() as stop, ExitStack() as exits:
        with ranks.in_turn():
            kept, damage = read_checkpoint(folder / "last", network, optimiser, averaged)
            if ranks.leads:
                discard_unfinished(folder)
        if damage:
            progress.say(damage)
        state = kept or TrainingState(guard=Guard.for_format(dtype))
        # a segment that was written, and nothing else before a kill, is still to be done
        begun = bool(segments) and segments[-1].length == length_of(config)
        if begun and ranks.leads:
            finished.unlink(missing_ok=True)
        if ranks.agreed([not segments or (finished.exists() and not begun)])[0]:
            spent = state.seconds if kept else time.perf_counter() - began
            segments = next_segments(segments, state, network, parts, folder=folder, spent_s=spent)
            if ranks.leads:
                write_segments(folder, segments, identity)
                finished.unlink(missing_ok=True)
        if kept is None:
            state.seconds = time.perf_counter() - began
        length = segments[-1].last
        history = [line for line in read_log(folder / "log.jsonl") if line["epoch"] < state.epoch]
        progress.say(f"{run.title}: {length - state.step} of {length} steps to do, {precision} on {device}.")
        saved = time.perf_counter()
        loader = exits.enter_context(loading(parts, state.step, length))
        curves = Curves(folder / "progress.png", run.title)
        board = exits.enter_context(score_board(folder / "tensorboard", history)) if ranks.leads else None

        def save() -> None:
            nonlocal saved
            begun = time.perf_counter()
            if ranks.leads:
                write_checkpoint(folder / "last", network, optimiser, averaged, state)
            saved = time.perf_counter()
            state.seconds += saved - begun

        def end_when_asked() -> None:
            # one process may have heard the signal before the others
            stop.number = int(ranks.largest(stop.number or 0)) or None
            if stop.number is not None:
                save()
                ranks.largest(0)
                stop.obey(f" after step {state.step} of {length}, which is kept")

        while state.epoch_start < length:
            segment, end = under_way(segments, state.step)
            if _out_of_patience(state, segment, config):
                break
            if state.step == segment.first:
                # also when a run was killed before the first checkpoint of its segment
                state.plateau_rate = 1.0
            first, last = state.epoch_start, min(state.epoch_start + config.steps_per_epoch, end)
            dices: list[float] = []
            network.train()
            with progress.track(f"{run.title}, epoch {state.epoch + 1}", last - first) as advance:
                advance(state.step - first, "")
                while state.step < last:
                    start, waited = time.perf_counter(), loader.waited_s
                    for group in optimiser.param_groups:
                        group["lr"] = _rate(state, segment, config)
                    value, dice = train_step(network, optimiser, parts, state.step, state.guard, loader.take)
                    if average and value is not None:
                        average.update(network, state.step)
                    dices += [] if dice is None else [dice]

                    seconds = time.perf_counter() - start
                    state.count(value, seconds, loader.waited_s - waited)
                    if value is None:
                        progress.say(f"{run.title}, step {state.step}: {state.guard.told}")
                    if state.step < last and time.perf_counter() - saved > config.checkpoint_every_seconds:
                        save()
                    advance(1, _text(state, dices, peak.gib()))
                    end_when_asked()

            start = time.perf_counter()
            ranks.require_equal(network.state_dict())
            scores: Validation | None = None
            due = state.step == end or (state.epoch + 1) % config.validate_every == 0
            if due:
                if average:
                    judged.load_state_dict(average.state)
                if data.validation:
                    scores = validate(judged, loss, data, window, device, ranks=ranks, after_case=end_when_asked)
                if _is_best(state, scores, config) and ranks.leads:
                    facts = {"epoch": state.epoch, "step": state.step, "validation_dice": scores and scores.dice}
                    write_weights(folder / "best", judged.state_dict(), facts)
            line = epoch_line(state, scores, _rate(state, segment, config, before=1), smoothed=due)
            line |= {"peak_gib": peak.gib(), "seconds": state.epoch_seconds + time.perf_counter() - start}
            history.append(rounded(line))
            if board is not None:
                write_log(folder / "log.jsonl", history)
                curves.draw(history)
                board(history[-1])
            _lower_on_plateau(state, segment, config)
            state.next_epoch(time.perf_counter() - start)
            save()
            end_when_asked()
        if ranks.leads:
            curves.draw(history, last=True)

    ranks.largest(0)
    if state.guard.undone == state.step:
        state.guard.give_up("all of this training")
    read_weights(folder / "best", network)
    assert state.best_epoch is not None
    result = TrainingResult(
        best_epoch=state.best_epoch,
        best_dice=state.best_dice,
        epochs=state.epoch,
        steps=state.step,
        seconds=round(state.seconds, 3),
        stopped_early=state.step < length,
        precision=precision,
        device=str(device),
    )
    if ranks.leads:
        write_json(finished, asdict(result))
    return result


def _is_done(segment: Segment, finished: Path, config: TrainingConfig) -> bool:
    """Tell whether a finished training is the one of the last segment, and not of those before it."""
    done = read_result(finished)
    reached = done.steps >= segment.last or (done.stopped_early and done.steps > segment.first)
    return reached and segment.length == length_of(config)


def read_result(path: Path) -> TrainingResult:
    """Read the summary of a finished training.

    Raises:
        StateError: it is damaged.
    """
    remedy = "delete it, and the training ends again where it stands"
    try:
        return TrainingResult(**read_record(path, remedy))
    except TypeError as error:
        raise StateError(f"{path}: this file is damaged ({error}); {remedy}.") from error


def _identity(network: nn.Module, data: TrainingData, config: TrainingConfig, run: FoldRun) -> dict[str, Any]:
    """Return what must not change between two calls that share a folder."""
    shapes = "\n".join(f"{name} {tuple(value.shape)}" for name, value in network.state_dict().items())
    augmentation = run.augmentation.config.model_dump(mode="json") if run.augmentation else None
    return {
        "config": config.model_dump(mode="json", exclude={"checkpoint_every_seconds", *LENGTH}),
        "augmentation": augmentation,
        "seed": run.seed,
        "inputs": run.inputs,
        "network": hashlib.sha256(shapes.encode()).hexdigest()[:16],
        "train": [case.name for case in data.train],
        "validation": [case.name for case in data.validation],
        "patch": list(data.patch),
        **({"patches": [list(patch) for patch in data.patches]} if data.patches else {}),
        "classes": len(data.targets.classes) + 1,
        **({"regions": data.targets.told} if data.targets.overlapping else {}),
        "channels": data.channels,
        "spacing_mm": list(data.spacing_mm),
    }


def _rate(state: TrainingState, segment: Segment, config: TrainingConfig, before: int = 0) -> float:
    """Return the learning rate of the step that comes next, or ``before`` steps earlier."""
    step = state.step - before - segment.first
    by_schedule = learning_rate_at(step, segment.last - segment.first, config)
    return by_schedule * state.plateau_rate * state.guard.rate_scale


def _lower_on_plateau(state: TrainingState, segment: Segment, config: TrainingConfig) -> None:
    if config.decided_schedule != "plateau" or state.best_epoch is None:
        return
    since = max(state.best_epoch, state.lowered_epoch, segment.epoch - 1)
    if _validations(since, state.epoch, config) >= config.plateau_patience:
        state.plateau_rate *= config.plateau_factor
        state.lowered_epoch = state.epoch


def _out_of_patience(state: TrainingState, segment: Segment, config: TrainingConfig) -> bool:
    if config.early_stop_patience is None or state.best_epoch is None:
        return False
    since = max(state.best_epoch, segment.epoch - 1)
    return _validations(since, state.epoch - 1, config) >= config.early_stop_patience


def _validations(since: int, epoch: int, config: TrainingConfig) -> int:
    """Return how many epochs after one and up to another are validated in their turn, not as the last of a segment."""
    return (epoch + 1) // config.validate_every - (since + 1) // config.validate_every


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


def _text(state: TrainingState, dices: list[float], peak: float | None) -> str:
    loss = f"{state.epoch_loss / state.epoch_good:.3f}" if state.epoch_good else "-"
    dice = f"{sum(dices) / len(dices):.2f}" if dices else "-"
    memory = f", {peak:.1f} GiB" if peak is not None else ""
    return f"loss {loss}, Dice {dice}, {state.epoch_seconds / (state.step - state.epoch_start):.2f} s/step{memory}"
