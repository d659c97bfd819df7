"""A finished run loaded for prediction, wherever its folder was copied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..atomic import read_json, read_record
from ..data.store import digest, file_digest, files_digest
from ..errors import StateError
from ..inference.ensemble import Ensemble
from ..inference.predictor import Predictor
from ..methods.choice import Choice
from ..prepare.atlas import Atlas
from ..prepare.configs import ZADC, channels_read
from ..prepare.standardise import Template
from ..workspace import Run
from .devices import resolved_device
from .made_with import config_of, plan_of
from .manifest import usual_units
from .networks import FoldNetworks, load_networks, load_pruned, pruned_plan
from .predict import post_config
from .run_weights import weights_for_new_scans

if TYPE_CHECKING:
    from torch import nn

__all__ = ["COPY", "LoadedRun", "load_predictor", "load_run"]

COPY = "copy it again from where the run was made, or run `neoseg predict` there"
"""What to do about a damaged file of a run."""

UNTUNED = (
    "The run has not predicted its own cases, so no post-processing was chosen on them: the mask is as the networks "
    "give it: at each place the most probable class, or the regions whose probability is at least 0.5."
)
"""Said of each result of a run whose training is not finished."""

PRUNED = (
    "The mask is of the network pruned to level {level} (--prune); the scores of the run, and the post-processing that "
    "was chosen by them, are of the whole network."
)
"""Said of each result of a part of a network."""


def load_predictor(
    folder: Path | str, device: str = "auto", *, folds: Sequence[int] | None = None, prune: int | None = None
) -> tuple[Predictor, tuple[str, ...]]:
    """Load a finished run; the folder may have been copied from another machine.

    Args:
        folder: of the run.
        device: see the configuration.
        folds, prune: see :class:`neoseg.pipeline.new_scans.PredictOptions`.

    Returns:
        The predictor, and the channels that a scan has to bring (the Z map is made from ADC where the run made it).

    Raises:
        StateError: the folder is not a finished run, not all of its folds are there, or its post-processing was chosen
            with other weights.
        ConfigError: its configuration or plan cannot be read, the device does not exist, or the network cannot be
            pruned so.
    """
    loaded = load_run(Path(folder), device, folds, prune)
    return loaded.predictor, loaded.channels


@dataclass(frozen=True, eq=False)
class LoadedRun:
    """A finished run.

    Attributes:
        predictor: its networks and steps.
        channels: those that a scan has to bring.
        usual: units of the training cases, see :func:`neoseg.pipeline.manifest.usual_units`.
        made_with: hash of all that a result depends on besides the scan and the maps that are wanted.
    """

    predictor: Predictor
    channels: tuple[str, ...]
    usual: dict[str, str]
    made_with: str


def load_run(folder: Path, device: str, folds: Sequence[int] | None, prune: int | None) -> LoadedRun:
    """Load a finished run; see :func:`load_predictor`."""
    run = Run(folder)
    if not run.config.is_file() or not run.plan.is_file():
        raise StateError(f"{folder}: this is not the folder of a finished run; {run.instead}.")
    tuned = run.postprocess.is_file()
    if not tuned and folds is None:
        raise StateError(
            f"{folder}: this run has not predicted its own cases yet, on which its post-processing is chosen; finish "
            "it with `neoseg run CONFIG`, or name the folds that are trained, such as --folds 0, to predict without."
        )
    config, plan = config_of(run), plan_of(run)
    where = resolved_device(device)
    atlas = Atlas.load(run.atlas) if run.atlas.is_dir() else None
    template = Template.load(run.template) if config.prepare.space == "template" else None
    chosen = _chosen(run.postprocess) if tuned else None
    targets = config.targets
    used = plan if prune is None else pruned_plan(plan, prune)

    def network(index: int) -> nn.Module:
        if prune is None:
            return load_networks(run, plan, targets, [index], where)[0]
        return load_pruned(run, plan, targets, [index], where, prune)[0]

    weights = weights_for_new_scans(run, network, only=folds)
    networks = FoldNetworks(network, sorted(weights))
    predictor = Predictor(
        ensemble=Ensemble(networks, used, targets, config.window, where),
        labels=config.label_set,
        prepare=config.prepare,
        postprocess=post_config(chosen),
        atlas=atlas,
        template=template,
        cohort=tuple(read_record(run.registrations, COPY).values()) if run.registrations.is_file() else (),
        notes=(*(() if tuned else (UNTUNED,)), *(() if prune is None else (PRUNED.format(level=prune),))),
    )
    read = channels_read(config.prepare, plan.channels, makes_zmap=atlas is not None)
    usual = usual_units(run)
    records = [*sorted(run.atlas.glob("atlas.*")), *sorted(run.template.glob("*"))]
    made_with = [
        __version__,
        weights,
        asdict(chosen) if chosen is not None else tuned,
        config.window.decisions(),
        prune,
        where.partition(":")[0],
        config.prepare.model_dump(mode="json"),
        list(config.labels.items()),  # in their order, which numbers the classes
        config.regions_key,
        plan.decisions(),
        files_digest(records) if records else None,
        file_digest(run.registrations) if run.registrations.is_file() else None,
        usual,
    ]
    channels = tuple(c for c in read if not (c == ZADC and atlas is not None))
    return LoadedRun(predictor, channels, usual, digest(made_with))


def _chosen(path: Path) -> Choice | None:
    """Read the post-processing of a run; ``None`` where nothing was chosen.

    Raises:
        StateError: the file is damaged.
    """
    try:
        found = read_json(path)
        choice = None if found is None else Choice(**found)
        post_config(choice)
    except (OSError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise StateError(f"{path}: this file is damaged ({reason}); {COPY}.") from error
    return choice
