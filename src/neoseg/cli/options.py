"""The options that several commands share, each written once."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ..config import RunConfig
    from ..data.layouts.imported import Meaning

__all__ = [
    "Changes",
    "ConfigFile",
    "Device",
    "Epochs",
    "Fold",
    "Folds",
    "FoldsBesideCases",
    "FoldsSideBySide",
    "InitFrom",
    "Json",
    "Masks",
    "Quiet",
    "Steps",
    "SubjectPattern",
    "Time",
    "WorkspaceFolder",
    "configured",
    "folds_of",
    "length_of",
    "meaning_of",
    "seconds_in",
]

ConfigFile = Annotated[Path | None, typer.Argument(help="Configuration (TOML); default: neoseg.toml in the workspace.")]
SubjectPattern = Annotated[
    str | None,
    typer.Option(
        "--subject-pattern",
        metavar="REGEX",
        help="Regular expression that finds the subject in the name of a case: its first group, else all of it.",
    ),
]
Masks = Annotated[
    str | None,
    typer.Option(
        "--masks", help="What the values of masks are: classes, or instances of one class; default: told, or asked."
    ),
]
WorkspaceFolder = Annotated[Path | None, typer.Option("--workspace", help="Folder of results and of neoseg.toml.")]
Changes = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change one field; repeatable.")]
Device = Annotated[str | None, typer.Option("--device", "-device", help="auto, cpu, cuda or cuda:N.")]
Fold = Annotated[int | None, typer.Option("--fold", "-f", min=0, help="Only this fold, counted from 0.")]
InitFrom = Annotated[
    Path | None,
    typer.Option(
        "--init-from",
        metavar="FOLDER",
        help="Start from the weights of another finished run, or from a folder that `neoseg weights convert` wrote. "
        "With other channels or classes the stem or the heads start anew.",
    ),
]
Folds = Annotated[str | None, typer.Option("--folds", metavar="LIST", help="'all', or these folds, such as 0,2.")]
FoldsSideBySide = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Train N folds side by side, each in a process of its own with its share of the CPU threads, or with a "
        "GPU of its own where there are several. Sets fold_jobs.",
    ),
]
FoldsBesideCases = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="Prepare N cases and train N folds side by side, each in a process of its own. Sets jobs and fold_jobs.",
    ),
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, metavar="N", help="Length of each fold: N epochs.")]
Steps = Annotated[int | None, typer.Option("--steps", min=1, metavar="N", help="Length of each fold: N steps.")]
Time = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="TIME",
        help="Length of each fold: the steps that fit into 90s, 30m, 2h or 1h30m with the validations between them. "
        "Five folds one after another take five times as long.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, only the result.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]


def configured(
    path: Path | None,
    workspace: Path | None,
    changes: list[str] | None,
    device: str | None = None,
    length: dict[str, float] | None = None,
    init_from: Path | None = None,
) -> RunConfig:
    """Load the configuration that a command was given; paths among the options are relative to the current folder."""
    from ..config import load_config

    found = path if path is not None else (workspace or Path()) / "neoseg.toml"
    more = [*(changes or []), *([f'device="{device}"'] if device else [])]
    if init_from is not None:
        more.append(f"init_from={json.dumps(str(init_from.absolute()), ensure_ascii=False)}")
    return load_config(found, more, workspace, length=length)


def folds_of(fold: int | None, folds: str | None) -> list[int] | None:
    """Return the folds that --fold and --folds name; None for all.

    Raises:
        ConfigError: both were given, or a list that cannot be read.
    """
    from ..errors import ConfigError

    if fold is not None and folds is not None:
        raise ConfigError(f"--fold {fold} and --folds {folds} both say which folds; give one of them.")
    if fold is not None:
        return [fold]
    if folds is None or folds.strip().lower() == "all":
        return None
    parts = [part.strip() for part in folds.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--folds {folds}: 'all' or the numbers of folds are wanted, counted from 0, such as 0,2.")
    return [int(part) for part in parts]


def length_of(epochs: int | None, steps: int | None, time: str | None) -> dict[str, float]:
    """Return the field of [training] that the options --epochs, --steps and --time set; empty when none was given.

    Raises:
        ConfigError: two of them, or a time that cannot be read.
    """
    from ..errors import ConfigError

    given = {"epochs": epochs, "steps": steps, "time_budget_s": None if time is None else seconds_in(time)}
    found = {field: value for field, value in given.items() if value is not None}
    if len(found) > 1:
        names = {"epochs": f"--epochs {epochs}", "steps": f"--steps {steps}", "time_budget_s": f"--time {time}"}
        told = " and ".join(names[field] for field in found)
        raise ConfigError(f"{told} {'both' if len(found) == 2 else 'all'} set the length of the training; give one.")
    return found


def meaning_of(masks: str | None) -> Meaning | None:
    """Return what --masks says.

    Raises:
        ConfigError: a word that is neither.
    """
    from ..errors import ConfigError

    match masks:
        case None | "classes" | "instances":
            return masks
    raise ConfigError(f"--masks {masks}: classes or instances is wanted.")


def seconds_in(text: str) -> float:
    """Return the seconds of a time such as "90s", "30m", "2h" or "1h30m".

    Raises:
        ConfigError: the text is no such time, or none at all.
    """
    from ..errors import ConfigError

    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip().lower())
    parts = [float(part or 0) for part in found.groups()] if found else [0.0]
    seconds = sum(part * unit for part, unit in zip(parts, (3600, 60, 1), strict=False))
    if found is None or not 0 < seconds < float("inf"):
        raise ConfigError(f"--time {text}: a time longer than zero is wanted, written as 90s, 30m, 2h or 1h30m.")
    return seconds
