"""All stages of a run, each skipped when it is up to date, timed and recorded when it is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from .. import __version__
from ..config import RunConfig
from ..data.store import digest, file_digest
from ..progress import Progress
from .check import check, require_clean
from .evaluate import evaluate
from .plan import plan
from .predict import mask_path, predict
from .prepare import prepare
from .report import report
from .session import CV, HELD_OUT, Session, open_session
from .train import train

__all__ = ["run", "run_stage"]

NEEDS = {"predict": "train", "evaluate": "predict", "report": "predict"}
"""The stage that has to have ended before a stage can start."""


def run(config: RunConfig, progress: Progress | None = None, *, notice: str = "") -> dict[str, Any]:
    """Run every stage from check to report and return what summary.json holds.

    Calling it again after an interruption goes on where the work stopped; what is up to date is skipped.

    Raises:
        InputError: the data set has errors.
        ConfigError, StateError: see the stages.
    """
    session = open_session(config, progress)
    for stage in ("check", "plan", "prepare", "train", "predict", "evaluate"):
        run_stage(session, stage)
    return dict(run_stage(session, "report", notice=notice))


def run_stage(session: Session, stage: str, *, fold: int | None = None, notice: str = "") -> Any:
    """Run one stage and record it in the run folder.

    Args:
        session: the run.
        stage: "check", "plan", "prepare", "train", "predict", "evaluate" or "report".
        fold: for "train": only this fold; the stage is then recorded when all folds are trained.
        notice: for "report": a sentence on top of the page.

    Returns:
        What the stage's function returns, or its record where the stage was up to date.
    """
    record_of = session.run.stage_record
    if stage != "check":
        session.require_unique()
    if stage in NEEDS:
        session.run.need(NEEDS[stage])
    key = _key(session, stage)
    if stage not in ("plan", "report") and session.run.is_current(stage, key) and _outputs_are_there(session, stage):
        return record_of(stage)
    failed = dict((record_of("prepare") or {}).get("failed", {}))
    functions: dict[str, Callable[[], Any]] = {
        "check": lambda: check(session),
        "plan": lambda: plan(session),
        "prepare": lambda: prepare(session),
        "train": lambda: train(session, fold=fold, failed=tuple(failed)),
        "predict": lambda: predict(session, failed=tuple(failed)),
        "evaluate": lambda: evaluate(session, failed=tuple(failed)),
        "report": lambda: report(session, failed=failed, notice=notice),
    }
    with session.run.recording(stage, key) as record:
        result = functions[stage]()
        record.update(_recorded(session, stage, result))
        if stage == "check":
            require_clean(result)
    return result


def _recorded(session: Session, stage: str, result: Any) -> dict[str, Any]:
    match stage:
        case "check":
            return {"warnings": [{"text": p.told, "case": p.case} for p in result if p.severity == "warning"]}
        case "prepare":
            return {"failed": result}
        case "train":
            return {"folds": result}
        case "predict" | "evaluate":
            return dict(result)
        case _:
            return {}


def _outputs_are_there(session: Session, stage: str) -> bool:
    """Tell whether what a stage wrote still exists; whether it fits is the business of the key."""
    run = session.run
    failed = (run.stage_record("prepare") or {}).get("failed", {})
    match stage:
        case "prepare":
            names = [c.case for c in session.used if c.case not in failed]
            return all((session.store.folder / name / "record.json").is_file() for name in names)
        case "train":
            return all((run.fold(i) / "finished.json").is_file() for i in range(len(session.folds)))
        case "predict":
            in_folds = {n for f in session.folds for n in f.validation}
            cases = [(CV if c.case in in_folds else HELD_OUT, c) for c in session.used if c.case not in failed]
            return run.postprocess.is_file() and all(mask_path(run, split, c).is_file() for split, c in cases)
        case "evaluate":
            return run.scores.is_file()
        case _:
            return True


def _key(session: Session, stage: str) -> str:
    """Hash of what a stage depends on; a stage is up to date while it stays the same."""
    config, run = session.config, session.run
    parts: list[Any] = [stage, __version__, session.table_key, [session.digests(c) for c in session.cases]]
    if stage == "check":
        parts += [config.labels, config.label_tolerance, config.channels]
    if stage in ("prepare", "train", "predict", "evaluate"):
        parts += [session.store.folder.name]
    if stage == "train":
        parts += [session.plan.model_dump(mode="json"), [asdict(f) for f in session.folds]]
        parts += [config.model_dump(mode="json", include={"seed", "training", "augment", "loss"})]
    if stage in ("predict", "evaluate"):
        parts += [[file_digest(p) for p in sorted(run.folder.glob("fold*/best/model.safetensors"))]]
        parts += [config.model_dump(mode="json", include={"window", "postprocess"})]
    if stage == "evaluate":
        parts += [config.model_dump(mode="json", include={"rules", "evaluate"})]
    return digest(parts)
