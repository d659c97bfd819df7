"""Signals that ask a training to end, kept until a moment at which its state can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ..errors import Stopped

__all__ = ["StopRequest", "stop_request"]

ASKING = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether somebody has asked for the end.

    Attributes:
        number: of the signal, None before the first.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def obey(self, kept: str = "") -> None:
        """End the work when it was asked for.

        Args:
            kept: what is safe by now, such as " after step 12".

        Raises:
            Stopped: it was.
        """
        if self.number is not None:
            raise Stopped(self.number, kept)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Note SIGINT and SIGTERM instead of dying at once; a second one ends the program where it stands.

    Outside the main thread, where signals do not arrive, the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            raise Stopped(number)
        request.number = number

    before = {number: signal.signal(number, note) for number in ASKING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
