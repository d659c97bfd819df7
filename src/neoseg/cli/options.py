"""The options that several commands share, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..config import RunConfig

__all__ = ["Changes", "ConfigFile", "Device", "Fold", "Json", "Quiet", "WorkspaceFolder", "configured"]

ConfigFile = Annotated[Path | None, typer.Argument(help="Configuration (TOML); default: neoseg.toml in the workspace.")]
WorkspaceFolder = Annotated[Path | None, typer.Option("--workspace", help="Folder of results and of neoseg.toml.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one field; repeatable.")]
Device = Annotated[str | None, typer.Option("--device", "-device", help="auto, cpu, cuda or cuda:N.")]
Fold = Annotated[int | None, typer.Option("--fold", "-f", min=0, help="Only this fold, counted from 0.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def configured(
    path: Path | None, workspace: Path | None, changes: list[str] | None, device: str | None = None
) -> RunConfig:
    """Load the configuration that a command was given."""
    from ..config import load_config

    found = path if path is not None else (workspace or Path()) / "neoseg.toml"
    more = [*(changes or []), *([f'device="{device}"'] if device else [])]
    return load_config(found, more, workspace)
