"""Stage train: one network a fold, resumed where it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..atomic import write_json
from ..config import load_resolved
from ..data.folds import Fold
from ..data.store import digest
from ..errors import ConfigError, StateError
from ..plan.cost import step_core_seconds, step_gib
from ..plan.plan import Plan, read_plan, write_plan
from ..training.configs import TrainingConfig
from .environment import environment
from .prepared import PreparedCase
from .session import Session

if TYPE_CHECKING:
    from ..training.data import TrainingCase

TRAINED_WITH = (
    "seed", "labels", "label_tolerance", "channels", "folds", "prepare", "atlas", "network", "loss", "augment",
    "training",
)  # fmt: skip
"""Parts of the configuration that the weights of a run depend on."""

__all__ = ["forecast", "keep_config", "resolved_device", "train", "training_settings"]


def train(session: Session, *, fold: int | None = None, failed: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Train every fold (or one), and make the run folder self-contained.

    Args:
        session: the run.
        fold: index of the only fold to train.
        failed: cases that could not be prepared; they are left out.

    Returns:
        The summary of each trained fold, as in its ``finished.json``.

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
    if fold is not None and fold >= len(folds):
        raise ConfigError(f"--fold {fold}: there are {len(folds)} folds, counted from 0 to {len(folds) - 1}.")
    _make_self_contained(session, plan)
    settings = training_settings(config.training, plan)
    device = resolved_device(config.device)
    indices = range(len(folds)) if fold is None else [fold]
    session.progress.say(forecast(plan, settings, folds=len(indices), device=device))
    results = []
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
        results.append({"fold": index, **asdict(result)})
    return results


def training_settings(training: TrainingConfig, plan: Plan) -> TrainingConfig:
    """Return the training with what the plan decided: the batch, and the steps unless the user set a length."""
    update: dict[str, Any] = {"batch_size": plan.batch}
    if plan.steps is not None and not {"steps", "epochs", "time_budget_s"} & training.model_fields_set:
        update["steps"] = plan.steps
    return training.model_copy(update=update)


def forecast(plan: Plan, settings: TrainingConfig, *, folds: int, device: str) -> str:
    """Return one sentence on the time and the memory that a training will take, from the plan's cost model."""
    import torch

    memory = step_gib(plan.network, plan.patch, plan.batch)
    sentence = f"Forecast: about {memory:.1f} GiB of memory"
    if settings.time_budget_s is not None:
        return f"{sentence}, {folds} x {settings.time_budget_s / 60:.0f} minutes as budgeted."
    steps = settings.steps if settings.steps is not None else settings.epochs * settings.steps_per_epoch
    if device != "cpu":
        return f"{sentence}, {folds} x {steps} steps."
    seconds = step_core_seconds(plan.network, plan.patch, len(plan.channels), plan.batch) * steps
    threads = torch.get_num_threads()
    minutes = folds * seconds / threads / 60
    return f"{sentence} and {minutes:.0f} minutes for {folds} x {steps} steps on {threads} threads, validation apart."


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
    write_json(run.config, now)


def _cases(session: Session, names: Sequence[str], failed: Sequence[str]) -> list[TrainingCase]:
    from ..training.data import TrainingCase

    result = []
    for name in names:
        if name not in failed:
            case = PreparedCase(session.store, name)
            result.append(TrainingCase(name, case.image, case.label))
    return result


def _make_self_contained(session: Session, plan: Plan) -> None:
    """Put into the run folder what prediction needs besides the weights."""
    run = session.run
    trained = run.plan.is_file() and any(run.folder.glob("fold*/training.json"))
    if trained and read_plan(run.plan).decisions() != plan.decisions():
        raise StateError(
            f"{run.folder}: this run was trained with another plan; choose another `name` in the configuration, or "
            "delete this folder to train anew."
        )
    keep_config(session)
    write_plan(plan, run.plan)
    write_json(run.environment, environment())
    write_json(run.folder / "folds.json", [asdict(f) for f in session.folds])
    if session.makes_zmap:
        from ..prepare.atlas import Atlas

        Atlas.load(session.workspace.atlas).save(run.atlas)
