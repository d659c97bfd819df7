"""Prediction of new scans by a finished run, wherever its folder was copied to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import read_json
from ..config import load_resolved
from ..data.cases import Case
from ..data.loading import load_images
from ..errors import InputError, NeosegError, StateError
from ..inference.predictor import Ensemble, Predictor
from ..io import strip_ending, write_volume
from ..methods.choice import Choice
from ..plan.plan import read_plan
from ..prepare.atlas import Atlas
from ..prepare.configs import ADC, ZADC, reference_channel
from ..prepare.standardise import Template
from ..progress import Progress
from ..volume import Volume
from ..workspace import Run
from .forecast import forecast_new_scans
from .predict import load_networks, post_config
from .scan_files import Stacked, scans_in
from .train import resolved_device

__all__ = ["PredictedScan", "load_predictor", "predict_scans"]


@dataclass(frozen=True)
class PredictedScan:
    """What became of one scan.

    Attributes:
        case: its name; of an image file that belongs to no scan, the file's name.
        mask: the written mask; None when it failed or belongs to no scan.
        volumes_ml: volume of each class.
        warnings: what a reader should know.
        error: the sentence that says why the scan failed.
    """

    case: str
    mask: Path | None
    volumes_ml: dict[str, float]
    warnings: tuple[str, ...]
    error: str | None = None


def load_predictor(folder: Path, device: str = "auto") -> tuple[Predictor, tuple[str, ...]]:
    """Load a finished run; the folder may have been copied from another machine.

    Returns:
        The predictor, and the channels that a scan has to bring (the Z map is made from ADC where the run made it).

    Raises:
        StateError: the folder is not a finished run.
        ConfigError: its configuration or plan cannot be read, or the device does not exist.
    """
    run = Run(folder)
    if not run.config.is_file() or not run.plan.is_file() or not run.postprocess.is_file():
        raise StateError(f"{folder}: this is not the folder of a finished run (runs/<name> of a workspace).")
    config, plan = load_resolved(run.config), read_plan(run.plan)
    folds = sorted(int(p.parent.name.removeprefix("fold")) for p in folder.glob("fold*/finished.json"))
    where = resolved_device(device)
    atlas = Atlas.load(run.atlas) if run.atlas.is_dir() else None
    template = Template.load(run.template) if config.prepare.space == "template" else None
    chosen = read_json(run.postprocess)
    networks = load_networks(run, plan, config.label_set, folds, where)
    predictor = Predictor(
        ensemble=Ensemble(networks, plan, config.label_set.count, config.window, where),
        labels=config.label_set,
        prepare=config.prepare,
        postprocess=post_config(Choice(**chosen) if chosen else None),
        atlas=atlas,
        template=template,
        cohort=tuple(read_json(run.registrations).values()) if run.registrations.is_file() else (),
    )
    needed = tuple(c for c in plan.channels if not (c == ZADC and atlas is not None))
    extra = [] if atlas is None else [ADC]
    extra += [reference_channel(config.prepare, plan.channels)] if extra or template is not None else []
    return predictor, (*(c for c in dict.fromkeys(extra) if c not in needed), *needed)


def predict_scans(
    folder: Path,
    source: Path,
    output: Path,
    *,
    device: str = "auto",
    probabilities: bool = False,
    progress: Progress,
) -> list[PredictedScan]:
    """Segment every scan of a file or folder; one bad scan does not lose the others.

    Args:
        folder: a finished run.
        source: see :func:`neoseg.pipeline.scan_files.scans_in`.
        output: where ``<scan>`` masks go, in the format and on the grid of the input.
        device: see the configuration.
        probabilities: also write ``<scan>_probability_<class>`` as float32.
        progress: the listener.

    Returns:
        One entry a scan; before them, one entry with a warning for each image file that belongs to none.

    Raises:
        InputError: there is nothing to predict, or results would overwrite the inputs.
        StateError, ConfigError: as :func:`load_predictor`.
    """
    predictor, channels = load_predictor(folder, device)
    stacked = Run(folder).stacked
    files = scans_in(source, channels, Stacked(**read_json(stacked)) if stacked.is_file() else None)
    scans = files.scans
    inputs = {p.resolve() for scan in scans for p in scan.images.values()}
    inputs |= {(source / name).resolve() for name in files.left_out}
    masks = {scan.case: output / f"{scan.case}{_ending(scan)}" for scan in scans}
    for mask in masks.values():
        if mask.resolve() in inputs:
            raise InputError(f"{mask}: the mask would replace the input image; give another --output.")
    results = [PredictedScan(name, None, {}, (why,)) for name, why in files.left_out.items()]
    progress.say(forecast_new_scans(predictor, scans))
    with progress.track("Predicting scans", len(scans)) as advance:
        for scan in scans:
            ending, mask = _ending(scan), masks[scan.case]
            try:
                results.append(_predict_one(predictor, scan, channels, mask, ending, probabilities))
            except NeosegError as error:
                results.append(PredictedScan(scan.case, None, {}, (), str(error)))
            advance(1, scan.case)
    return results


def _ending(scan: Case) -> str:
    first = next(iter(scan.images.values())).name
    return first.removeprefix(strip_ending(first) or first)


def _predict_one(
    predictor: Predictor, scan: Case, channels: Sequence[str], mask: Path, ending: str, probabilities: bool
) -> PredictedScan:
    loaded = load_images(scan, channels)
    found = predictor.predict(loaded.image, loaded.channels)
    write_volume(found.label, mask)
    if probabilities:
        for index, name in enumerate(predictor.labels.names):
            one = Volume(found.probabilities.array[index : index + 1], found.probabilities.grid)
            write_volume(one, mask.with_name(f"{scan.case}_probability_{name}{ending}"))
    to_ml = found.label.grid.voxel_volume / 1000
    stored = {n: int(v[0]) for n, v in zip(predictor.labels.names, predictor.labels.values, strict=True)}
    volumes = {n: float(np.count_nonzero(found.label.array == v) * to_ml) for n, v in stored.items()}
    return PredictedScan(scan.case, mask, volumes, (*loaded.notes, *found.warnings))
