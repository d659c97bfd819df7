"""demo, run, and the stages of a run."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import print_json, print_lines, progress_for
from .options import Changes, ConfigFile, Device, Fold, Json, Quiet, WorkspaceFolder, configured

if TYPE_CHECKING:
    from ..pipeline.session import Session
    from ..plan.reason import Reason

__all__ = ["demo", "plan", "predict", "prepare", "report", "run", "train"]


def demo(
    folder: Annotated[Path, typer.Argument(help="New folder for the cohort and the results.")],
    changes: Changes = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Make up a cohort of newborn heads, then run everything from import to report on it (about 10 minutes)."""
    from ..pipeline.demo import demo as run_demo

    more = (*(changes or ()), *((f'device="{device}"',) if device else ()))
    summary = run_demo(folder, progress_for(quiet), changes=more)
    _show_summary(summary, folder / "runs" / summary["name"], as_json)
    if summary["failed"]:
        raise typer.Exit(1)


def run(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Run every stage of a configuration, from check to report; goes on where an earlier run was stopped."""
    from ..pipeline.run import run as run_all

    loaded = configured(config, workspace, changes, device)
    summary = run_all(loaded, progress_for(quiet))
    _show_summary(summary, loaded.workspace / "runs" / loaded.name, as_json)


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
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train every fold, or one; goes on where an earlier training was stopped."""
    result = _stage(config, workspace, changes, device, "train", quiet=quiet, fold=fold)
    folds = [f for f in result["folds"] if fold is None or f["fold"] == fold]
    if as_json:
        print_json(folds)
        return
    for f in folds:
        dice = "-" if f["best_dice"] is None else f"{f['best_dice']:.3f}"
        print_lines([f"fold {f['fold']}: {f['steps']} steps, best epoch {f['best_epoch'] + 1}, inner Dice {dice}"])


def predict(
    target: Annotated[
        Path | None, typer.Argument(help="A finished run folder (with --input), or a configuration.")
    ] = None,
    source: Annotated[Path | None, typer.Option("--input", "-i", help="A scan, or a folder of scans.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Folder for the masks of new scans.")] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write probability maps.")] = False,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    device: Device = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Segment new scans with a finished run, or (given a configuration) predict all cases of the run itself."""
    from ..errors import ConfigError

    if source is None and output is None:
        result = _stage(target, workspace, changes, device, "predict", quiet=quiet)
        if as_json:
            print_json(result)
        else:
            print_lines([f"{result['cv']} cross-validated and {result['held_out']} held-out cases are predicted."])
        return
    if target is None or source is None or output is None:
        raise ConfigError("predict: new scans need all three of them: neoseg predict RUN --input SCANS --output DIR.")
    _predict_new(target, source, output, device or "auto", probabilities, quiet, as_json)


def _predict_new(
    folder: Path, source: Path, output: Path, device: str, probabilities: bool, quiet: bool, as_json: bool
) -> None:
    from ..pipeline.new_scans import predict_scans

    found = predict_scans(
        folder, source, output, device=device, probabilities=probabilities, progress=progress_for(quiet)
    )
    if as_json:
        print_json([{**vars(scan), "mask": str(scan.mask) if scan.mask else None} for scan in found])
    else:
        for scan in found:
            volumes = ", ".join(f"{name} {ml:.2f} mL" for name, ml in scan.volumes_ml.items())
            outcome = f"{volumes} -> {scan.mask}" if scan.mask else scan.error or "not a scan of this run"
            print_lines([f"{scan.case}: {outcome}"])
            print_lines([f"  note: {w}" for w in scan.warnings])
        print_lines(["Research use only; not a medical device."])
    if any(scan.error for scan in found):
        raise typer.Exit(2)


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
    _show_summary(summary, loaded.workspace / "runs" / loaded.name, as_json)


def _explained(reasons: Iterable[Reason]) -> list[str]:
    """Return for each decision its value, the numbers that it was made from, and the rule."""
    lines = []
    for reason in reasons:
        lines += [f"{reason.what}: {reason.value}"]
        lines += [f"    from  {reason.inputs}"] if reason.inputs else []
        lines += [f"    rule  {reason.why}"]
    return lines


def _stage(
    config: Path | None,
    workspace: Path | None,
    changes: list[str] | None,
    device: str | None,
    stage: str,
    *,
    quiet: bool,
    fold: int | None = None,
) -> Any:
    return _staged(configured(config, workspace, changes, device), stage, quiet=quiet, fold=fold)


def _staged(loaded: Any, stage: str, *, quiet: bool, fold: int | None = None) -> Any:
    from ..pipeline.run import run_stage
    from ..pipeline.session import open_session

    session: Session = open_session(loaded, progress_for(quiet))
    return run_stage(session, stage, fold=fold)


def _show_summary(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    for split, title in (("cv", "Cross-validation"), ("held_out", "Held-out")):
        numbers = summary[split]
        if numbers is None:
            continue
        print_lines([f"{title}: network {_dice(numbers['dice'])}"])
        for name, rule in numbers["rules"].items():
            gap = rule["network_minus_this"]
            interval = f" [{gap['interval'][0]:.3f}, {gap['interval'][1]:.3f}]" if gap["interval"] else ""
            print_lines([f"  rule {name}: {_dice(rule['dice'])}; network better by {gap['mean']:.3f}{interval}"])
        empty = numbers["empty_cases"]
        if empty:
            print_lines([f"  false alarms on {empty['n_false']} of {empty['n']} cases without lesion"])
    if summary["failed"]:
        print_lines([f"Not prepared: {', '.join(summary['failed'])}"])
    print_lines([f"Report: {folder / 'report.html'}"])


def _dice(numbers: dict[str, Any]) -> str:
    if numbers["mean"] is None:
        return "Dice undefined (no case with a label)"
    interval = f" [{numbers['interval'][0]:.3f}, {numbers['interval'][1]:.3f}]" if numbers["interval"] else ""
    return f"Dice {numbers['mean']:.3f}{interval} on {numbers['n']} cases"
