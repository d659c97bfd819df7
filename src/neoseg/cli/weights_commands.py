"""weights: checkpoint files of the authors' code, looked at and converted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import print_json, print_lines
from .options import Json

__all__ = ["weights"]

weights = typer.Typer(
    help="Look at checkpoint files of the authors' code of UNETR++, and convert them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@weights.command()
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="IN", help="Checkpoint file; or a folder of ours: converted weights, fold0/best of a run."
        ),
    ],
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder for a checkpoint file, file for a folder.")],
    variant: Annotated[
        str | None, typer.Option("--variant", help="synapse, acdc, tumor or lung; default: told from the weights.")
    ] = None,
    native_orientation: Annotated[
        str | None,
        typer.Option(
            "--native-orientation",
            help="Where each axis of the arrays that IN was trained on leads, such as SPL; noted in OUT, and needed to "
            "train from it or predict with it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Convert a checkpoint file of the authors' code to a folder of ours, or such a folder back to a file.

    `neoseg run CONFIG --init-from FOLDER` starts a training from such a folder, and names the settings that it needs.
    Nothing in a checkpoint file is run. Only networks of layout "legacy" with three outputs can go back.
    """
    from ..pipeline.convert_weights import convert_weights

    facts = convert_weights(source, output, variant=variant, native_orientation=native_orientation)
    if as_json:
        print_json(facts)
    else:
        name = f", variant {facts['variant']}" if facts["variant"] else ""
        print_lines([f"Written: {facts['written']} ({facts['parameters']:,} parameters{name})"])


@weights.command()
def info(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint file of the authors' code.")],
    as_json: Json = False,
) -> None:
    """Show what a checkpoint file holds: variant, parameters, channels, classes, patch, orientation."""
    from ..networks.published_file import describe

    facts = describe(source)
    if as_json:
        print_json(facts)
        return
    width = max(len(key) for key in facts)
    print_lines([f"{key:<{width}}  {'unknown' if value is None else value}" for key, value in facts.items()])
