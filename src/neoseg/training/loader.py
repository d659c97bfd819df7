"""Batches in the order of the steps: made when they are asked for, or ahead of time in a thread beside a GPU."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from ..errors import NeosegError
from .batch import Batch, StepParts, make_batch

__all__ = ["Loader", "loading"]

AHEAD = 2
"""Batches that are kept ready beside a GPU."""

LIMIT_S = 600.0
"""Longest wait for one batch."""

Make = Callable[[int, int], Batch]
"""(step, part) -> batch, the same bits whenever it is called."""


class Loader:
    """Gives the batches of the steps and measures how long the steps waited for them.

    On a CPU a batch is made in line with the step that asks for it: the processor that would make it ahead of time is
    the one that computes the step, so the wait is all the time that reading, cutting and augmentation take. Beside a
    GPU a thread makes batches ahead, and the wait is what remains of it.

    Attributes:
        waited_s: seconds that the steps have waited for batches.
    """

    def __init__(self, make: Make, first: int, last: int, parts: int, ahead: int) -> None:
        """Prepare; nothing is made yet.

        Args:
            make: makes a batch.
            first, last: steps done before the first batch, and after the last one.
            parts: batches of a step.
            ahead: batches that are kept ready; 0 makes each when it is asked for.
        """
        self.waited_s = 0.0
        self._make = make
        self._order = ((step, part) for step in range(first, last) for part in range(parts))
        self._ready: queue.Queue[tuple[int, int, Batch] | BaseException] = queue.Queue(max(1, ahead))
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="loader", daemon=True) if ahead else None
        if self._thread is not None:
            self._thread.start()

    def take(self, step: int, part: int = 0) -> Batch:
        """Return a batch; asked for in the order of the steps.

        Raises:
            NeosegError: the thread ended or stands still; an error of its own is raised as it is.
        """
        start = time.perf_counter()
        try:
            return self._make(step, part) if self._thread is None else self._next(step, part)
        finally:
            self.waited_s += time.perf_counter() - start

    def close(self) -> None:
        """End the thread; a batch under way is finished first."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(LIMIT_S)

    def _next(self, step: int, part: int) -> Batch:
        assert self._thread is not None
        end = time.monotonic() + LIMIT_S
        while True:
            alive = self._thread.is_alive()
            try:
                found = self._ready.get(timeout=1.0)
            except queue.Empty:
                if not alive:
                    raise NeosegError(
                        f"The thread that makes the batches has ended without a word before step {step + 1}; start the "
                        "same command again, it goes on from the last checkpoint."
                    ) from None
                if time.monotonic() > end:
                    raise NeosegError(
                        f"No batch for step {step + 1} came within {LIMIT_S:.0f} s; look whether the disk of the "
                        "prepared cases answers, then start the same command again."
                    ) from None
                continue
            if isinstance(found, BaseException):
                raise found
            if found[:2] != (step, part):
                raise ValueError(f"batch {found[:2]} is ready, but {(step, part)} was asked for")
            return found[2]

    def _work(self) -> None:
        try:
            for step, part in self._order:
                self._hand_over((step, part, self._make(step, part)))
                if self._closed.is_set():
                    return
        except BaseException as error:  # the training has to hear of it, whatever it is
            self._hand_over(error)

    def _hand_over(self, item: tuple[int, int, Batch] | BaseException) -> None:
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._ready.put(item, timeout=0.2)
                return


@contextmanager
def loading(parts: StepParts, first: int, last: int) -> Iterator[Loader]:
    """Give the loader of the steps from first to last, and end its thread with the block."""
    beside = torch.cuda.Stream(parts.device) if parts.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def make(step: int, part: int) -> Batch:
        return make_batch(parts, step, part, beside)

    loader = Loader(make, first, last, parts.config.accumulate, AHEAD if beside is not None else 0)
    try:
        yield loader
    finally:
        loader.close()
