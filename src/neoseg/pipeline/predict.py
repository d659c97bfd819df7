"""Stage predict: every training case by the model that has not seen it, every held-out case by all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..atomic import read_json, replacing, write_json
from ..data.cases import Case
from ..data.store import digest, file_digest
from ..errors import StateError
from ..inference.postprocess import PostprocessConfig, apply
from ..inference.predictor import Ensemble
from ..io import read_grid, strip_ending, write_volume
from ..labels import LabelSet
from ..methods.choice import Choice, best_choice, dice_table
from ..plan.plan import Plan
from ..volume import Volume
from ..workspace import Run
from .prepared import PreparedCase
from .session import CV, HELD_OUT, Session
from .train import keep_config, resolved_device

if TYPE_CHECKING:
    from torch import nn

__all__ = ["load_networks", "mask_path", "predict"]


def predict(session: Session, *, failed: Sequence[str] = ()) -> dict[str, Any]:
    """Predict all cases, choose threshold and smallest lesion, and write the masks on the scans' own grids.

    A cross-validated case gets the choice made on the cases of the other folds; the held-out cases and later scans
    get the choice made on all cross-validated ones. With several foreground classes the most probable one is taken
    and nothing is chosen.

    Returns:
        The choices and the counts of predicted cases, plain data.

    Raises:
        StateError: a fold is not trained.
    """
    run, folds = session.run, session.folds
    by_name = {c.case: c for c in session.used}
    jobs = [(CV, name, [i]) for i, fold in enumerate(folds) for name in fold.validation if name not in failed]
    jobs += [(HELD_OUT, c.case, list(range(len(folds)))) for c in session.held_out if c.case not in failed]
    device = resolved_device(session.config.device)
    plan = session.run_plan
    keep_config(session)
    networks = {i: load_networks(run, plan, session.labels, [i], device)[0] for i in range(len(folds))}
    weights = {i: file_digest(run.fold(i) / "best" / "model.safetensors") for i in networks}
    with session.progress.track("Predicting", len(jobs)) as advance:
        for split, name, members in jobs:
            case = PreparedCase(session.store, name)
            path = run.probabilities(split) / f"{name}.npy"
            key = digest(
                [
                    session.store.folder.name,
                    case.record["key"],
                    session.config.window.model_dump(mode="json"),
                    [weights[i] for i in members],
                    device,
                ]
            )
            if not _is_done(path, key):
                ensemble = Ensemble(
                    [networks[i] for i in members], plan, session.labels.count, session.config.window, device
                )
                found = ensemble.probabilities(np.asarray(case.image), case.space, case.box)
                _write_probabilities(path, found, key)
            advance(1, name)
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


def mask_path(run: Run, split: str, case: Case) -> Path:
    """Return where the mask of a case is written: in the format of its first image."""
    first = next(iter(case.images.values())).name
    ending = first.removeprefix(strip_ending(first) or first)
    return run.predictions(split) / f"{case.case}{ending}"


def load_networks(run: Run, plan: Plan, labels: LabelSet, folds: Sequence[int], device: str) -> list[nn.Module]:
    """Return the best networks of some folds, in evaluation mode.

    Raises:
        StateError: a fold has no finished training, or its weights do not fit the plan.
    """
    from ..networks.build import build_network
    from ..training.checkpoint import read_weights

    networks = []
    for index in folds:
        folder = run.fold(index)
        if not (folder / "finished.json").is_file():
            raise StateError(f"{folder}: this fold is not trained to its end; run `neoseg train --fold {index}` first.")
        network = build_network(plan.network, in_channels=len(plan.channels), classes=labels.count, patch=plan.patch)
        read_weights(folder / "best", network)
        networks.append(network.to(device).eval())
    return networks


def post_config(choice: Choice | None) -> PostprocessConfig:
    """Return the post-processing that a choice stands for."""
    if choice is None:
        return PostprocessConfig()
    return PostprocessConfig(threshold=choice.threshold, minimum_lesion_mm3=choice.minimum_lesion_mm3)


def read_probabilities(path: Path) -> NDArray[np.float32]:
    """Return the class probabilities ``(classes, x, y, z)`` on the box of a case; the background is the rest."""
    foreground = np.load(path, allow_pickle=False).astype(np.float32)
    return np.concatenate([1 - foreground.sum(axis=0, keepdims=True), foreground])


def _write_probabilities(path: Path, found: NDArray[np.float32], key: str) -> None:
    # float16 keeps a probability to 0.0005, a tenth of the step between two thresholds that are tried.
    with replacing(path) as temporary:
        np.save(temporary, found[1:].astype(np.float16), allow_pickle=False)
    write_json(path.with_suffix(".json"), {"key": key})


def _is_done(path: Path, key: str) -> bool:
    record = path.with_suffix(".json")
    return path.is_file() and record.is_file() and read_json(record).get("key") == key


def _choices(session: Session, failed: Sequence[str]) -> dict[str, Choice]:
    """Return the choice for the cases of each fold ("0", "1", ...) and for all later ones ("all")."""
    if session.labels.count > 2:
        return {}
    search = session.config.postprocess
    tables: dict[str, NDArray[np.float64]] = {}
    cases = [n for fold in session.folds for n in fold.validation if n not in failed]
    with session.progress.track("Choosing threshold", len(cases)) as advance:
        for name in cases:
            case = PreparedCase(session.store, name)
            probability = read_probabilities(session.run.probabilities(CV) / f"{name}.npy")[1]
            tables[name] = dice_table(
                lambda threshold, p=probability: (p >= threshold).astype(np.uint8),  # type: ignore[misc]
                case.truth_in_box,
                thresholds=search.thresholds,
                volumes_mm3=search.minimum_lesion_mm3,
                voxel_mm3=case.native.voxel_volume,
            )
            advance(1, name)
    return choices_by_fold(
        tables,
        [f.validation for f in session.folds],
        lambda some: best_choice(some, thresholds=search.thresholds, volumes_mm3=search.minimum_lesion_mm3),
    )


def choices_by_fold(
    tables: Mapping[str, NDArray[np.float64]], folds: Sequence[Sequence[str]], choose: Any
) -> dict[str, Choice]:
    """Return for each fold the choice made on the cases of the other folds, and under "all" the one made on all."""
    result = {str(i): choose([t for name, t in tables.items() if name not in scored]) for i, scored in enumerate(folds)}
    return {**result, "all": choose(list(tables.values()))}


def _write_mask(session: Session, case: Case, split: str, choice: Choice | None) -> None:
    prepared = PreparedCase(session.store, case.case)
    probabilities = read_probabilities(session.run.probabilities(split) / f"{case.case}.npy")
    classes = apply(probabilities, prepared.native.spacing, post_config(choice))
    first = next(iter(case.images))
    grid = read_grid(case.images[first])
    label = session.labels.decode(prepared.on_native(classes))
    write_volume(Volume(label[None], grid), mask_path(session.run, split, case))
