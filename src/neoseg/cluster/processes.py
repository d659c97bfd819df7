"""The same function over a few items, each in a process of its own, some at a time: for work that takes long and has
threads of its own, such as the training of a fold.

What one process does cannot harm the others: a failure, a defect, a kill of one is told, and the rest goes on. A
request to stop (SIGINT, SIGTERM) reaches each process once, through the first one, so that each can keep its state.
When the first process dies outright, the others notice and stop in the same way.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, TypeVar

from ..errors import ConfigError, NeosegError, Stopped, UserError
from ..machine import refused
from ..progress import Advance, Progress
from ..training.interrupt import stop_request
from .local import Outcome
from .main_guard import UNGUARDED, WORDS, require_main_guard

__all__ = ["run_here", "run_side_by_side"]

T = TypeVar("T")
R = TypeVar("R")

STOP_WITHIN_S = 600.0
"""A process that was asked to stop and has not ended after this long is killed; a step takes seconds."""

TOLD_EVERY_S = 0.2
"""Steps of one bar are gathered this long before they are sent."""


ONE_BY_ONE = (
    "Several jobs at a time need POSIX signals, which this system does not have; they are done one after the other. In "
    "WSL they run side by side."
)


@dataclass
class _Child:
    """A process at work.

    Attributes:
        index: of its item.
        slot: place among those that run at a time, from 0.
        process: itself.
        messages: from it.
        control: closed to make it stop.
        bars: open bars by its number for them.
        outcome: of the item, once it has been told.
        stopped: the sentence of one that ended because it was asked to.
    """

    index: int
    slot: int
    process: Any
    messages: Connection
    control: Connection
    bars: dict[int, tuple[ExitStack, Advance]] = field(default_factory=dict)
    outcome: Outcome[Any] | None = None
    stopped: str | None = None


def run_side_by_side(
    function: Callable[[T, int, Progress], R], items: Sequence[T], *, jobs: int, progress: Progress
) -> list[Outcome[R]]:
    """Call ``function(item, slot, progress)`` on every item, each in a new process; results in the order of the items.

    Without POSIX signals (Windows) it says so and works as :func:`run_here`.

    Args:
        function: picklable: a module-level function or a ``functools.partial`` of one. ``slot`` counts the processes
            that run at a time, 0 to ``jobs - 1``; no two that run together have the same.
        items: picklable.
        jobs: processes at a time.
        progress: hears what all processes tell, under their own titles.

    Returns:
        One outcome an item. Errors, defects and kills become outcomes; the lines of a defect go to stderr.

    Raises:
        Stopped: SIGINT or SIGTERM arrived; every process has ended.
        ConfigError: this process is a worker itself and may not start others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        # Windows: workers could neither be kept from hearing Ctrl-C nor be asked to keep their state
        if jobs > 1 and len(items) > 1:
            progress.say(ONE_BY_ONE)
        return run_here(function, items, progress=progress)
    require_main_guard()
    if multiprocessing.current_process().daemon:
        raise ConfigError("This process is a worker that may not start others; ask for one job instead.")
    waiting, free = deque(enumerate(items)), deque(range(jobs))
    running: list[_Child] = []
    ended: dict[int, _Child] = {}
    deadline: float | None = None
    with stop_request() as stop:
        try:
            while running or (waiting and stop.number is None):
                while waiting and free and stop.number is None:
                    index, item = waiting.popleft()
                    running.append(_started(function, item, index, free.popleft()))
                if stop.number is not None and deadline is None:
                    deadline = time.monotonic() + STOP_WITHIN_S
                    progress.say("Stopping: each process keeps its state first.")
                    for child in running:
                        child.control.close()
                if deadline is not None and time.monotonic() > deadline:
                    break
                for ready in wait([child.messages for child in running], timeout=0.5):
                    child = next(c for c in running if c.messages is ready)
                    if not _heard(child, progress):
                        running.remove(child)
                        free.append(child.slot)
                        ended[child.index] = child
        finally:
            for child in running:
                child.process.kill()
                _close(child)
    if stop.number is not None:
        kept = all(child.stopped or child.outcome for child in ended.values()) and not running
        raise Stopped(stop.number, "; what was done is kept" if kept else "")
    return [_outcome(ended[index]) for index in range(len(items))]


def run_here(function: Callable[[T, int, Progress], R], items: Sequence[T], *, progress: Progress) -> list[Outcome[R]]:
    """Like :func:`run_side_by_side`, in this process, one item after the other.

    Raises:
        Stopped: SIGINT or SIGTERM arrived.
    """
    return [_tried(function, item, 0, progress) for item in items]


def _tried(function: Callable[[T, int, Progress], R], item: T, slot: int, progress: Progress) -> Outcome[R]:
    try:
        return Outcome(function(item, slot, progress), None)
    except Stopped:
        raise
    except NeosegError as error:
        return Outcome(None, str(error), isinstance(error, UserError))
    except Exception as error:
        if (told := refused(error)) is not None:
            return Outcome(None, str(told), isinstance(told, UserError))
        traceback.print_exc()
        return Outcome(
            None, f"a failure of neoseg itself ({type(error).__name__}: {error}); please report the lines above."
        )


def _started(function: Callable[[T, int, Progress], R], item: T, index: int, slot: int) -> _Child:
    """Start a process that is deaf to Ctrl-C, which a terminal sends to all; it is stopped through its control."""
    context = multiprocessing.get_context("spawn")
    messages, theirs = context.Pipe(duplex=False)
    asked, control = context.Pipe(duplex=False)
    # It is started here because its start would take the signal from the mask again.
    resource_tracker.ensure_running()
    process = context.Process(target=_work, args=(function, item, slot, theirs, asked), name=f"neoseg job {index}")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        asked.close()
    return _Child(index, slot, process, messages, control)


def _heard(child: _Child, progress: Progress) -> bool:
    """Take in one message; tell whether there may be more."""
    try:
        kind, *words = child.messages.recv()
    except (EOFError, OSError):
        _close(child)
        return False
    match kind:
        case "track":
            number, title, total = words
            stack = ExitStack()
            child.bars[number] = stack, stack.enter_context(progress.track(title, total))
        case "advance":
            number, steps, text = words
            child.bars[number][1](steps, text)
        case "end":
            child.bars.pop(words[0])[0].close()
        case "say":
            progress.say(words[0])
        case "stopped":
            child.stopped = words[0]
        case _:
            child.outcome = words[0]
    return True


def _close(child: _Child) -> None:
    child.process.join(60)
    if child.process.is_alive():
        child.process.kill()
        child.process.join()
    child.messages.close()
    child.control.close()
    while child.bars:
        child.bars.popitem()[1][0].close()


def _outcome(child: _Child) -> Outcome[Any]:
    if child.outcome is not None:
        return child.outcome
    if child.stopped is not None:
        return Outcome(None, child.stopped)
    code = child.process.exitcode
    if code == UNGUARDED:
        return Outcome(None, WORDS, True)
    how = f"killed by {signal.Signals(-code).name}" if code and code < 0 else f"ended with exit code {code}"
    hint = ", often because memory ran out" if code == -signal.SIGKILL else ""
    return Outcome(None, f"its process was {how}{hint}; the same command goes on from here.")


class _Relay:
    """The listener inside a process: passes everything on to the first one."""

    def __init__(self, messages: Connection) -> None:
        self.messages = messages
        self.count = 0

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        """Open a bar in the first process."""
        number, self.count = self.count, self.count + 1
        gathered, last, told = 0, time.monotonic(), ""
        self.send("track", number, title, total)

        def advance(steps: int, text: str) -> None:
            nonlocal gathered, last, told
            gathered, told = gathered + steps, text
            if time.monotonic() - last >= TOLD_EVERY_S:
                self.send("advance", number, gathered, told)
                gathered, last = 0, time.monotonic()

        try:
            yield advance
        finally:
            self.send("advance", number, gathered, told)
            self.send("end", number)

    def say(self, sentence: str) -> None:
        """Pass on one sentence."""
        self.send("say", sentence)

    def send(self, *message: Any) -> None:
        """Send a message; without a first process nobody listens, and the watch ends the work."""
        with suppress(OSError):
            self.messages.send(message)


def _work(
    function: Callable[[Any, int, Progress], Any], item: Any, slot: int, messages: Connection, asked: Connection
) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    signal.signal(signal.SIGTERM, _stop)
    noticed, writes = socket.socketpair()
    writes.setblocking(False)
    signal.set_wakeup_fd(writes.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(asked, noticed), name="watch for the end", daemon=True).start()
    relay = _Relay(messages)
    try:
        relay.send("outcome", _tried(function, item, slot, relay))
    except Stopped as stopped:
        relay.send("stopped", str(stopped))
    finally:
        messages.close()


def _watch(asked: Connection, noticed: socket.socket) -> None:
    """Turn the end of the control, which the death of the first process is too, into one SIGTERM.

    Where the signal has come already, as it does when all processes of a group get it, it is not sent twice: a second
    one would end the work before its state is kept.
    """
    seen = False
    while True:
        ready = wait([asked, noticed])
        if noticed in ready:
            seen |= signal.SIGTERM in noticed.recv(64)
        if asked in ready:
            break
    if not seen:
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_WITHIN_S)
    os._exit(128 + signal.SIGTERM)


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)
