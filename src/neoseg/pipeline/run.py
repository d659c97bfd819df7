"""All stages of a run, each skipped when it is up to date, timed and recorded when it is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from .. import __version__
from ..config import LENGTHS, RunConfig
from ..data.store import digest, file_digest
from ..errors import StateError
from ..prepare.atlas import Atlas
from ..progress import Progress
from ..workspace import Run
from .check import check, require_clean
from .devices import resolved_device
from .evaluate import evaluate
from .fine_tune import fold_starts, start_key
from .forecast import forecast_predict, forecast_prepare
from .lengths import length_words, lengths_in
from .made_with import config_of
from .manifest import given_config
from .plan import is_planned, plan, plan_key
from .predict import mask_path, predict
from .prepare import prepare, standing_out
from .report import STAGES, keep_notice, report
from .same_data import require_same_data
from .session import CV, HELD_OUT, Session, open_session
from .train import require_trainable, train, wanted_folds

__all__ = ["run", "run_stage", "scores_are_of_predictions", "weights_of"]


def run(config: RunConfig, progress: Progress | None = None, *, notice: str = "") -> dict[str, Any]:
    """Run every stage from check to report and return what summary.json holds.

    Calling it again after an interruption goes on where the work stopped; what is up to date is skipped.

    Args:
        config: the run.
        progress: the listener.
        notice: a sentence on top of the page, of this and every later report in the workspace.

    Raises:
        InputError: the data set has errors.
        ConfigError, StateError: see the stages.
        GeometryError, MachineError: the plan cannot be trained, or not in the memory that is free.
    """
    session = open_session(config, progress)
    if notice:
        # now, so that it holds too where another command goes on, and for other runs on these cases
        keep_notice(session.workspace.notice, notice)
    for stage in ("check", "plan", "prepare", "train", "predict", "evaluate"):
        run_stage(session, stage)
        if stage == "plan":  # a preparation may take hours
            require_trainable(session, key=_key(session, "train"))
    return dict(run_stage(session, "report", notice=notice))


def run_stage(session: Session, stage: str, *, folds: Sequence[int] | None = None, notice: str = "") -> Any:
    """Run one stage unless it is up to date, and record it in the run folder.

    A stage builds only on stages that are up to date: it refuses what was made from other files or settings.

    Args:
        session: the run.
        stage: "check", "plan", "prepare", "train", "predict", "evaluate" or "report".
        folds: for "train": only these folds.
        notice: for "report": a sentence on top of the page, of this and every later one; by default the kept one.

    Returns:
        The plan of "plan", what summary.json holds of "report", and the stage's record of all others.

    Raises:
        StateError: an earlier stage is missing or out of date.
        ConfigError: there is no such fold.
    """
    run = session.run
    if stage != "check":
        session.require_unique()
    if stage not in ("check", "plan"):
        session = session.with_plan_of_now()
    _require_earlier(session, stage)
    if stage == "train":
        wanted_folds(session, folds)
    key = _key(session, stage)
    if stage == "report" or not _is_current(session, stage, key, folds):
        failed = dict((run.stage_record("prepare") or {}).get("failed", {}))
        if stage == "report":
            with run.recording(stage, key):
                return report(session, failed=failed, notice=notice)
        if stage == "train":
            train(session, key=key, folds=folds, failed=tuple(failed))
        else:
            with run.recording(stage, key) as record:
                record.update(_done(session, stage, failed))
                session.keep_digests()
    return session.plan if stage == "plan" else run.need(stage)


def _done(session: Session, stage: str, failed: Mapping[str, str]) -> dict[str, Any]:
    """Do the work of a stage and return what its record says about it."""
    match stage:
        case "check":
            problems = check(session)
            require_clean(problems)
            return {"warnings": [{"text": p.told, "case": p.case} for p in problems]}
        case "plan":
            plan(session)
            return {}
        case "prepare":
            session.progress.say(forecast_prepare(session))
            failed = prepare(session)
            lost, told = _of_atlas(session)
            warnings = [*({"text": text, "case": ""} for text in told), *standing_out(session)]
            return {"failed": failed | lost, "warnings": warnings}
        case "predict":
            # a fold that was trained on what it would be scored on is worse than none
            require_same_data(session, tuple(failed))
            session.progress.say(
                forecast_predict(session, tuple(failed), device=resolved_device(session.config.device))
            )
            return predict(session, failed=tuple(failed)) | {"weights": weights_of(session.run)}
        case "evaluate":
            made_of = {
                "weights": weights_of(session.run),
                "predicted": session.run.need("predict")["key"],
                "truth": {c.case: session.digests(c)["files"]["label"] for c in session.used if c.label is not None},
            }
            return evaluate(session, failed=tuple(failed)) | made_of
        case _:
            raise ValueError(stage)


def weights_of(run: Run) -> dict[str, str]:
    """Return the hashes of the best weights of a run by the index of their fold, as text."""
    files = {str(i): run.fold(i) / "best" / "model.safetensors" for i in run.fold_records()}
    return {index: file_digest(path) for index, path in files.items() if path.is_file()}


def scores_are_of_predictions(run: Run) -> bool:
    """Tell whether the scores of a run were made from the predictions of now.

    Scores of former versions do not say from which; they are taken for those of the predictions that are there.
    """
    scored, predicted = run.need("evaluate"), run.stage_record("predict")
    return predicted is not None and scored.get("predicted") in (None, predicted.get("key"))


def _of_atlas(session: Session) -> tuple[dict[str, str], list[str]]:
    """Return why some healthy cases are not in the atlas of the workspace, and the other warnings of the atlas."""
    given = session.config.template
    if session.atlas_key is None or (given is not None and not given.is_dir()):
        return {}, []
    if given is not None:
        return {}, [f"The atlas {given.name}: {text}" for text in Atlas.load(given).warnings]
    atlas = Atlas.load(session.workspace.atlas)
    lost = dict(atlas.provenance.get("failed", {}))
    return lost, [text for text in atlas.warnings if not text.startswith(tuple(f"{name} " for name in lost))]


def _require_earlier(session: Session, stage: str) -> None:
    """Refuse to build on what is missing, or on what was made from other files or settings than those of now.

    Raises:
        StateError: naming the stage to run first.
    """
    if stage in ("check", "plan"):
        return
    run, path = session.run, session.workspace.plan
    again = "with the same configuration and the same --set first"
    _ = session.plan
    if not is_planned(session):
        raise StateError(
            f"{path}: this plan, or the folds beside it, were made from other cases or with other values of plan, "
            "network, folds, labels, channels, seed, prepare.normalise or training.batch_size than those of now; run "
            f"`neoseg plan` (or `neoseg run`) {again}."
        )
    for earlier in STAGES[STAGES.index("prepare") : STAGES.index(stage)]:
        if earlier == "evaluate" and run.stage_record(earlier) is None:
            continue  # a report of masks without scores is a report
        run.need(earlier)
        if not _is_current(session, earlier, _key(session, earlier), None):
            if earlier == "train":
                _require_same_length(session)
            raise StateError(
                f"{run.folder}: the stage {earlier!r} was not done to its end with the files and settings of now; run "
                f"`neoseg {earlier}` (or `neoseg run`) {again}."
            )


def _require_same_length(session: Session) -> None:
    """Say so when the run was trained for longer than the configuration has it, and for nothing else is out of date.

    Raises:
        StateError: it was.
    """
    run, now = session.run, session.config
    before = config_of(run)
    by_plan = run.manifest.is_file() and not set(LENGTHS) & given_config(run).training.model_fields_set
    trained = now.model_copy(update={"training": now.training.model_copy(update=lengths_in(before.training))})
    asked, done = length_words(now.training), length_words(before.training)
    same_but_for_length = replace(session, config=trained)
    if asked != done and _is_current(same_but_for_length, "train", _key(same_but_for_length, "train"), None):
        if by_plan:
            raise StateError(
                f"{run.folder}: this run was trained with the steps of the plan, but the configuration says {asked}; "
                "leave that out."
            )
        raise StateError(
            f"{run.folder}: this run was trained with {done}, but the configuration says {asked}; add `--set "
            f"training.{done.replace(' ', '')}`, or write it in the configuration."
        )


def _is_current(session: Session, stage: str, key: str, folds: Sequence[int] | None) -> bool:
    if stage == "train":
        return all(session.run.fold_is_current(i, key) for i in wanted_folds(session, folds))
    return session.run.is_current(stage, key) and _outputs_are_there(session, stage)


def _outputs_are_there(session: Session, stage: str) -> bool:
    """Tell whether what a stage wrote still exists; whether it fits is the business of the key."""
    run = session.run
    failed = (run.stage_record("prepare") or {}).get("failed", {})
    match stage:
        case "plan":
            return is_planned(session)
        case "prepare":
            names = [c.case for c in session.used if c.case not in failed]
            return all((session.store.folder / name / "record.json").is_file() for name in names)
        case "predict":
            in_folds = {n for f in session.folds for n in f.validation}
            cases = [(CV if c.case in in_folds else HELD_OUT, c) for c in session.used if c.case not in failed]
            return run.postprocess.is_file() and all(mask_path(session, split, c).is_file() for split, c in cases)
        case "evaluate":
            return run.scores.is_file()
        case _:
            return True


def _key(session: Session, stage: str) -> str:
    """Hash of what a stage depends on; a stage is up to date while it stays the same."""
    config, run = session.config, session.run
    if stage == "plan":
        return digest([stage, __version__, plan_key(session)])
    parts: list[Any] = [stage, __version__, session.table_key, [session.digests(c) for c in session.cases]]
    if stage == "check":
        parts += [list(config.labels.items()), config.label_key, config.channels, session.channels_read]
        parts += [str(config.template), config.prepare.space, config.prepare.zmap is None]
    if stage in ("prepare", "train", "predict", "evaluate"):
        parts += [session.store.folder.name]
    if stage == "train":
        parts += [session.plan.model_dump(mode="json"), [asdict(f) for f in session.folds]]
        parts += [config.model_dump(mode="json", include={"seed", "training", "augment", "loss"})]
        parts += config.regions_key
        parts += [start] if (start := start_key(fold_starts(session))) is not None else []
    if stage in ("predict", "evaluate"):
        parts += [[file_digest(p) for p in sorted(run.folder.glob("fold*/best/model.safetensors"))]]
        parts += [config.window.decisions(), config.postprocess.model_dump(mode="json")]
        parts += config.regions_key
    if stage == "evaluate":
        parts += [config.model_dump(mode="json", include={"rules", "evaluate"})]
    return digest(parts)
