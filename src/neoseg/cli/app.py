"""The list of all commands, and the exit code of each ending."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

import typer

from .. import __version__
from ..errors import ConfigError, NeosegError, Stopped
from ..machine import refused
from ..training.launch import launched
from . import atlas_commands, comparing, data, evaluation, run_commands, volume_commands, weights_commands

__all__ = ["app", "run"]

BROKEN_PIPE = 141
"""Exit code of a program whose reader went away: 128 and SIGPIPE, a number that Windows does not know."""

app = typer.Typer(
    name="neoseg",
    help="Segment medical images with UNETR++, from a folder of scans to a report; made for lesions of the newborn "
    "brain. Research use only.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", help="Print the version and exit.", is_eager=True),
) -> None:
    """Segment medical images with UNETR++, from a folder of scans to a report. Research use only."""
    if show:
        print(__version__)
        raise typer.Exit
    command, world = context.invoked_subcommand, launched().world
    if world > 1 and command != "train":
        raise ConfigError(
            f"neoseg {command}: torchrun started {world} processes, but only `neoseg train` shares work among them; "
            "run this command without torchrun."
        )


COMMANDS: dict[str, Callable[..., None]] = {
    "demo": run_commands.demo,
    "import": data.import_,
    "check": data.check,
    "plan": run_commands.plan,
    "prepare": run_commands.prepare,
    "prepare-volume": volume_commands.prepare_volume,
    "train": run_commands.train,
    "predict": run_commands.predict,
    "evaluate": evaluation.evaluate,
    "report": run_commands.report,
    "run": run_commands.run,
    "compare": comparing.compare,
    "reproduce": run_commands.reproduce,
    "atlas": atlas_commands.atlas,
    "info": data.info,
}

GROUPS: dict[str, typer.Typer] = {"weights": weights_commands.weights}
"""Commands that have commands of their own."""

for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def run() -> int:
    """Run the command line and return its exit code.

    0 well, 1 our failure, 2 a user's mistake, 130 stopped by SIGINT, 143 by SIGTERM.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        code = app(standalone_mode=False)
    except NeosegError as error:
        if isinstance(error, Stopped):
            # Somebody who asks again need not wait until worker processes have ended.
            signal.signal(error.number, signal.SIG_DFL)
        return _said(str(error), error.exit_code)
    except BrokenPipeError:
        # Whoever read the output has seen enough; the interpreter must not try to write the rest when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        told = refused(error)
        if told is not None:
            return _said(str(told), told.exit_code)
        usage = getattr(error, "format_message", None)
        if usage is not None:
            context = getattr(error, "ctx", None)
            hint = f" Try `{context.command_path} --help`." if context is not None else ""
            return _said(f"{usage()}{hint}", int(getattr(error, "exit_code", 2)))
        import traceback

        traceback.print_exc()
        return _said(f"a failure of neoseg itself ({type(error).__name__}); please report the lines above.", 1)
    return int(code or 0)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def _said(sentence: str, code: int) -> int:
    # not launched(): what it says about wrong variables has to be printed as well
    rank = os.environ.get("RANK", "0") if "WORLD_SIZE" in os.environ else "0"
    print(f"neoseg{'' if rank == '0' else f', process {rank}'}: {sentence}", file=sys.stderr)
    return code
