"""What a stage will take, in one sentence before it starts: fixed models of the cost, so nothing has to be timed first.

Times are CPU seconds of one core of the machine named in ``benchmarks/results/forecast.json``, where the constants of
preparation come from (``benchmarks/forecast.py``: default settings, heads of newborn and of adult size, and the line
through both); another machine is slower or faster by its own factor.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from ..atlas.files import made_with
from ..data.cases import Case
from ..data.field_of_view import unlikely_size
from ..data.store import digest
from ..data.units import channel_kind
from ..errors import NeosegError
from ..inference.configs import WindowConfig
from ..inference.ensemble import window_patch
from ..inference.predictor import Predictor
from ..inference.sliding_window import window_starts
from ..io import read_grid
from ..plan.budget import ENOUGH_STEPS
from ..plan.cost import step_core_seconds, step_gib
from ..plan.fingerprint import read_facts
from ..plan.plan import Plan
from ..plan.scales import PatchScales
from ..prepare.configs import ZADC, PrepareConfig
from ..training.configs import TrainingConfig
from ..wording import counted
from .prepared import PreparedCase
from .session import Session

__all__ = ["forecast_new_scans", "forecast_predict", "forecast_prepare", "forecast_training", "held_gib"]


@dataclass(frozen=True)
class StepCost:
    """CPU seconds of a step on one head: a fixed part, and one that grows with the box around the brain in litres."""

    fixed_s: float
    per_litre_s: float

    def seconds(self, litres: float) -> float:
        """CPU seconds on a head whose box has this volume."""
        return max(0.0, self.fixed_s + self.per_litre_s * litres)


BIAS_FIELD = StepCost(0.08, 0.0)
AFFINE = StepCost(0.80, 0.20)
FFD = StepCost(0.0, 1.0)
ZMAP = StepCost(0.12, 0.0)
KEPT = StepCost(0.16, 0.0)
"""Reading, cropping, resampling, normalising and writing."""

ATLAS_HEAD = StepCost(1.4, 0.24)
ATLAS_ROUND = StepCost(1.1, 1.9)
"""Of one head in the building of an atlas: once, and in each deformable round."""

LONG_MINUTES = 12 * 60
"""A training on a CPU that takes longer than this was hardly meant for one."""

FORWARD = 1 / 3
"""Of a training step that a pass through the network takes: one of the three passes that the step costs."""


def forecast_prepare(session: Session) -> str:
    """Return one sentence on the cases that are not prepared yet and the time that they and the atlas will take."""
    config, store = session.config, session.store
    missing = [c for c in session.used if not store.has(c.case, digest(session.digests(c)))]
    litres = _box_litres(session)
    steps = ["bias field correction"] if config.prepare.bias_field is not None else []
    steps += ["registration"] if session.atlas_key is not None else []
    each = [_case_seconds(config.prepare, c.images, litres, makes_zmap=session.makes_zmap) for c in missing]
    total = sum(each)
    sentence = f"Forecast: {len(missing)} of {counted(len(session.used), 'case')} to prepare"
    sentence += f" with {' and '.join(steps)}" if steps else " without bias field correction and registration"
    if each:
        sentence += f", about {total / len(each):.1f} CPU seconds each"
    if not _has_atlas(session):
        atlas = len(session.healthy) * _healthy_seconds(session, litres)
        total += atlas
        sentence += f", after an atlas of {len(session.healthy)} heads in about {atlas:.0f}"
    workers = max(1, config.jobs)
    shared = f"{workers} worker processes" if config.jobs > 1 else "one process"
    return f"{sentence}; {_duration(total / min(workers, os.cpu_count() or 1))} in {shared}."


def forecast_training(
    plan: Plan,
    settings: TrainingConfig,
    *,
    folds: int,
    device: str,
    jobs: int = 1,
    threads: int | None = None,
    classes: int = 2,
) -> str:
    """Return one sentence on the time and the memory that a training will take, from the plan's cost model.

    Args:
        plan: the plan.
        settings: of the training, with its length.
        folds: to train.
        device: they train on.
        jobs: folds side by side.
        threads: of each; omitted: those of this process.
        classes: channels of each output of the network.
    """
    import torch

    from ..inference.precision import is_reduced

    threads, jobs = threads or torch.get_num_threads(), max(1, min(jobs, folds))
    rounds = math.ceil(folds / jobs)
    scales = PatchScales.of(settings.patch_scales, len(plan.patch))
    memory = step_gib(plan.network, plan.patch, plan.batch, classes) * scales.largest
    memory += held_gib(plan, settings, classes)
    beside = f", {jobs} folds side by side" if jobs > 1 else ""
    size = f"about {memory:.1f}" if memory >= 0.05 else "less than 0.1"
    sentence = f"Forecast: {size} GiB of memory{' a fold' if jobs > 1 else ''} beside the program's own"
    bfloat16 = is_reduced(settings.precision, device)
    step = step_core_seconds(plan.network, plan.patch, len(plan.channels), plan.batch, bfloat16=bfloat16) * scales.mean
    if settings.time_budget_s is not None:
        each = settings.time_budget_s
        whole = f": {_duration(rounds * each)} in all" if folds > 1 else ""
        few = each * threads / step
        too_few = (
            f" Only about {few:.0f} steps of this network fit into that: {_smaller(each * threads / 60)}"
            if device == "cpu" and plan.steps is None and few < ENOUGH_STEPS
            else ""
        )
        return f"{sentence}, {folds} x {each / 60:.3g} minutes as budgeted{beside}{whole}.{too_few}"
    steps = settings.steps if settings.steps is not None else settings.epochs * settings.steps_per_epoch
    if device != "cpu":
        return f"{sentence}, {folds} x {counted(steps, 'step')}{beside}."
    # folds side by side may have more threads than there are cores
    minutes = max(rounds / threads, folds / (os.cpu_count() or 1)) * step * steps / 60
    apiece = f" each{beside}" if jobs > 1 else ""
    work = f"{minutes:.0f} minutes for {folds} x {counted(steps, 'step')} on {counted(threads, 'thread')}{apiece}"
    long = f" That is {minutes / 60:.0f} hours: {_smaller(60)}" if minutes > LONG_MINUTES and plan.steps is None else ""
    return f"{sentence} and {work}, validation apart.{long}"


def held_gib(plan: Plan, settings: TrainingConfig, classes: int) -> float:
    """Return what a training holds in memory whatever its patch, see :func:`neoseg.training.memory.state_gib`."""
    from ..networks.cost import trainable_parameters
    from ..training.memory import state_gib

    count = trainable_parameters(plan.network, in_channels=len(plan.channels), classes=classes, patch=plan.patch)
    return state_gib(count, settings)


def _smaller(core_minutes: float) -> str:
    return f"`plan.core_minutes = {core_minutes:.3g}` plans a network that so much time of a CPU trains."


def forecast_predict(session: Session, failed: Sequence[str], *, device: str) -> str:
    """Return one sentence on the cases, the windows and the time of a prediction of all cases of a run."""
    plan, window, folds = session.run_plan, session.config.window, session.folds
    members = {n: 1 for fold in folds for n in fold.validation} | {c.case: len(folds) for c in session.held_out}
    names = [name for name in members if name not in failed]
    shapes = [PreparedCase(session.store, name).grid.shape for name in names]
    work = sum((_windows(s, plan, window).times(members[n]) for n, s in zip(names, shapes, strict=True)), Windows())
    windows = _window_sentence(work, plan, window, device)
    return f"Forecast: {counted(len(names), 'case')}, {windows}; what is predicted already is kept."


def forecast_new_scans(predictor: Predictor, scans: Sequence[Case]) -> str:
    """Return one sentence on the windows and the time of new scans, from their headers; the empty border counts too.

    Scans whose headers cannot be read, of another dimension, or of a size that no scan has are left to the prediction,
    which says what is wrong.
    """
    ensemble, work, litres = predictor.ensemble, Windows(), []
    for scan in scans:
        try:
            grid = read_grid(next(iter(scan.images.values())))
        except NeosegError:
            continue
        if len(grid.spacing) != len(ensemble.plan.spacing_mm) or unlikely_size(grid) is not None:
            continue
        space = predictor.template.grid(ensemble.plan.spacing_mm) if predictor.template is not None else grid
        scale = np.array(space.spacing) / ensemble.plan.spacing_mm
        shape = tuple(np.maximum(1, np.rint(space.shape * scale)).astype(int))
        work += _windows(shape, ensemble.plan, ensemble.window).times(len(ensemble.networks))
        litres.append(math.prod(grid.shape) * grid.voxel_volume / 1e6)
    made = predictor.atlas is not None and ZADC in ensemble.plan.channels
    channels = [c for c in ensemble.plan.channels if not (made and c == ZADC)]
    prepare = sum(_case_seconds(predictor.prepare, channels, one, makes_zmap=made) for one in litres)
    windows = _window_sentence(work, ensemble.plan, ensemble.window, ensemble.device)
    return f"Forecast: {counted(len(scans), 'scan')}, at most {_duration(prepare)} of preparation and {windows}."


def _case_seconds(config: PrepareConfig, channels: Collection[str], litres: float, *, makes_zmap: bool) -> float:
    """CPU seconds of one case, from the channels that it brings."""
    seconds = KEPT.seconds(litres)
    made = makes_zmap and ZADC not in channels
    if config.bias_field is not None:
        seconds += sum(channel_kind(channel) != "z" for channel in channels) * BIAS_FIELD.seconds(litres)
    if made or config.space == "template":
        seconds += AFFINE.seconds(litres) + (FFD.seconds(litres) if config.ffd is not None else 0.0)
    return seconds + (ZMAP.seconds(litres) if made else 0.0)


def _healthy_seconds(session: Session, litres: float) -> float:
    """CPU seconds that one head of the healthy group adds to the building of an atlas."""
    bias = BIAS_FIELD.seconds(litres) if session.config.prepare.bias_field is not None else 0.0
    return bias + ATLAS_HEAD.seconds(litres) + session.config.atlas.rounds * ATLAS_ROUND.seconds(litres)


def _has_atlas(session: Session) -> bool:
    """Tell whether no atlas is needed, or it is there already."""
    key = session.atlas_key
    return key is None or session.config.template is not None or made_with(session.workspace.atlas) == key


def _box_litres(session: Session) -> float:
    """Mean volume in litres of the boxes around the foreground of the training cases, from the fingerprint."""
    if not session.workspace.fingerprint.is_file():
        return 1.0  # the plan may outlive it; a newborn's head takes about as much
    facts = read_facts(session.workspace.fingerprint)
    return float(np.mean([math.prod(f.foreground_shape) * math.prod(f.spacing_mm) for f in facts])) / 1e6


@dataclass(frozen=True)
class Windows:
    """Passes through a network.

    Attributes:
        count: how many.
        patches: patches of the plan with as many voxels.
    """

    count: int = 0
    patches: float = 0.0

    def __add__(self, other: Windows) -> Windows:
        return Windows(self.count + other.count, self.patches + other.patches)

    def times(self, networks: int) -> Windows:
        """Return the passes through several networks."""
        return Windows(self.count * networks, self.patches * networks)


def _windows(shape: Sequence[int], plan: Plan, window: WindowConfig) -> Windows:
    patch = window_patch(window, plan, shape)
    passes = math.prod(len(along) for along in window_starts(shape, patch, window.overlap))
    count = int(passes * 2 ** len(window.mirror_axes))
    return Windows(count, count * math.prod(patch) / math.prod(plan.patch))


def _window_sentence(work: Windows, plan: Plan, window: WindowConfig, device: str) -> str:
    import torch

    from ..inference.precision import is_reduced

    if device != "cpu":
        return f"{work.count} windows"
    seconds = (
        work.patches
        * FORWARD
        * step_core_seconds(
            plan.network, plan.patch, len(plan.channels), 1, bfloat16=is_reduced(window.precision, device)
        )
    )
    threads = torch.get_num_threads()
    on = counted(threads, "thread")
    return f"{work.count} windows, {_duration(seconds / threads)} on {on}"


def _duration(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 90 else f"about {seconds / 60:.0f} minutes"
