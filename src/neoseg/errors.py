"""Every error that neoseg raises on purpose, as one tree.

    NeosegError            exit code 1: neoseg could not do its part
      UserError            exit code 2: something given by the user has to change
        InputError         a file, an image, a label, a case
          GeometryError    grids, axes, spacings, fields of view
        ConfigError        a key or value of a configuration, a plan, a command line
        StateError         a workspace or run folder in a state that the call cannot use

A message is one sentence: it names the file or key, what was given, what was wanted, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["ConfigError", "GeometryError", "InputError", "NeosegError", "StateError", "UserError", "nearest"]


class NeosegError(Exception):
    """Root of the deliberate errors; the message is one complete sentence for a person."""

    exit_code = 1


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
    close = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (valid: {', '.join(names)})" if names else ""
