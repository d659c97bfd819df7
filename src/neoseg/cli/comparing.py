"""compare: finished runs beside each other."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_json, print_lines, print_table
from .options import Json

__all__ = ["compare"]


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Two or more finished run folders.")],
    metric: Annotated[str, typer.Option("--metric", help="The metric that decides.")] = "dice",
    label: Annotated[
        str | None, typer.Option("--label", help="One class or region; default: the mean over those of each case.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="held_out or cv; default: held_out where every run has such cases, else cv."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="NAME",
            help="Also write NAME.csv, NAME.json, NAME.md and the figure NAME.png; a folder that exists gets "
            "compare.csv and so on.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare finished runs on the cases that they share: scores with intervals, a paired test, size, memory, time."""
    from ..pipeline.compare_finished import compare_finished
    from ..report.comparison_table import ENDINGS, tables, write_comparison

    found = compare_finished(runs, metric=metric, label=label, split=split)
    written = []
    if output is not None:
        base = output / "compare" if output.is_dir() else output
        written = write_comparison(found, base.with_suffix("") if base.suffix in ENDINGS else base)
    if as_json:
        print_json(found.to_json())
        return
    print_lines([f"{found.heading}; best first."])
    for table in tables(found):
        print_table(table.columns, table.rows)
    print_lines([*found.notes, *(f"Written: {path}" for path in written)])
