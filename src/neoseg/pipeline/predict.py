"""Stage predict: every training case by the model that has not seen it, every held-out case by all of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import read_record, replacing, write_json
from ..data.cases import Case
from ..data.store import digest, file_digest
from ..errors import InputError, StateError
from ..inference.ensemble import Ensemble
from ..inference.memory import MemoryUse
from ..inference.postprocess import PostprocessConfig, clean, decide
from ..inference.restore import restored_slabs, slab_planes
from ..inference.scratch import Scratch
from ..io import mask_ending, read_grid, write_volume
from ..methods.choice import Choice, best_choice, best_counts, class_table, score_table
from ..targets import Targets
from ..volume import Volume
from .devices import resolved_device
from .networks import FoldNetworks, load_networks, require_trained
from .out_of_memory import predicting_in_memory
from .prediction_memory import case_uses
from .prepared import PreparedCase
from .run_folder import keep_config
from .session import CV, HELD_OUT, Session

__all__ = ["choices_by_fold", "load_networks", "mask_path", "post_config", "predict"]


def predict(session: Session, *, failed: Sequence[str] = ()) -> dict[str, Any]:
    """Predict all cases, choose the post-processing, and write the masks on the scans' own grids.

    A cross-validated case gets the choice made on the cases of the other folds; the held-out cases and later scans
    get the choice made on all cross-validated ones. With several foreground classes the most probable one is taken,
    and what is chosen is how many of the largest components of each stay, where ``postprocess.keep_largest`` names
    several numbers. With regions nothing is chosen.

    Returns:
        The choices and the counts of predicted cases, plain data.

    Raises:
        StateError: a fold is not trained, or its weights are not finite.
        InputError: the networks have no finite answer for a case.
        ConfigError: a case does not fit into ``window.max_memory``, or window.mirror_axes names an axis that the images
            do not have.
    """
    run, folds = session.run, session.folds
    by_name = {c.case: c for c in session.used}
    jobs = [(CV, name, [i]) for i, fold in enumerate(folds) for name in fold.validation if name not in failed]
    jobs += [(HELD_OUT, c.case, list(range(len(folds)))) for c in session.held_out if c.case not in failed]
    device = resolved_device(session.config.device)
    plan = session.run_plan
    session.config.window.require_axes(len(plan.patch))
    keep_config(session)
    every = range(len(folds))
    require_trained(run, every)
    weights = {i: file_digest(run.fold(i) / "best" / "model.safetensors") for i in every}
    keys = {(split, name): _key(session, name, [weights[i] for i in members], device) for split, name, members in jobs}
    todo = [job for job in jobs if not _is_done(run.probabilities(job[0]) / f"{job[1]}.npy", keys[job[:2]])]
    uses = case_uses(session, {name: len(members) for _, name, members in todo}, device)
    resident = min((use.networks for use in uses.values() if use.networks is not None), default=None)
    networks = FoldNetworks(lambda i: load_networks(run, plan, session.targets, [i], device)[0], every, resident)
    with session.progress.track("Predicting", len(jobs)) as advance:
        for split, name, members in jobs:
            if (split, name, members) in todo:
                path = run.probabilities(split) / f"{name}.npy"
                chosen_ones = networks.of(members)
                ensemble = Ensemble(chosen_ones, plan, session.targets, session.config.window, device)
                start = time.perf_counter()
                with predicting_in_memory(plan, device):
                    _predict_case(PreparedCase(session.store, name), ensemble, path, uses[name])
                seconds = round(time.perf_counter() - start, 3)
                write_json(path.with_suffix(".json"), {"key": keys[split, name], "seconds": seconds})
            advance(1, name)
    del networks
    chosen = _choices(session, failed)
    write_json(run.postprocess, asdict(chosen["all"]) if chosen else None)
    fold_of = {name: str(i) for i, fold in enumerate(folds) for name in fold.validation}
    with session.progress.track("Writing masks", len(jobs)) as advance:
        for split, name, _ in jobs:
            choice = chosen.get(fold_of[name] if split == CV else "all")
            _write_mask(session, by_name[name], split, choice)
            advance(1, name)
    return {
        "cv": sum(split == CV for split, _, _ in jobs),
        "held_out": sum(split == HELD_OUT for split, _, _ in jobs),
        "postprocess": {name: asdict(choice) for name, choice in chosen.items()},
    }


def mask_path(session: Session, split: str, case: Case) -> Path:
    """Return where the mask of a case is written: in the format of its first image that is read, if masks fit."""
    return session.run.predictions(split) / f"{case.case}{mask_ending(session.grid_image(case))}"


def post_config(choice: Choice | None) -> PostprocessConfig:
    """Return the post-processing that a choice stands for."""
    if choice is None:
        return PostprocessConfig()
    return PostprocessConfig(
        threshold=choice.threshold,
        minimum_lesion_mm3=choice.minimum_lesion_mm3,
        keep_largest=tuple(choice.keep_largest),
    )


def decided(path: Path, config: PostprocessConfig, targets: Targets) -> NDArray[np.uint8]:
    """Return the class indices ``(x, y, z)`` on the box of a case, before components are looked at."""
    foreground = np.load(path, mmap_mode="r", allow_pickle=False)
    result = np.empty(foreground.shape[1:], dtype=np.uint8)
    planes = slab_planes(result.shape)
    for first in range(0, len(result), planes):
        part = np.asarray(foreground[:, first : first + planes]).astype(np.float32)
        result[first : first + planes] = decide(targets.whole(part), config, targets)
        Scratch.release(foreground)
    return result


def _key(session: Session, name: str, weights: Sequence[str], device: str) -> str:
    """Hash of what the probabilities of a case depend on."""
    window = session.config.window.decisions()
    return digest([session.store.folder.name, PreparedCase(session.store, name).record["key"], window, weights, device])


def _predict_case(case: PreparedCase, ensemble: Ensemble, path: Path, use: MemoryUse) -> None:
    """Write the probabilities of the foreground classes or regions of a case on its box, slab by slab.

    Raises:
        InputError: the networks have no finite answer.
    """
    scratch = Scratch(path.parent if use.on_disk else None)
    try:
        found = ensemble.prepared(case.image, use=use, scratch=scratch)[0]
    except InputError as error:
        raise InputError(f"case {case.name}: {error}") from error
    # float16 keeps a probability to 0.0005, a tenth of the step between two thresholds that are tried.
    targets, limit = ensemble.targets, case.limit
    kept = np.empty((len(targets.names), *case.box.shape), dtype=np.float16)
    outside = targets.background()
    for first, slab in restored_slabs(found, case.grid, case.box, case.space.transform, outside=outside):
        planes = slice(first, first + slab.shape[1])
        foreground = slab[targets.foreground]
        kept[:, planes] = foreground if limit is None else foreground * limit[planes]
        scratch.release(found)
    with replacing(path) as temporary:
        np.save(temporary, kept, allow_pickle=False)


def _is_done(path: Path, key: str) -> bool:
    record = path.with_suffix(".json")
    if not path.is_file() or not record.is_file():
        return False
    try:
        return bool(read_record(record, "").get("key") == key)
    except StateError:
        return False  # it is predicted again


def _choices(session: Session, failed: Sequence[str]) -> dict[str, Choice]:
    """Return the choice for the cases of each fold ("0", "1", ...) and for all later ones ("all")."""
    search, several = session.config.postprocess, session.labels.count > 2
    if session.targets.overlapping or (several and search.keep_largest == (0,)):
        return {}
    tables: dict[str, NDArray[np.float64]] = {}
    cases = [n for fold in session.folds for n in fold.validation if n not in failed]
    with session.progress.track("Choosing post-processing", len(cases)) as advance:
        for name in cases:
            tables[name] = _table(session, PreparedCase(session.store, name))
            advance(1, name)
    choose: Callable[..., Choice] = (
        partial(best_counts, search=search)
        if several
        else partial(best_choice, thresholds=search.thresholds, search=search, usual=PostprocessConfig().threshold)
    )
    subject_of = {case.case: case.subject for case in session.trainable}

    def chosen(own: Mapping[str, NDArray[np.float64]]) -> Choice:
        return choose(list(own.values()), subjects=[subject_of[name] for name in own])

    return choices_by_fold(tables, [f.validation for f in session.folds], chosen)


def _table(session: Session, case: PreparedCase) -> NDArray[np.float64]:
    search, truth = session.config.postprocess, np.ascontiguousarray(case.truth_in_box)
    targets = session.targets
    path = session.run.probabilities(CV) / f"{case.name}.npy"
    if session.labels.count > 2:
        mask = decided(path, PostprocessConfig(), targets)
        return class_table(mask, truth, search=search, classes=session.labels.count)
    return score_table(
        lambda threshold: decided(path, PostprocessConfig(threshold=threshold), targets),
        truth,
        thresholds=search.thresholds,
        search=search,
        voxel_mm3=case.native.voxel_volume,
    )


def choices_by_fold(
    tables: Mapping[str, NDArray[np.float64]],
    folds: Sequence[Sequence[str]],
    choose: Callable[[Mapping[str, NDArray[np.float64]]], Choice],
) -> dict[str, Choice]:
    """Return for each fold the choice made on the cases of the other folds, and under "all" the one made on all."""
    left = ({name: table for name, table in tables.items() if name not in scored} for scored in folds)
    return {**{str(i): choose(own) for i, own in enumerate(left)}, "all": choose(tables)}


def _write_mask(session: Session, case: Case, split: str, choice: Choice | None) -> None:
    prepared, config = PreparedCase(session.store, case.case), post_config(choice)
    mask = decided(session.run.probabilities(split) / f"{case.case}.npy", config, session.targets)
    classes = clean(mask, prepared.native.spacing, config)
    grid = read_grid(session.grid_image(case))
    label = session.labels.decode(prepared.on_native(classes))
    write_volume(Volume(label[None], grid), mask_path(session, split, case))
