"""Prediction of new scans by a finished run, wherever its folder was copied to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import read_record
from ..cluster.local import Outcome
from ..data.cases import Case
from ..data.headers import orientation_doubt
from ..errors import InputError, StateError
from ..inference.memory import MemoryUse
from ..inference.predictor import Prediction, Predictor, Wanted
from ..inference.scratch import Scratch
from ..io import is_planar, mask_ending, write_volume
from ..progress import Progress, Silent
from ..volume import Volume
from ..wording import counted
from ..workspace import Run
from .ahead import ReadyScan, ready_scans
from .disk_space import require_writable
from .forecast import forecast_new_scans
from .kept_predictions import RECORD, KeptPredictions, KeptScan, scan_key
from .load_run import COPY, load_run
from .manifest import channels_of_table
from .networks import FoldNetworks
from .out_of_memory import predicting_in_memory
from .prediction_memory import scan_uses
from .scan_files import Stacked, first_numbered, scans_in
from .scan_masks import with_masks
from .versions import other_versions

__all__ = ["PredictOptions", "PredictedScan", "predict_scans"]


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
        folds: the only networks of the run that predict, counted from 0; ``None``: those of all folds. Fewer take as
            much less time. The post-processing stays, since it was chosen on what single networks predicted. With them
            named, a run that has not predicted its own cases yet predicts without post-processing, and each result
            says so.
        prune: levels of a UNet++ with deep supervision that predict, of 1 for the smallest network; ``None``: the
            whole network. The post-processing remains what was chosen with the whole network.
        overwrite: predict every scan anew, and replace files of the results' names that no prediction wrote.
    """

    uncertainty: bool = False
    max_memory: str | None = None
    brain_masks: Path | str | None = None
    jobs: int = 0
    folds: tuple[int, ...] | None = None
    prune: int | None = None
    overwrite: bool = False


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
    """Segment every scan of a file or folder, one after the other; one that is bad or incomplete loses no other.

    Called again after it was stopped it goes on: a scan is not predicted again whose files, run and options are the
    same as those of an earlier result, and whose results are still there (``predictions.json`` beside them says so).

    Args:
        folder: a finished run.
        source: see :func:`neoseg.pipeline.scan_files.scans_in`.
        output: where ``<scan>`` masks go, on the grid and in the format of the input, of JPEG and BMP in PNG.
        device: see the configuration.
        probabilities: also write ``<scan>_probability_<class>``, float32 on the grid of the input; of a PNG as TIFF.
            With regions one for each of them, ``<scan>_probability_<region>``.
        options: uncertainty, the memory allowed, brain masks, processes, pruning.
        progress: the listener; default none.

    Returns:
        One entry a scan; before them, one entry with a warning for each image file that belongs to none.

    Raises:
        InputError: there is nothing to predict, or results would overwrite the inputs or be taken for such.
        ConfigError: a scan does not fit into the memory allowed; nothing is predicted then.
        StateError, ConfigError: as :func:`load_predictor`.
    """
    folder, source, output, progress = Path(folder), Path(source), Path(output), progress or Silent()
    require_writable(output)
    options = options or PredictOptions()
    loaded = load_run(folder, device, options.folds, options.prune)
    predictor, channels = loaded.predictor, loaded.channels
    wanted = Wanted(probabilities=probabilities, uncertainty=options.uncertainty)
    if versions := other_versions(Run(folder)):
        progress.say(versions)
    stacked = Run(folder).stacked
    axes = len(predictor.ensemble.plan.spacing_mm)
    table = channels_of_table(Run(folder))
    if not table and (numbered := first_numbered(source)) is not None:
        raise StateError(
            f"{Run(folder).manifest}: there is no such file, and it alone tells which channel {numbered} is; {COPY}, "
            f"or name the files by their channels, such as <scan>_{channels[0]}."
        )
    files = scans_in(source, channels, _stacked(stacked) if stacked.is_file() else None, table=table, axes=axes)
    kept = KeptPredictions(output, progress)
    named = [Path(given).resolve() for given in (output, options.brain_masks) if given is not None]
    ours = kept.written if output.resolve() == source.resolve() else set()
    files = replace(
        files,
        left_out={
            name: why
            for name, why in files.left_out.items()
            if name not in ours and not any(path.is_relative_to((source / name).resolve()) for path in named)
        },
    )
    if options.brain_masks is not None:
        files = with_masks(files, options.brain_masks, channels)
    scans = files.scans
    inputs = {p.resolve() for scan in scans for p in (*scan.images.values(), *([scan.mask] if scan.mask else []))}
    inputs |= {path.resolve() for one in files.incomplete for path in one.images}
    masks = {scan.case: output / f"{scan.case}{_ending(scan)}" for scan in scans}
    names = predictor.ensemble.targets.names
    results_of = {scan.case: _results(masks[scan.case], scan, names, wanted) for scan in scans}
    results = [path for found in results_of.values() for path in found]
    _refuse_inputs(results, inputs)
    if not options.overwrite:
        # a folder with a record is one of masks, and what lies there is taken for such
        guarded = {path.parent for path in inputs} | (set() if kept.known else {output.resolve()})
        _refuse_others([path for path in results if path.resolve().parent in guarded], kept.written)
    if output.resolve() in {path.parent for path in inputs} and any(is_planar(mask) for mask in masks.values()):
        raise InputError(f"{output}: masks there would be taken for pictures the next time; give another --output.")
    if len(channels) == 1 and source.is_dir() and source.resolve() == output.resolve():
        raise InputError(f"{output}: masks here would be taken for scans the next time; give another --output.")
    told = [PredictedScan(name, None, {}, (why,)) for name, why in files.left_out.items()]
    keys = {scan.case: scan_key(loaded.made_with, wanted, scan) for scan in scans}
    earlier = {
        scan.case: None if options.overwrite else kept.find(scan.case, keys[scan.case], masks[scan.case])
        for scan in scans
    }
    done = {case: _of_kept(case, found, output) for case, found in earlier.items() if found is not None}
    todo = [scan for scan in scans if scan.case not in done]
    if done:
        progress.say(
            f"{len(done)} of {counted(len(scans), 'scan')} predicted already, from the same files by the same run."
        )
    if todo:
        progress.say(forecast_new_scans(predictor, todo))
        allowed = options.max_memory or predictor.ensemble.window.max_memory
        uses = scan_uses(predictor, todo, wanted, allowed, options.jobs)
        networks = predictor.ensemble.networks
        if isinstance(networks, FoldNetworks):
            networks.keep(min((use.networks for use in uses if use.networks is not None), default=len(networks)))
        with progress.track("Predicting scans", len(todo)) as advance:
            ready = ready_scans(predictor.steps, todo, channels, options.jobs, usual=loaded.usual)
            for scan, use in zip(todo, uses, strict=True):
                # nothing of one scan is left in memory when the next one is prepared
                begin = partial(kept.begin, scan.case, results_of[scan.case])
                one, written = _predict_one(
                    predictor, next(ready), scan, masks[scan.case], wanted=wanted, use=use, begin=begin
                )
                if one.error is not None and kept.holds_other(scan.case):
                    still = f"{one.error} Results of an earlier file of this name are still in {output}."
                    one = replace(one, error=still)
                done[scan.case] = one
                if (key := keys[scan.case]) is not None and written:
                    kept.keep(scan.case, _to_keep(one, key), written)
                advance(1, scan.case)
    done |= {one.case: PredictedScan(one.case, None, {}, (), one.why) for one in files.incomplete}
    found = [*told, *(done[case] for case in sorted(done))]
    return found if options.brain_masks is None else [_without_mask(one, scans) for one in found]


def _stacked(path: Path) -> Stacked:
    try:
        return Stacked(**read_record(path, COPY))
    except TypeError as error:
        raise StateError(f"{path}: this file is damaged ({error}); {COPY}.") from error


def _to_keep(result: PredictedScan, key: str) -> dict[str, Any]:
    fields = {name: getattr(result, name) for name in ("volumes_ml", "ranges_ml", "warnings", "unit")}
    return {"key": key, "mask": result.mask.name if result.mask is not None else "", **fields}


def _of_kept(case: str, kept: KeptScan, output: Path) -> PredictedScan:
    return PredictedScan(
        case, output / kept.mask, dict(kept.volumes_ml), kept.warnings, ranges_ml=dict(kept.ranges_ml), unit=kept.unit
    )


def _without_mask(result: PredictedScan, scans: Sequence[Case]) -> PredictedScan:
    """Add a word where masks were given but none for this scan."""
    if not any(scan.case == result.case and scan.mask is None for scan in scans):
        return result
    told = "No brain mask of this scan was given; its brain was told from the image."
    return replace(result, warnings=(told, *result.warnings))


def _ending(scan: Case) -> str:
    return mask_ending(next(iter(scan.images.values())))


def _predict_one(
    predictor: Predictor,
    outcome: Outcome[ReadyScan],
    scan: Case,
    mask: Path,
    *,
    wanted: Wanted,
    use: MemoryUse,
    begin: Callable[[], None],
) -> tuple[PredictedScan, list[Path]]:
    """Return what became of a scan, and the files that were written; before the first one `begin` is called."""
    try:
        if outcome.value is None:
            return PredictedScan(scan.case, None, {}, (), outcome.error), []
        scratch = Scratch(mask.parent if use.on_disk else None)
        with predicting_in_memory(predictor.ensemble.plan, predictor.ensemble.device):
            found = predictor.segment(outcome.value.ready, wanted=wanted, use=use, scratch=scratch)
    except InputError as error:  # what is wrong with the run, the machine, or a signal ends the work on all scans
        return PredictedScan(scan.case, None, {}, (), str(error)), []
    begin()
    return _written(predictor, found, scan, mask, outcome.value.notes)


def _written(
    predictor: Predictor, found: Prediction, scan: Case, mask: Path, notes: tuple[str, ...]
) -> tuple[PredictedScan, list[Path]]:
    written = [mask]
    write_volume(found.label, mask)
    targets = predictor.ensemble.targets
    for name, one in _maps(found, targets.names):
        written.append(_map_file(mask, scan, name))
        write_volume(one, written[-1])
        Scratch.release(one.array)
    to_ml = found.label.grid.voxel_size
    voxels = [np.count_nonzero(found.label.array == int(values[0])) for values in predictor.labels.values]
    volumes = {n: float(sum(voxels[i - 1] for i in own) * to_ml) for n, own in targets.structures.items()}
    doubt = orientation_doubt(found.label.grid)
    warnings = (*([doubt] if doubt else []), *notes, *found.warnings)
    if found.label.grid.ndim == 3 and min(found.label.grid.shape) == 1 < min(predictor.ensemble.plan.patch):
        warnings += ("This scan is a single slice, and the network learned from volumes.",)
    if found.uncertainty is not None and found.uncertainty.spread is None:
        warnings += ("One fold predicts, so there is no spread between folds and no range of volumes.",)
    ranges = dict(found.uncertainty.ranges_ml) if found.uncertainty is not None else {}
    unit = found.label.grid.size_unit
    return PredictedScan(scan.case, mask, volumes, warnings, ranges_ml=ranges, unit=unit), written


def _refuse_inputs(results: Sequence[Path], inputs: Collection[Path]) -> None:
    """Refuse results that would replace what is read, or each other.

    Args:
        results: the files.
        inputs: the files that are read, resolved.

    Raises:
        InputError: naming one.
    """
    for path in results:
        if path.resolve() in inputs:
            raise InputError(f"{path}: the mask would replace the input image; give another --output.")
    if twice := [path for path, count in Counter(results).items() if count > 1]:
        raise InputError(f"{twice[0]}: the results of two scans would have this name; rename one of them.")


def _refuse_others(results: Sequence[Path], written: Collection[str]) -> None:
    """Refuse results that would replace files that no prediction wrote.

    Args:
        results: the files.
        written: names of results of earlier predictions into the folder.

    Raises:
        InputError: naming one.
    """
    for path in results:
        if path.exists() and path.name not in written:
            raise InputError(
                f"{path}: there is such a file, and no prediction that {RECORD} tells of wrote it; give another "
                "--output, move the file, or replace it by --overwrite."
            )


def _map_file(mask: Path, scan: Case, name: str) -> Path:
    # PNG has no fractions
    ending = ".tif" if mask.suffix.lower() == ".png" else _ending(scan)
    return mask.with_name(f"{scan.case}_{name}{ending}")


def _results(mask: Path, scan: Case, names: Sequence[str], wanted: Wanted) -> list[Path]:
    """Return the files that a scan may get."""
    maps = [f"probability_{name}" for name in names] if wanted.probabilities else []
    maps += ["entropy", "spread"] if wanted.uncertainty else []
    return [mask, *(_map_file(mask, scan, name) for name in maps)]


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
