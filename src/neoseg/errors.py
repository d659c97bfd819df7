"""Every error that neoseg raises on purpose, as one tree.

    NeosegError            exit code 1: neoseg could not do its part
      Stopped              exit code 128 + signal: someone asked the program to end
      MachineError         the machine lacks disk, memory or a process; nothing that was given is wrong
      UserError            exit code 2: something given by the user has to change
        InputError         a file, an image, a label, a case
          GeometryError    grids, axes, spacings, fields of view
        ConfigError        a key or value of a configuration, a plan, a command line
        StateError         a workspace or run folder in a state that the call cannot use

A message is one sentence: it names the file or key, what was given, what was wanted, and what to do.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable

__all__ = [
    "ConfigError",
    "GeometryError",
    "InputError",
    "MachineError",
    "NeosegError",
    "StateError",
    "Stopped",
    "UserError",
    "nearest",
]


class NeosegError(Exception):
    """Root of the deliberate errors; the message is one complete sentence for a person, on one line.

    What is quoted in it (a file name, a key, a library's reason) may hold line breaks; they become spaces.
    """

    exit_code = 1

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(line.strip() for line in str(message).splitlines()))


class Stopped(NeosegError):  # noqa: N818 - it is an ending, not an error
    """The work ended because a signal asked for it; what was done is kept.

    Attributes:
        number: of the signal; the exit code is 128 more, as shells have it.
    """

    def __init__(self, number: int, kept: str = "") -> None:
        super().__init__(f"Stopped by {signal.Signals(number).name}{kept}; the same command goes on from here.")
        self.number = number
        self.exit_code = 128 + number


class MachineError(NeosegError):
    """The machine lacks disk space, memory or a process; the work under way ends, and its inputs are not to blame."""


class UserError(NeosegError):
    """Something that the user gave has to change."""

    exit_code = 2


class InputError(UserError):
    """A file, image, label or case that cannot be used as it is."""


class GeometryError(InputError):
    """A grid, axis or spacing that cannot be used as it is."""


class ConfigError(UserError):
    """A key or value of a configuration that cannot be used as it is."""


class StateError(UserError):
    """A workspace or run folder that is not in the state which the call needs."""


def nearest(given: str, valid: Iterable[str]) -> str:
    """Return the valid name closest to the given one, or all of them when none is close: " (did you mean 'x'?)"."""
    names = sorted(valid)
    spelt = {given.lower().replace("-", "_").replace("++", plus) for plus in ("_plus_plus", "_pp")}
    if meant := [name for name in names if name in spelt and name != given]:
        return f" (did you mean {meant[0]!r}?)"
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(names)})" if names else ""
