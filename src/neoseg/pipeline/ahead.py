"""New scans read and prepared: one by one in this process, or some of them ahead in processes beside it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from ..cluster.local import Outcome
from ..cluster.main_guard import require_main_guard
from ..data.cases import Case
from ..data.loading import LoadedImages, load_images
from ..errors import InputError, MachineError, UserError
from ..inference.heap import give_back
from ..inference.predictor import Ready, Steps

__all__ = ["ReadyScan", "ready_scans"]


@dataclass(frozen=True, eq=False)
class ReadyScan:
    """A scan as the networks want it, with what was noted when it was read."""

    ready: Ready
    notes: tuple[str, ...]


def ready_scans(
    steps: Steps,
    scans: Sequence[Case],
    channels: Sequence[str],
    jobs: int = 0,
    *,
    usual: Mapping[str, str] | None = None,
) -> Iterator[Outcome[ReadyScan]]:
    """Give the scans in their order, each prepared, or the sentence that says why it could not be.

    Args:
        steps: how a scan is prepared.
        scans: which ones.
        channels: those that a scan has to bring.
        jobs: processes that prepare ahead; at most as many scans wait to be taken. 0 starts none, and prepares each
            scan when it is asked for.
        usual: units of the training cases, see :func:`neoseg.data.loading.load_images`.

    Raises:
        MachineError: a process beside this one died.
    """
    if not jobs:
        for scan in scans:
            ready = _ready(steps, scan, channels, usual or {})
            give_back()
            yield ready
            del ready  # or it would stay in memory beside the next one
        return
    require_main_guard()
    # A process made by fork would inherit the threads' locks of torch and ITK, held or not.
    pool = ProcessPoolExecutor(
        min(jobs, len(scans)), get_context("spawn"), _remember, (steps, tuple(channels), dict(usual or {}))
    )
    waiting: deque[Future[Outcome[ReadyScan]]] = deque()
    try:
        for scan in scans:
            waiting.append(pool.submit(_remembered, scan))
            if len(waiting) >= jobs:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool as error:
        raise MachineError(
            "A process that prepared scans ahead died, which is most often for want of memory; run again with fewer "
            "--jobs, or with --jobs 0."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_WORK: dict[str, tuple[Steps, Sequence[str], Mapping[str, str]]] = {}
"""In a process beside the first: what it was given once, for all its scans."""


def _remember(steps: Steps, channels: Sequence[str], usual: Mapping[str, str]) -> None:
    import SimpleITK as sitk  # noqa: N813
    import torch

    torch.set_num_threads(1)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    _WORK["given"] = (steps, channels, usual)


def _remembered(scan: Case) -> Outcome[ReadyScan]:
    steps, channels, usual = _WORK["given"]
    return _ready(steps, scan, channels, usual)


def _showing_nothing(scan: Case, loaded: LoadedImages) -> list[str]:
    """Return a sentence for each channel of a volume that has one value throughout.

    Raises:
        InputError: none has more, so that anything might be found. Of 0 throughout the preparation tells.
    """
    image = loaded.image
    if image.grid.ndim != 3:
        return []
    least, most = (found(image.array.reshape(len(image.array), -1), axis=1) for found in (np.min, np.max))
    empty = [channel for channel, low, high in zip(loaded.channels, least, most, strict=True) if low == high]
    if len(empty) == len(loaded.channels) and most.any():
        raise InputError(
            f"{scan.images[empty[0]]}: every voxel has one value, so it shows nothing; export the scan again."
        )
    return [f"{scan.images[channel].name}: every voxel has one value, so {channel} shows nothing." for channel in empty]


def _ready(steps: Steps, scan: Case, channels: Sequence[str], usual: Mapping[str, str]) -> Outcome[ReadyScan]:
    try:
        loaded = load_images(scan, channels, usual=usual)
        notes = (*loaded.notes, *_showing_nothing(scan, loaded))
        try:
            ready = steps.ready(loaded.image, loaded.channels, loaded.origin, loaded.mask)
        except UserError as error:  # of the arrays, whose files the steps do not know
            files = ", ".join(dict.fromkeys(str(path) for path in scan.images.values()))
            raise InputError(f"{files}: {error}") from error
        return Outcome(ReadyScan(ready, notes), None)
    except UserError as error:
        return Outcome(None, str(error), user_error=True)
    except MachineError as error:  # an image that is larger than the memory says nothing about the next one
        return Outcome(None, str(error))
    except MemoryError as error:
        why = f" ({error})" if str(error) else ""
        told = f"{scan.case}: there is not enough memory to prepare this scan{why}; check the spacing in its header, "
        return Outcome(None, told + "or use a machine with more of it.")
