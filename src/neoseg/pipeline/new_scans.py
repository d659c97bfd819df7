"""Prediction of new scans by a finished run, wherever its folder was copied to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..atomic import read_json, read_record
from ..cluster.local import Outcome
from ..config import load_resolved
from ..data.cases import Case
from ..data.headers import orientation_doubt
from ..errors import InputError, StateError
from ..inference.ensemble import Ensemble
from ..inference.memory import MemoryUse
from ..inference.predictor import Prediction, Predictor, Wanted
from ..inference.scratch import Scratch
from ..io import strip_ending, write_volume
from ..methods.choice import Choice
from ..plan.plan import read_plan
from ..prepare.atlas import Atlas
from ..prepare.configs import ADC, ZADC, reference_channel
from ..prepare.standardise import Template
from ..progress import Progress, Silent
from ..volume import Volume
from ..workspace import Run
from .ahead import ReadyScan, ready_scans
from .disk_space import require_writable
from .forecast import forecast_new_scans
from .networks import FoldNetworks, load_networks, load_pruned, pruned_plan
from .out_of_memory import predicting_in_memory
from .predict import post_config
from .prediction_memory import scan_uses
from .scan_files import Stacked, scans_in
from .scan_masks import with_masks
from .train import resolved_device
from .versions import other_versions

__all__ = ["PredictOptions", "PredictedScan", "load_predictor", "predict_scans"]


COPY = "copy it again from where the run was made, or run `neoseg predict` there"
"""What to do about a damaged file of a run."""


@dataclass(frozen=True)
class PredictedScan:
    """What became of one scan.

    Attributes:
        case: its name; of an image file that belongs to no scan, the file's name.
        mask: the written mask; None when it failed or belongs to no scan.
        volumes_ml: volume of each region and class, in ``unit``.
        warnings: what a reader should know.
        error: the sentence that says why the scan failed.
        ranges_ml: with ``uncertainty`` and several folds, for each region and class the smallest and the largest volume
            of the masks that the single folds give; it says how far they agree and is no confidence interval.
        unit: "mL", of a plane "mm²" or "px²".
    """

    case: str
    mask: Path | None
    volumes_ml: dict[str, float]
    warnings: tuple[str, ...]
    error: str | None = None
    ranges_ml: dict[str, tuple[float, float]] = field(default_factory=dict)
    unit: str = "mL"


@dataclass(frozen=True)
class PredictOptions:
    """What may be asked of a prediction of new scans besides masks and probabilities.

    Attributes:
        uncertainty: also write ``<scan>_entropy`` and, with several folds, ``<scan>_spread``, float32 on the grid of
            the input, and give each volume its range over the folds.
        max_memory: the most main memory that the process may take, such as "4G"; ``None``: that of the run's
            configuration. Volumes that do not fit lie in unnamed files in the folder of the masks.
        brain_masks: a brain mask, or a folder of them, see :func:`neoseg.pipeline.scan_masks.with_masks`; ``None``: the
            brain is told from each scan.
        jobs: processes that read and prepare scans ahead, each with one thread; 0 starts none. As many prepared scans
            may wait in memory.
        prune: levels of a UNet++ with deep supervision that predict, of 1 for the smallest network; ``None``: the
            whole network. The post-processing remains what was chosen with the whole network.
    """

    uncertainty: bool = False
    max_memory: str | None = None
    brain_masks: Path | None = None
    jobs: int = 0
    prune: int | None = None


def load_predictor(
    folder: Path | str, device: str = "auto", *, prune: int | None = None
) -> tuple[Predictor, tuple[str, ...]]:
    """Load a finished run; the folder may have been copied from another machine.

    Args:
        folder: of the run.
        device: see the configuration.
        prune: see :class:`PredictOptions`.

    Returns:
        The predictor, and the channels that a scan has to bring (the Z map is made from ADC where the run made it).

    Raises:
        StateError: the folder is not a finished run.
        ConfigError: its configuration or plan cannot be read, the device does not exist, or the network cannot be
            pruned so.
    """
    folder = Path(folder)
    run = Run(folder)
    if not run.config.is_file() or not run.plan.is_file() or not run.postprocess.is_file():
        raise StateError(f"{folder}: this is not the folder of a finished run (runs/<name> of a workspace).")
    config, plan = load_resolved(run.config), read_plan(run.plan)
    folds = sorted(int(p.parent.name.removeprefix("fold")) for p in folder.glob("fold*/finished.json"))
    where = resolved_device(device)
    atlas = Atlas.load(run.atlas) if run.atlas.is_dir() else None
    template = Template.load(run.template) if config.prepare.space == "template" else None
    chosen = _chosen(run.postprocess)
    if not folds:
        raise StateError(f"{folder}: no fold of this run is trained to its end; run `neoseg train` or copy it again.")
    targets = config.targets
    if prune is None:
        networks = FoldNetworks(lambda i: load_networks(run, plan, targets, [i], where)[0], folds)
    else:
        networks = FoldNetworks(lambda i: load_pruned(run, plan, targets, [i], where, prune)[0], folds)
    used = plan if prune is None else pruned_plan(plan, prune)
    predictor = Predictor(
        ensemble=Ensemble(networks, used, targets, config.window, where),
        labels=config.label_set,
        prepare=config.prepare,
        postprocess=post_config(chosen),
        atlas=atlas,
        template=template,
        cohort=tuple(read_record(run.registrations, COPY).values()) if run.registrations.is_file() else (),
    )
    needed = tuple(c for c in plan.channels if not (c == ZADC and atlas is not None))
    extra = [] if atlas is None else [ADC]
    extra += [reference_channel(config.prepare, plan.channels)] if extra or template is not None else []
    return predictor, (*(c for c in dict.fromkeys(extra) if c not in needed), *needed)


def _stacked(path: Path) -> Stacked:
    try:
        return Stacked(**read_record(path, COPY))
    except TypeError as error:
        raise StateError(f"{path}: this file is damaged ({error}); {COPY}.") from error


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


def predict_scans(
    folder: Path | str,
    source: Path | str,
    output: Path | str,
    *,
    device: str = "auto",
    probabilities: bool = False,
    options: PredictOptions | None = None,
    progress: Progress | None = None,
) -> list[PredictedScan]:
    """Segment every scan of a file or folder, one after the other; one bad scan loses no other.

    Args:
        folder: a finished run.
        source: see :func:`neoseg.pipeline.scan_files.scans_in`.
        output: where ``<scan>`` masks go, in the format and on the grid of the input.
        device: see the configuration.
        probabilities: also write ``<scan>_probability_<class>``, float32 on the grid of the input; of a PNG as TIFF.
            With regions one for each of them, ``<scan>_probability_<region>``.
        options: uncertainty, the memory allowed, brain masks, processes, pruning.
        progress: the listener; default none.

    Returns:
        One entry a scan; before them, one entry with a warning for each image file that belongs to none.

    Raises:
        InputError: there is nothing to predict, or results would overwrite the inputs.
        ConfigError: a scan does not fit into the memory allowed; nothing is predicted then.
        StateError, ConfigError: as :func:`load_predictor`.
    """
    folder, source, output, progress = Path(folder), Path(source), Path(output), progress or Silent()
    require_writable(output)
    options = options or PredictOptions()
    predictor, channels = load_predictor(folder, device, prune=options.prune)
    wanted = Wanted(probabilities=probabilities, uncertainty=options.uncertainty)
    if told := other_versions(Run(folder)):
        progress.say(told)
    stacked = Run(folder).stacked
    axes = len(predictor.ensemble.plan.spacing_mm)
    files = scans_in(source, channels, _stacked(stacked) if stacked.is_file() else None, axes=axes)
    if options.brain_masks is not None:
        files = with_masks(files, options.brain_masks, channels)
    scans = files.scans
    inputs = {p.resolve() for scan in scans for p in (*scan.images.values(), *([scan.mask] if scan.mask else []))}
    inputs |= {(source / name).resolve() for name in files.left_out}
    masks = {scan.case: output / f"{scan.case}{_ending(scan)}" for scan in scans}
    for mask in masks.values():
        if mask.resolve() in inputs:
            raise InputError(f"{mask}: the mask would replace the input image; give another --output.")
    results = [PredictedScan(name, None, {}, (why,)) for name, why in files.left_out.items()]
    progress.say(forecast_new_scans(predictor, scans))
    allowed = options.max_memory or predictor.ensemble.window.max_memory
    uses = scan_uses(predictor, scans, wanted, allowed, options.jobs)
    networks = predictor.ensemble.networks
    if isinstance(networks, FoldNetworks):
        networks.keep(min((use.networks for use in uses if use.networks is not None), default=len(networks)))
    with progress.track("Predicting scans", len(scans)) as advance:
        ready = ready_scans(predictor.steps, scans, channels, options.jobs)
        for scan, use in zip(scans, uses, strict=True):
            # nothing of one scan is left in memory when the next one is prepared
            results.append(_predict_one(predictor, next(ready), scan, masks[scan.case], wanted=wanted, use=use))
            advance(1, scan.case)
    return results if options.brain_masks is None else [_without_mask(one, scans) for one in results]


def _without_mask(result: PredictedScan, scans: Sequence[Case]) -> PredictedScan:
    """Add a word where masks were given but none for this scan."""
    if not any(scan.case == result.case and scan.mask is None for scan in scans):
        return result
    told = "No brain mask of this scan was given; its brain was told from the image."
    return replace(result, warnings=(told, *result.warnings))


def _ending(scan: Case) -> str:
    first = next(iter(scan.images.values())).name
    return first.removeprefix(strip_ending(first) or first)


def _predict_one(
    predictor: Predictor, outcome: Outcome[ReadyScan], scan: Case, mask: Path, *, wanted: Wanted, use: MemoryUse
) -> PredictedScan:
    try:
        if outcome.value is None:
            return PredictedScan(scan.case, None, {}, (), outcome.error)
        scratch = Scratch(mask.parent if use.on_disk else None)
        with predicting_in_memory(predictor.ensemble.plan, predictor.ensemble.device):
            found = predictor.segment(outcome.value.ready, wanted=wanted, use=use, scratch=scratch)
        return _written(predictor, found, scan, mask, outcome.value.notes)
    except InputError as error:  # what is wrong with the run, the machine, or a signal ends the work on all scans
        return PredictedScan(scan.case, None, {}, (), str(error))


def _written(predictor: Predictor, found: Prediction, scan: Case, mask: Path, notes: tuple[str, ...]) -> PredictedScan:
    write_volume(found.label, mask)
    targets = predictor.ensemble.targets
    for name, one in _maps(found, targets.names):
        # PNG has no fractions
        ending = ".tif" if mask.suffix.lower() == ".png" else _ending(scan)
        write_volume(one, mask.with_name(f"{scan.case}_{name}{ending}"))
        Scratch.release(one.array)
    to_ml = found.label.grid.voxel_size
    voxels = [np.count_nonzero(found.label.array == int(values[0])) for values in predictor.labels.values]
    volumes = {n: float(sum(voxels[i - 1] for i in own) * to_ml) for n, own in targets.structures.items()}
    doubt = orientation_doubt(found.label.grid)
    warnings = (*([doubt] if doubt else []), *notes, *found.warnings)
    if found.uncertainty is not None and found.uncertainty.spread is None:
        warnings += ("This run has one fold, so there is no spread between folds and no range of volumes.",)
    ranges = dict(found.uncertainty.ranges_ml) if found.uncertainty is not None else {}
    unit = found.label.grid.size_unit
    return PredictedScan(scan.case, mask, volumes, warnings, ranges_ml=ranges, unit=unit)


def _maps(found: Prediction, names: Sequence[str]) -> Iterator[tuple[str, Volume]]:
    """Give the maps that were made, with the ends of their files' names."""
    if found.probabilities is not None:
        for index, name in enumerate(names):
            array = found.probabilities.array[index : index + 1]
            yield f"probability_{name}", Volume(array, found.probabilities.grid)
    if found.uncertainty is not None:
        yield "entropy", found.uncertainty.entropy
        if found.uncertainty.spread is not None:
            yield "spread", found.uncertainty.spread
