"""The same function over many items, in this process or in worker processes, with progress and without losing the rest
when one item fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

from ..errors import MachineError, NeosegError, Stopped, UserError
from ..progress import Progress

__all__ = ["Outcome", "run_all", "run_each", "values"]

T = TypeVar("T")
R = TypeVar("R")

LONGEST_S = 4 * 3600.0
"""Seconds that a worker may take over one item; a case takes minutes, so one that takes hours hangs."""


@dataclass(frozen=True)
class Outcome(Generic[R]):
    """What became of one item: its value, or the sentence that says why there is none."""

    value: R | None
    error: str | None
    user_error: bool = False


def run_each(
    function: Callable[[T], R], items: Sequence[T], *, title: str, progress: Progress, jobs: int = 0
) -> list[Outcome[R]]:
    """Call ``function`` on every item; results come in the order of the items, whatever the number of jobs.

    Args:
        function: picklable when ``jobs`` > 0 (a module-level function or a ``functools.partial`` of one).
        items: what to work on.
        title: what the progress bar says.
        progress: the listener.
        jobs: worker processes; 0 or 1 works in this process and starts none. Workers use one thread each, whatever
            library it is of: BLAS, OpenMP, torch, ITK.

    Returns:
        One outcome an item. Deliberate errors (:class:`NeosegError`) become outcomes; a defect ends the run.

    Raises:
        MachineError: the disk is full or memory is short, or a worker died or hung: no item is to blame.
        Stopped: a signal asked for the end.
    """
    call = _Guarded(function)
    outcomes: list[Outcome[R]] = []
    with progress.track(title, len(items)) as advance:
        if jobs <= 1 or len(items) <= 1:
            for item in items:
                outcomes.append(call(item))
                advance(1, _name(item))
            return outcomes
        from joblib import Parallel, delayed, parallel_config

        with parallel_config("loky", n_jobs=jobs, inner_max_num_threads=1):
            parallel = Parallel(return_as="generator", batch_size=1, timeout=LONGEST_S)
        with _workers_in_words(title, items, outcomes):
            for item, outcome in zip(items, parallel(delayed(_in_worker)(call, item) for item in items), strict=True):
                outcomes.append(outcome)
                advance(1, _name(item))
    return outcomes


def values(outcomes: Sequence[Outcome[R]]) -> list[R]:
    """Return the values of all outcomes.

    Raises:
        UserError, NeosegError: the first error among them.
    """
    for outcome in outcomes:
        if outcome.error is not None:
            raise (UserError if outcome.user_error else NeosegError)(outcome.error)
    return [outcome.value for outcome in outcomes]  # type: ignore[misc]


def run_all(
    function: Callable[[T], R], items: Sequence[T], *, title: str, progress: Progress, jobs: int = 0
) -> list[R]:
    """Like :func:`run_each`, but every item must succeed."""
    return values(run_each(function, items, title=title, progress=progress, jobs=jobs))


class _Guarded(Generic[T, R]):
    def __init__(self, function: Callable[[T], R]) -> None:
        self.function = function

    def __call__(self, item: T) -> Outcome[R]:
        try:
            return Outcome(self.function(item), None)
        except (Stopped, MachineError):
            raise
        except NeosegError as error:
            return Outcome(None, str(error), isinstance(error, UserError))
        except MemoryError as error:
            raise MachineError(
                f"{_name(item) or 'An item'}: there is not enough memory for this ({error}); set `jobs` to a smaller "
                "number or use a machine with more of it: the same command goes on from here."
            ) from error


@contextmanager
def _workers_in_words(title: str, items: Sequence[T], done: Sequence[Outcome[R]]) -> Iterator[None]:
    """Say what happened when a worker process dies or hangs.

    Raises:
        MachineError: naming the item that was waited for.
    """
    from multiprocessing import TimeoutError as NoAnswer

    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import BrokenProcessPool

    try:
        yield
    except BrokenProcessPool as error:
        raise MachineError(
            f"{title}: a worker process died at {_name(items[len(done)]) or 'an item'} or beside it, often because "
            "memory ran out; set `jobs` to a smaller number (0 starts no workers): the same command goes on from here."
        ) from error
    except (TimeoutError, NoAnswer) as error:
        get_reusable_executor().shutdown(wait=False, kill_workers=True)
        raise MachineError(
            f"{title}: {_name(items[len(done)]) or 'an item'} gave no answer for {LONGEST_S:g} s, so the workers were "
            "ended; look at this case, or set `jobs` to 0 to see where it hangs: the same command goes on from here."
        ) from error


def _in_worker(call: _Guarded[T, R], item: T) -> Outcome[R]:
    _one_itk_thread()
    return call(item)


@cache
def _one_itk_thread() -> None:
    """Cap ITK's threads in a worker, once: it has a pool of its own, which joblib's cap does not reach."""
    import SimpleITK as sitk  # noqa: N813

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)


def _name(item: object) -> str:
    return str(getattr(item, "case", "")) or (item if isinstance(item, str) else "")
