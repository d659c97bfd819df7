"""evaluate: a run, or the masks of any program."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import print_json, print_lines, progress_for
from .options import Changes, ConfigFile, Json, Masks, Quiet, SubjectPattern, WorkspaceFolder, configured, meaning_of

__all__ = ["evaluate"]


def evaluate(
    config: ConfigFile = None,
    truth: Annotated[Path | None, typer.Option("--truth", help="Folder of reference masks.")] = None,
    prediction: Annotated[Path | None, typer.Option("--prediction", help="Folder of masks of any program.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="Score masks as an official scorer does: bonbid or bonbid-2023.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Also write the scores of masks as CSV.")
    ] = None,
    tolerance_mm: Annotated[
        float | None,
        typer.Option("--tolerance-mm", help="Tolerance of NSD for masks, default 2; a run has evaluate.tolerance_mm."),
    ] = None,
    subject_pattern: SubjectPattern = None,
    masks: Masks = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Score masks against references (--truth and --prediction), or score the predictions of a run."""
    from ..errors import ConfigError

    if truth is None and prediction is None:
        beside = {
            "--preset": preset,
            "--output": output,
            "--tolerance-mm": tolerance_mm,
            "--subject-pattern": subject_pattern,
            "--masks": masks,
        }
        if unused := [name for name, value in beside.items() if value is not None]:
            raise ConfigError(
                f"evaluate: {', '.join(unused)} {'is' if len(unused) == 1 else 'are'} for the masks of --truth and "
                "--prediction; what a run is scored by stands in its configuration, under [evaluate]."
            )
        from ..pipeline.run import run_stage
        from ..pipeline.session import open_session

        session = open_session(configured(config, workspace, changes), progress_for(quiet))
        run_stage(session, "evaluate")
        print_json({"scores": str(session.run.scores)}) if as_json else print_lines([f"Scores: {session.run.scores}"])
        return
    if truth is None or prediction is None:
        raise ConfigError("evaluate: give both --truth DIR and --prediction DIR, or a configuration of a run.")
    if config is not None or workspace is not None or changes:
        raise ConfigError(
            "evaluate: masks of --truth and --prediction are scored without a configuration; leave out CONFIG, "
            "--workspace and --set."
        )
    from ..data.layouts import ImportOptions
    from ..pipeline.evaluate_folders import evaluate_folders

    table = evaluate_folders(
        truth,
        prediction,
        preset=preset,
        tolerance_mm=tolerance_mm,
        output=output,
        options=ImportOptions(subject_pattern=subject_pattern, masks=meaning_of(masks)),
        progress=progress_for(quiet),
    )
    if as_json:
        print_json(table)
        return
    for name, row in table["summary"].items():
        print_lines([f"{name:<28} {_told(row, row['unit'])}"])
        if "where_held" in row:
            print_lines([f"{'  where the reference has it':<28} {_told(row['where_held'], row['unit'])}"])
    print_lines([f"note: {note}" for note in table["notes"]])


def _told(row: Mapping[str, Any], unit: str) -> str:
    mean, worst = row["mean"], row["mean_worst"]
    shown = "undefined" if mean is None else f"{mean:.4f}"
    if row["interval"]:
        low, high = row["interval"]
        shown += f" ({low:.4f} to {high:.4f})"
    with_worst = "" if worst is None or worst == mean else f", with the worst value put in {worst:.4f}"
    return f"{shown} {unit}  (n {row['n']}, undefined {row['n_undefined']}{with_worst})"
