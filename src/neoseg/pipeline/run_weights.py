"""The weights that a finished run predicts new scans with: of every fold, and those it was finished with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..data.store import file_digest
from ..errors import ConfigError, StateError
from ..workspace import Run
from .start_source import read_fold_rows

__all__ = ["weights_for_new_scans"]

AGAIN = "run `neoseg predict CONFIG` (or `neoseg run CONFIG`) where the run was made, then copy its folder again"


def weights_for_new_scans(
    run: Run, load: Callable[[int], object], *, only: Sequence[int] | None = None
) -> dict[int, str]:
    """Return the hashes of the best weights of a run by fold.

    The post-processing of new scans was chosen on what all folds predicted, so it stands for those weights alone. A
    copy that came without ``stages/``, and a run whose records are older, cannot be compared with them.

    Args:
        run: that of a copy may lack its records; without a post-processing there is nothing that stands for weights.
        load: the network of a fold, which says in its own words what is wrong with its file.
        only: the folds that are wanted, counted from 0; the others need not be there. ``None``: all.

    Raises:
        StateError: no fold is trained, one of the run's folds is not here or is being trained, the post-processing was
            chosen with other weights, or a file cannot be loaded.
        ConfigError: the run has no fold of a number in ``only``.
    """
    folder = run.folder
    trained = sorted(int(p.parent.name.removeprefix("fold")) for p in folder.glob("fold*/finished.json"))
    if not trained:
        raise StateError(f"{folder}: no fold of this run is trained to its end; run `neoseg train` or copy it again.")
    folds = list(range(len(read_fold_rows(run)))) if (folder / "folds.json").is_file() else trained
    if only is not None:
        unknown = sorted(set(only) - set(folds))
        if unknown or not only:
            asked = f"fold {unknown[0]}" if unknown else "no fold"
            has = ", ".join(map(str, folds))
            raise ConfigError(f"{folder}: {asked} was asked for, but this run has the folds {has}; name some of them.")
        folds = sorted(set(only))
    for index in folds:
        if index not in trained:
            raise StateError(
                f"{run.fold(index)}: this fold of the run is not here or not trained to its end; finish it with "
                "`neoseg run CONFIG` where the run was made, or copy the whole folder of the run again."
            )
    record = run.stage_record("predict")
    if record is None and run.postprocess.is_file() and run.fold_records():
        raise StateError(
            f"{folder}: the stage 'predict', which chooses the post-processing, was begun again and has not finished; "
            f"{AGAIN}."
        )
    chosen_with = (record or {}).get("weights")
    found = {}
    for index in folds:
        path = run.fold(index) / "best" / "model.safetensors"
        found[index] = file_digest(path) if path.is_file() else ""
        if not found[index] or (chosen_with is not None and chosen_with.get(str(index)) != found[index]):
            load(index)
            raise StateError(
                f"{path}: these weights are not those that the post-processing of the run was chosen with; it was "
                f"trained on since: {AGAIN}."
            )
    return found
