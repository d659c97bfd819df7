"""Stage train: one network a fold, resumed where it stands."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..atomic import replacing
from ..config import load_resolved
from ..data.cases import Case
from ..data.folds import Fold
from ..data.store import digest, file_digest
from ..errors import ConfigError, StateError
from ..io import volumes_in
from ..plan.plan import Plan, read_plan
from ..prepare.standardise import Template
from ..training.configs import TrainingConfig
from ..workspace import write_if_changed
from .environment import environment
from .forecast import forecast_training
from .prepare import registrations, template_of
from .prepared import PreparedCase
from .scan_files import Stacked
from .session import Session

if TYPE_CHECKING:
    from ..training.data import TrainingCase

TRAINED_WITH = (
    "seed", "labels", "label_tolerance", "channels", "folds", "prepare", "atlas", "network", "loss", "augment",
    "training",
)  # fmt: skip
"""Parts of the configuration that the weights of a run depend on."""

__all__ = ["keep_config", "resolved_device", "train", "training_settings", "wanted_folds"]


def train(session: Session, *, key: str, fold: int | None = None, failed: Sequence[str] = ()) -> None:
    """Train every fold (or one) that is not trained yet, make the run folder self-contained, and record each fold.

    Several processes may train different folds of one run side by side.

    Args:
        session: the run.
        key: hash of what the folds depend on, for their records.
        fold: index of the only fold to train.
        failed: cases that could not be prepared; they are left out.

    Raises:
        ConfigError: there is no such fold.
        StateError: the run folder holds a training of other data or settings.
    """
    import torch

    from ..augment.augmentation import Augmentation
    from ..losses.build import build_loss
    from ..networks.build import build_network
    from ..training.data import TrainingData
    from ..training.loop import FoldRun, train_fold

    config, plan, folds, run = session.config, session.plan, session.folds, session.run
    _make_self_contained(session, plan, failed)
    settings = training_settings(config.training, plan)
    device = resolved_device(config.device)
    for index in [i for i in run.fold_records() if i >= len(folds)]:
        run.stage(f"train.fold{index}").unlink(missing_ok=True)
    indices = [i for i in wanted_folds(session, fold) if not run.fold_is_current(i, key)]
    session.progress.say(forecast_training(plan, settings, folds=len(indices), device=device))
    for index in indices:
        data = TrainingData(
            train=_cases(session, folds[index].train, failed),
            validation=_cases(session, folds[index].inner, failed),
            spacing_mm=plan.spacing_mm,
            classes=session.labels.count,
            patch=plan.patch,
        )
        generator = torch.Generator().manual_seed(config.seed * 1000 + index)
        network = build_network(
            plan.network,
            in_channels=len(plan.channels),
            classes=session.labels.count,
            patch=plan.patch,
            generator=generator,
        )
        where = FoldRun(
            folder=run.fold(index),
            seed=config.seed * 1000 + index,
            device=device,
            augmentation=Augmentation(config.augment),
            title=f"Fold {index}",
            inputs=_inputs(session, folds[index]),
        )
        result = train_fold(
            network, build_loss(config.loss), data=data, config=settings, run=where, progress=session.progress
        )
        run.record_fold(index, key, asdict(result))


def wanted_folds(session: Session, fold: int | None) -> list[int]:
    """Return the indices of all folds, or of the one that is wanted.

    Raises:
        ConfigError: there is no such fold.
    """
    count = len(session.folds)
    if fold is None:
        return list(range(count))
    if not 0 <= fold < count:
        raise ConfigError(f"--fold {fold}: there are {count} folds, counted from 0 to {count - 1}.")
    return [fold]


def training_settings(training: TrainingConfig, plan: Plan) -> TrainingConfig:
    """Return the training with what the plan decided: the batch, and the steps unless the user set a length."""
    update: dict[str, Any] = {"batch_size": plan.batch}
    if plan.steps is not None and not {"steps", "epochs", "time_budget_s"} & training.model_fields_set:
        update["steps"] = plan.steps
    return training.model_copy(update=update)


def resolved_device(wanted: str) -> str:
    """Return the device that "auto" means here, or the wanted one when it exists.

    Raises:
        ConfigError: a GPU is wanted that this torch cannot see.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ConfigError(
                f"device = {wanted!r}: torch sees {torch.cuda.device_count()} GPUs here; use 'cpu' or a GPU build."
            )
    return wanted


def _inputs(session: Session, fold: Fold) -> str:
    """Hash of the prepared cases of a fold and of the loss, so that weights of others are not taken over."""
    keys = [session.store.record(n)["key"] for n in (*fold.train, *fold.inner) if session.store.has_any(n)]
    return digest([session.store.folder.name, keys, session.config.loss.model_dump(mode="json")])


def keep_config(session: Session) -> None:
    """Write the resolved configuration into the run folder.

    Raises:
        StateError: the run was trained with other values of what its weights depend on.
    """
    run, now = session.run, session.config.model_dump(mode="json")
    if run.config.is_file() and any(run.folder.glob("fold*/training.json")):
        before = load_resolved(run.config).model_dump(mode="json")
        changed = [key for key in TRAINED_WITH if before[key] != now[key]]
        if changed:
            raise StateError(
                f"{run.folder}: this run was trained with other values of {', '.join(changed)}; choose another `name` "
                "in the configuration, or delete this folder to train anew."
            )
    write_if_changed(run.config, now)


def _cases(session: Session, names: Sequence[str], failed: Sequence[str]) -> list[TrainingCase]:
    from ..training.data import TrainingCase

    result = []
    for name in names:
        if name not in failed:
            case = PreparedCase(session.store, name)
            result.append(TrainingCase(name, case.image, case.label))
    return result


def _make_self_contained(session: Session, plan: Plan, failed: Sequence[str]) -> None:
    """Put into the run folder what prediction needs besides the weights."""
    run = session.run
    trained = run.plan.is_file() and any(run.folder.glob("fold*/training.json"))
    if trained and read_plan(run.plan).decisions() != plan.decisions():
        raise StateError(
            f"{run.folder}: this run was trained with another plan; choose another `name` in the configuration, or "
            "delete this folder to train anew."
        )
    keep_config(session)
    write_if_changed(run.plan, plan.model_dump(mode="json"))
    write_if_changed(run.environment, environment())
    write_if_changed(run.folder / "folds.json", [asdict(f) for f in session.folds])
    if (stacked := _stacked([c for c in session.trainable if c.case not in failed])) is not None:
        write_if_changed(run.stacked, asdict(stacked))
    if session.makes_zmap:
        _copy_atlas(session.config.template or session.workspace.atlas, run.atlas)
    if (template := template_of(session)) is not None:
        _keep_template(template, run.template)
    if found := registrations(session, session.trainable):
        write_if_changed(run.registrations, found)


def _stacked(cases: Sequence[Case]) -> Stacked | None:
    """Return how the channels lie in the 4-D files of the cases; None unless all have such files, and alike."""
    first, *others = [_stack_of(case) for case in cases] or [None]
    return first if all(other == first for other in others) else None


def _stack_of(case: Case) -> Stacked | None:
    files = set(case.images.values())
    if len(files) != 1 or not case.channel_index:
        return None
    return Stacked(volumes_in(files.pop()), case.channel_index)


def _copy_atlas(source: Path, target: Path) -> None:
    """Copy the files of an atlas, each whole, where the copy is not there or differs."""
    from ..prepare.atlas import Atlas

    Atlas.load(source)
    for file in sorted(source.glob("atlas.*")):
        copy = target / file.name
        if not copy.is_file() or file_digest(copy) != file_digest(file):
            with replacing(copy) as temporary:
                shutil.copyfile(file, temporary)


def _keep_template(template: Template, target: Path) -> None:
    """Write a template unless the folder holds just that one."""
    if (target / "template.npz").is_file():
        there = Template.load(target)
        parts = [(t.image.array, t.mask, t.image.grid.affine) for t in (there, template)]
        if all(np.array_equal(a, b) for a, b in zip(*parts, strict=True)):
            return
    template.save(target)
