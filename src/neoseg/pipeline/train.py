"""Stage train: one network a fold, resumed where it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from ..cluster.local import Outcome
from ..cluster.processes import run_here, run_side_by_side
from ..config import RunConfig
from ..errors import ConfigError, NeosegError, UserError
from ..inference.configs import WindowConfig
from ..plan.plan import Plan
from ..plan.scales import scaled_patches
from ..progress import Progress
from ..training.configs import TrainingConfig
from ..training.fold_lock import require_free, training_alone
from ..training.launch import Launch, launched
from ..wording import counted
from ..workspace import write_if_changed
from .devices import device_of_process, devices_side_by_side, resolved_device, training_threads
from .fine_tune import FoldStart, fold_starts, load_start, record_of, told_start
from .forecast import forecast_training, held_gib
from .lengths import require_length
from .out_of_memory import REDUCED, TrainingStep, require_memory, training_in_memory
from .plan import planned_with
from .prepared import PreparedCase
from .run_folder import make_self_contained, require_trained_alike
from .same_data import inputs_of, require_same_data
from .session import Pinned, Session, open_session
from .transfer import transfer

if TYPE_CHECKING:
    from ..training.data import TrainingCase
    from ..training.ranks import Ranks

__all__ = ["require_trainable", "train", "training_settings", "wanted_folds"]


ONE_SIZE = (
    "Whole images will be predicted (window.whole), but this network learns the places of its patches, all of one "
    "size, and other sizes may suit it badly: set training.patch_scales, such as [0.75, 1, 1.25], or window.whole = "
    "false."
)
"""Said of networks that were seen to fail on pictures of another size than the patches of their training."""


@dataclass(frozen=True)
class _Trainable:
    """What is known before a training.

    Attributes:
        settings: with the steps of the plan where nothing else is given.
        patches: sizes of the patches, where there are several.
        indices: of the folds that are wanted and not trained yet.
        launch: which of how many processes this one is.
        devices: that the folds are dealt to.
    """

    settings: TrainingConfig
    patches: tuple[tuple[int, ...], ...]
    indices: tuple[int, ...]
    launch: Launch
    devices: tuple[str, ...]


def require_trainable(session: Session, *, key: str, folds: Sequence[int] | None = None) -> _Trainable:
    """Refuse what :func:`train` and the stages after it would refuse, as far as a plan tells it.

    Args:
        session: the run; nothing needs to be prepared.
        key: hash of what the folds depend on.
        folds: indices of the only folds to train.

    Raises:
        ConfigError: there is no such fold, or axes are to be mirrored or flipped that the images do not have.
        GeometryError: training.patch_scales and the plan's patch do not suit the network.
        MachineError: the memory that is free does not suffice for a step.
    """
    config, plan, run = session.config, session.plan, session.run
    # a prediction would refuse it, after all of the training
    config.window.require_axes(len(plan.patch))
    config.augment.require_axes(len(plan.patch))
    config.augment.require_room(plan.patch, plan.spacing_mm)
    settings = training_settings(config.training, plan)
    patches = scaled_patches(plan.network, plan.patch, settings.patch_scales)
    indices = tuple(i for i in wanted_folds(session, folds) if not run.fold_is_current(i, key))
    launch = launched()
    devices = devices_side_by_side(config.device) if launch.world == 1 else [device_of_process(launch, config)]
    if indices:
        _require_memory(session, settings, patches, devices, min(config.fold_jobs, len(indices)), launch.world)
    return _Trainable(settings, patches, indices, launch, tuple(devices))


def train(session: Session, *, key: str, folds: Sequence[int] | None = None, failed: Sequence[str] = ()) -> None:
    """Train every fold (or some) that is not trained yet, make the run folder self-contained, and record each fold.

    ``fold_jobs`` of them run side by side, each in a process of its own. A fold that fails does not stop the others.
    Where torchrun started several processes, all of them train each fold together, one fold after the other.
    Several commands may train different folds of one run at the same time, too.

    Args:
        session: the run.
        key: hash of what the folds depend on, for their records.
        folds: indices of the only folds to train.
        failed: cases that could not be prepared; they are left out.

    Raises:
        ConfigError: there is no such fold, or axes are to be mirrored or flipped that the images do not have.
        GeometryError: training.patch_scales and the plan's patch do not suit the network.
        StateError: the run folder holds a training of other data, settings or length.
        MachineError: the memory that is free does not suffice for a step.
        UserError, NeosegError: folds failed; the sentence names them.
        Stopped: SIGINT or SIGTERM arrived.
    """
    config, plan, run, count = session.config, session.plan, session.run, len(session.folds)
    ready = require_trainable(session, key=key, folds=folds)
    settings, patches, indices, launch = ready.settings, ready.patches, ready.indices, ready.launch
    longer = require_length(run, indices, settings)
    starts = fold_starts(session)
    fresh = [i for i in indices if not any((run.fold(i) / name).exists() for name in ("last", "last-before"))]
    moved = transfer(session) if starts and fresh else None
    require_trained_alike(session, plan)
    require_same_data(session, failed)
    if launch.rank == 0:
        for index in indices:
            require_free(run.fold(index))
        make_self_contained(session, plan, failed)
    if moved is not None:
        if launch.rank == 0:
            write_if_changed(run.start, record_of(starts, moved))
        assert config.init_from is not None
        session.progress.say(told_start(config.init_from, starts, fresh, moved))
        for text in dict.fromkeys(text for i in fresh for text in starts[i].warnings):
            session.progress.say(text)
    for index in [i for i in run.fold_records() if i >= count]:
        run.stage(f"train.fold{index}").unlink(missing_ok=True)
    device = resolved_device(config.device)
    threads = training_threads(config)
    session.progress.say(
        forecast_training(
            plan,
            settings,
            folds=len(indices),
            device=device,
            jobs=config.fold_jobs,
            threads=threads,
            classes=session.targets.channels,
        )
    )
    if config.window.whole and plan.network.learns_positions and not patches:
        session.progress.say(ONE_SIZE)
    if longer:
        told = ", ".join(map(str, longer))
        session.progress.say(f"Already finished and now made longer, with a new run of the schedule: fold {told}.")
    work = partial(
        _train_fold,
        work=_FoldWork(
            config=config,
            pinned=session.pinned,
            key=key,
            failed=tuple(failed),
            devices=ready.devices,
            threads=threads,
            patches=patches,
            starts={i: (start, moved.taken if moved is not None and i in fresh else ()) for i, start in starts.items()},
        ),
    )
    if launch.world > 1:
        _train_together(work, indices, launch, ready.devices[0], session.progress)
        return
    if config.fold_jobs > 1 and len(indices) > 1:
        outcomes = run_side_by_side(work, indices, jobs=min(config.fold_jobs, len(indices)), progress=session.progress)
    else:
        outcomes = run_here(work, indices, progress=session.progress)
    _require_all(indices, outcomes)


@dataclass(frozen=True)
class _FoldWork:
    """What the training of a fold needs besides its index; it travels to other processes.

    Attributes:
        config: the run; the session is opened anew in each process.
        pinned: plan and folds that the training began with; those in the workspace may be of another run by now.
        key: of the stage.
        failed: cases to leave out.
        devices: to choose from.
        threads: of the CPU.
        patches: sizes of the patches, where there are several.
        starts: by fold, the weights of another run that it starts from and the names of the tensors to take now.
    """

    config: RunConfig
    pinned: Pinned | None
    key: str
    failed: tuple[str, ...]
    devices: tuple[str, ...]
    threads: int
    patches: tuple[tuple[int, ...], ...]
    starts: Mapping[int, tuple[FoldStart, tuple[str, ...]]]


def _train_fold(index: int, slot: int, progress: Progress, *, work: _FoldWork, ranks: Ranks | None = None) -> None:
    """Train one fold, in this process, and record it.

    Args:
        index: of the fold.
        slot: place among the folds that are trained side by side; it decides the device.
        progress: the listener.
        work: what else is needed.
        ranks: the processes that train it together; by default this one alone.
    """
    import torch

    from ..augment.augmentation import Augmentation
    from ..inference.ensemble import window_patch
    from ..losses.build import build_loss
    from ..networks.build import build_network
    from ..training.data import TrainingData
    from ..training.loop import FoldRun, train_fold
    from ..training.ranks import ALONE

    config, failed = work.config, work.failed
    session = replace(open_session(config, progress), pinned=work.pinned)
    plan, fold, run = session.plan, session.folds[index], session.run
    settings = training_settings(config.training, plan)
    data = TrainingData(
        train=_cases(session, fold.train, failed),
        validation=_cases(session, fold.inner, failed),
        spacing_mm=plan.spacing_mm,
        targets=session.targets,
        patch=plan.patch,
        patches=work.patches,
        window_for=partial(window_patch, WindowConfig(whole=settings.validate_whole), plan),
    )
    network = build_network(
        plan.network,
        in_channels=len(plan.channels),
        classes=session.targets.channels,
        patch=plan.patch,
        overlapping=session.targets.overlapping,
        generator=torch.Generator().manual_seed(config.seed * 1000 + index),
    )
    start, taken = work.starts.get(index, (None, ()))
    if start is not None and taken:
        load_start(network, start, taken)
    where = FoldRun(
        folder=run.fold(index),
        seed=config.seed * 1000 + index,
        device=work.devices[slot % len(work.devices)],
        augmentation=Augmentation(config.augment.for_images(len(plan.patch), plan.rules.values())),
        title=f"Fold {index}",
        inputs=inputs_of(session, fold, start),
        ranks=ranks or ALONE,
    )
    begin, before = time.time(), torch.get_num_threads()
    torch.set_num_threads(work.threads)
    alone = training_alone(where.folder) if where.ranks.leads else nullcontext()
    try:
        with alone, training_in_memory(_step(session, settings, work.patches), where.device):
            loss = build_loss(config.loss, session.targets)
            result = train_fold(network, loss, data=data, config=settings, run=where, progress=progress)
    finally:
        torch.set_num_threads(before)
    if where.ranks.leads:
        warnings = [] if start is None else start.warnings
        span = (round(begin, 3), round(time.time(), 3))
        made = {"threads": work.threads, "processes": where.ranks.world, "span": span}
        run.record_fold(index, work.key, asdict(result), **made, warnings=warnings)


def _train_together(
    work: Callable[..., None], indices: Sequence[int], launch: Launch, device: str, progress: Progress
) -> None:
    """Train each fold by all processes that torchrun started; a failure of one ends them all.

    Args:
        work: trains a fold: (index, slot, progress, ranks=...).
        indices: of the folds.
        launch: which process this is.
        device: of this process.
        progress: the listener.
    """
    from ..training.ranks import joined

    with joined(launch, device) as ranks:
        for index in indices:
            work(index, 0, progress, ranks=ranks)
            ranks.largest(0)  # the record is there before anybody looks for it


def _require_all(indices: Sequence[int], outcomes: Sequence[Outcome[None]]) -> None:
    """Name the folds that failed.

    Raises:
        UserError: something that was given has to change, for each of them.
        NeosegError: otherwise.
    """
    lost = [(i, o) for i, o in zip(indices, outcomes, strict=True) if o.error is not None]
    if not lost:
        return
    error = UserError if all(outcome.user_error for _, outcome in lost) else NeosegError
    if len(indices) == 1:
        raise error(str(lost[0][1].error))
    told = " ".join(f"Fold {index}: {outcome.error}" for index, outcome in lost)
    rest = "the others are" if len(lost) < len(indices) else "none is"
    raise error(f"{len(lost)} of {counted(len(indices), 'fold')} could not be trained, {rest} finished. {told}")


def _require_memory(
    session: Session,
    settings: TrainingConfig,
    patches: Sequence[tuple[int, ...]],
    devices: Sequence[str],
    beside: int,
    world: int,
) -> None:
    """Refuse steps that do not fit into what is free.

    Args:
        session: the run.
        settings: of the training.
        patches: sizes of the patches, where there are several.
        devices: that the folds are dealt to.
        beside: folds side by side.
        world: processes that share every batch.

    Raises:
        MachineError: naming what would fit.
    """
    from ..inference.precision import is_reduced

    share = (REDUCED if is_reduced(settings.precision, devices[0]) else 1.0) / world
    step = _step(session, settings, patches, share)
    begun = any(session.run.folder.glob("fold*/training.json"))
    require_memory(step, devices, beside=beside, begun=begun)


def _step(
    session: Session, settings: TrainingConfig, patches: Sequence[tuple[int, ...]], share: float = 1.0
) -> TrainingStep:
    """Return what is known of a step's memory, with the planner for a patch that is proposed in its place."""
    plan, classes = session.plan, session.targets.channels
    held = held_gib(plan, settings, classes)
    return TrainingStep(plan, patches, classes, share, held, partial(planned_with, session))


def wanted_folds(session: Session, folds: Sequence[int] | None) -> list[int]:
    """Return the indices of all folds, or of those that are wanted, in order.

    Raises:
        ConfigError: there is no such fold.
    """
    count = len(session.folds)
    for index in folds or ():
        if not 0 <= index < count:
            raise ConfigError(f"--fold {index}: there are {count} folds, counted from 0 to {count - 1}.")
    return list(range(count)) if folds is None else sorted(set(folds))


def training_settings(training: TrainingConfig, plan: Plan) -> TrainingConfig:
    """Return the training with what the plan decided: the batch, and the steps unless the user set a length."""
    update: dict[str, Any] = {"batch_size": plan.batch}
    if plan.steps is not None and not {"steps", "epochs", "time_budget_s"} & training.model_fields_set:
        update["steps"] = plan.steps
    return training.model_copy(update=update)


def _cases(session: Session, names: Sequence[str], failed: Sequence[str]) -> list[TrainingCase]:
    from ..training.data import TrainingCase

    result = []
    for name in names:
        if name not in failed:
            case = PreparedCase(session.store, name)
            result.append(TrainingCase(name, case.image, case.label))
    return result
