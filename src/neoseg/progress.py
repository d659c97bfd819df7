"""How long work tells what it is doing, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

__all__ = ["Advance", "Progress", "Silent"]

Advance = Callable[[int, str], None]
"""Call with (steps done since the last call, short text that describes the state now)."""


class Progress(Protocol):
    """A listener: the command line shows bars with an ETA, a test or a service may collect or ignore."""

    def track(self, title: str, total: int) -> AbstractContextManager[Advance]:
        """Open a piece of work of ``total`` steps; the context gives the function to call after each step."""
        ...

    def say(self, sentence: str) -> None:
        """Pass on one sentence of information."""
        ...


class Silent:
    """The listener that shows nothing."""

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        """Accept steps and show nothing."""
        yield lambda steps, text: None

    def say(self, sentence: str) -> None:
        """Show nothing."""
