"""demo, run, and the stages of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..wording import counted
from .console import print_json, print_lines, progress_for
from .options import (
    Changes,
    ConfigFile,
    Device,
    Epochs,
    Fold,
    Folds,
    FoldsBesideCases,
    FoldsSideBySide,
    InitFrom,
    Json,
    Quiet,
    Steps,
    Time,
    WorkspaceFolder,
    configured,
    folds_of,
    length_of,
)
from .results import show_scans, show_summary

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from ..plan.reason import Reason

__all__ = ["demo", "plan", "predict", "prepare", "report", "reproduce", "run", "train"]


def demo(
    folder: Annotated[Path, typer.Argument(help="New folder for the cohort and the results.")],
    changes: Changes = None,
    device: Device = None,
    epochs: Epochs = None,
    steps: Steps = None,
    time: Time = None,
    jobs: FoldsBesideCases = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make up a cohort of newborn heads, then run everything from import to report on it (about 10 minutes)."""
    from ..pipeline.demo import demo as run_demo

    more = (*(changes or ()), *((f'device="{device}"',) if device else ()), *_jobs(jobs, "jobs", "fold_jobs"))
    summary = run_demo(folder, progress_for(quiet), changes=more, length=length_of(epochs, steps, time))
    show_summary(summary, folder / "runs" / summary["name"], as_json)
    if summary["failed"]:
        raise typer.Exit(1)


def run(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    device: Device = None,
    epochs: Epochs = None,
    steps: Steps = None,
    time: Time = None,
    init_from: InitFrom = None,
    jobs: FoldsBesideCases = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every stage of a configuration, from check to report; goes on where an earlier run was stopped."""
    from ..pipeline.run import run as run_all

    more = [*(changes or ()), *_jobs(jobs, "jobs", "fold_jobs")]
    loaded = configured(config, workspace, more, device, length_of(epochs, steps, time), init_from)
    summary = run_all(loaded, progress_for(quiet))
    show_summary(summary, loaded.workspace / "runs" / loaded.name, as_json)


def plan(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Show each number with its rule and what it was made from, beside what nnU-Net would choose.",
        ),
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Derive grid, patch, network and length of training from the training cases; writes plan.json and folds.json."""
    from ..pipeline.plan import compared
    from ..pipeline.session import open_session

    loaded = configured(config, workspace, changes)
    made = _staged(loaded, "plan", quiet=quiet)
    beside = compared(open_session(loaded, progress_for(quiet))) if explain else ()
    if as_json:
        more = {"comparison": [r.model_dump(mode="json") for r in beside]} if explain else {}
        print_json(made.model_dump(mode="json") | more)
        return
    if not explain:
        width = max(len(r.what) for r in made.reasons)
        print_lines([f"{r.what:<{width}}  {r.value}" for r in made.reasons])
        return
    print_lines(_explained(made.reasons))
    print_lines(["", "For comparison, what nnU-Net would choose for these cases; nothing here follows it:", ""])
    print_lines(_explained(beside))


def prepare(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Correct, register, crop, resample and normalise every case, and keep the results."""
    failed = _stage(config, workspace, changes, None, "prepare", quiet=quiet)["failed"]
    if as_json:
        print_json({"failed": failed})
    else:
        print_lines([f"not prepared: {case}: {why}" for case, why in failed.items()] or ["All cases are prepared."])


def train(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    device: Device = None,
    fold: Fold = None,
    folds: Folds = None,
    jobs: FoldsSideBySide = None,
    epochs: Epochs = None,
    steps: Steps = None,
    time: Time = None,
    init_from: InitFrom = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train every fold, or some; goes on where an earlier training was stopped, and makes a finished one longer."""
    wanted = folds_of(fold, folds)
    more = [*(changes or ()), *_jobs(jobs, "fold_jobs")]
    loaded = configured(config, workspace, more, device, length_of(epochs, steps, time), init_from)
    result = _staged(loaded, "train", quiet=quiet, folds=wanted)
    found = [f for f in result["folds"] if wanted is None or f["fold"] in wanted]
    if as_json:
        print_json(found)
        return
    for f in found:
        dice = "-" if f["best_dice"] is None else f"{f['best_dice']:.3f}"
        print_lines(
            [f"fold {f['fold']}: {counted(f['steps'], 'step')}, best epoch {f['best_epoch'] + 1}, inner Dice {dice}"]
        )


def predict(
    target: Annotated[
        Path | None, typer.Argument(help="A finished run folder (with --input), or a configuration.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="A scan, or a folder of scans.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the masks of new scans.")] = None,
    brain_masks: Annotated[
        Path | None,
        typer.Option(
            "--mask", help="Brain mask of the scan, or a folder with <scan>_mask for each; default: told from the scan."
        ),
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probability maps.")] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Also write maps of entropy and of the spread between folds, and give each volume its range over "
            "the folds.",
        ),
    ] = False,
    max_memory: Annotated[
        str | None,
        typer.Option(
            "--max-memory",
            help="The most main memory that may be taken, such as 4G; what does not fit is refused before the start.",
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=0, help="Processes that prepare new scans ahead; 0, the default, starts none."),
    ] = None,
    folds: Annotated[
        str | None,
        typer.Option(
            "--folds",
            metavar="LIST",
            help="Predict new scans by the networks of these folds alone, such as 0 or 0,2; one of five takes a fifth "
            "of the time. Default: all of them, averaged.",
        ),
    ] = None,
    prune: Annotated[
        int | None,
        typer.Option(
            "--prune",
            min=1,
            help="Predict with so many levels of a UNet++ that was trained with deep supervision; 1 is the smallest "
            "network, and the fastest. Default: the whole one.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Predict new scans again, and replace files that are in the way.")
    ] = False,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Segment new scans with a finished run, or (given a configuration) predict all cases of the run itself."""
    from ..errors import ConfigError

    if source is None and output is None:
        given = (brain_masks, jobs, folds, prune)
        if probabilities or uncertainty or overwrite or any(option is not None for option in given):
            raise ConfigError(
                "predict: --mask, --probabilities, --uncertainty, --jobs, --folds, --prune and --overwrite are for new "
                "scans, given with --input."
            )
        more = [*(changes or []), *([f'window.max_memory="{max_memory}"'] if max_memory else [])]
        result = _stage(target, workspace, more, device, "predict", quiet=quiet)
        if as_json:
            print_json(result)
        else:
            print_lines([f"{result['cv']} cross-validated and {result['held_out']} held-out cases are predicted."])
        return
    if target is None or source is None or output is None:
        raise ConfigError("predict: new scans need all three of them: neoseg predict RUN --input SCANS --output DIR.")
    if changes or workspace is not None:
        raise ConfigError(
            "predict: a finished run predicts new scans with the settings that it was trained and tuned with; leave "
            "out --set and --workspace."
        )
    from ..pipeline.new_scans import PredictOptions, predict_scans

    wanted = folds_of(None, folds)
    found = predict_scans(
        target,
        source,
        output,
        device=device or "auto",
        probabilities=probabilities,
        options=PredictOptions(
            uncertainty=uncertainty,
            max_memory=max_memory,
            brain_masks=brain_masks,
            jobs=jobs or 0,
            folds=None if wanted is None else tuple(wanted),
            prune=prune,
            overwrite=overwrite,
        ),
        progress=progress_for(quiet),
    )
    show_scans(found, as_json)


def report(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write summary.json and report.html from the scores and predictions that are there."""
    loaded = configured(config, workspace, changes)
    summary = _staged(loaded, "report", quiet=quiet)
    show_summary(summary, loaded.workspace / "runs" / loaded.name, as_json)


def reproduce(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="New workspace; default: reproduced-<name> in the workspace of the run."),
    ] = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run a finished run again from its own records and compare: the exit code is 0 when every result is the same."""
    from dataclasses import asdict

    from ..pipeline.reproduce import reproduce as run_again

    found = run_again(folder, output, device=device, progress=progress_for(quiet))
    if as_json:
        print_json({**asdict(found), "same": found.same})
    else:
        changed = [row for row in found.surroundings if not row.same]
        width = max(len(row.what) for row in (*found.results, *changed))
        print_lines([f"{row.what:<{width}}  {_same(row.same):<9}  {row.told}" for row in (*found.results, *changed)])
        if not changed:
            print_lines(["Versions and hardware are the same."])
        print_lines([*found.notes, f"New run: {found.folder}"])
        print_lines(["Reproduced: every result is the same." if found.same else "Not reproduced: see the rows above."])
    if not found.same:
        raise typer.Exit(1)


def _same(same: bool) -> str:
    return "same" if same else "different"


def _explained(reasons: Iterable[Reason]) -> list[str]:
    """Return for each decision its value, the numbers that it was made from, and the rule."""
    lines = []
    for reason in reasons:
        lines += [f"{reason.what}: {reason.value}"]
        lines += [f"    from  {reason.inputs}"] if reason.inputs else []
        lines += [f"    rule  {reason.why}"]
    return lines


def _jobs(jobs: int | None, *fields: str) -> list[str]:
    """Return the changes of the configuration that --jobs stands for."""
    return [] if jobs is None else [f"{field}={jobs}" for field in fields]


def _stage(
    config: Path | None,
    workspace: Path | None,
    changes: list[str] | None,
    device: str | None,
    stage: str,
    *,
    quiet: bool,
) -> Any:
    return _staged(configured(config, workspace, changes, device), stage, quiet=quiet)


def _staged(loaded: Any, stage: str, *, quiet: bool, folds: list[int] | None = None) -> Any:
    from ..pipeline.run import run_stage
    from ..pipeline.session import open_session

    session: Session = open_session(loaded, progress_for(quiet))
    return run_stage(session, stage, folds=folds)
