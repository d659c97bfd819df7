"""Work over many items: order, errors in words, and one thread a worker in every library."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from neoseg.cluster.local import run_all, run_each
from neoseg.errors import InputError, NeosegError
from neoseg.progress import Silent


def looking_at_threads() -> Callable[[int], dict[str, int]]:
    """Return a function that tells what the libraries of a process would use; nested, so that workers get its body."""

    def threads(_: int) -> dict[str, int]:
        import os

        import SimpleITK as sitk  # noqa: N813
        import torch

        return {
            "process": os.getpid(),
            "itk": sitk.ProcessObject.GetGlobalDefaultNumberOfThreads(),
            "itk_filter": sitk.SmoothingRecursiveGaussianImageFilter().GetNumberOfThreads(),
            "torch": torch.get_num_threads(),
            "openmp": int(os.environ["OMP_NUM_THREADS"]),
            "blas": int(os.environ["OPENBLAS_NUM_THREADS"]),
        }

    return threads


def squaring_all_but(*bad: int) -> Callable[[int], int]:
    def squared(number: int) -> int:
        if number in bad:
            raise InputError(f"{number} cannot be used.")
        return number * number

    return squared


@pytest.mark.slow
def test_a_worker_uses_one_thread_in_every_library(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    found = run_all(looking_at_threads(), range(3), title="", progress=Silent(), jobs=2)
    assert os.getpid() not in {f.pop("process") for f in found}
    assert found == [dict.fromkeys(("itk", "itk_filter", "torch", "openmp", "blas"), 1)] * 3


@pytest.mark.parametrize("jobs", [0, 1])
def test_without_workers_the_threads_of_this_process_stay(jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import SimpleITK as sitk  # noqa: N813

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "4")
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(3)
    try:
        found = run_all(looking_at_threads(), range(2), title="", progress=Silent(), jobs=jobs)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)
    assert {(f["process"], f["itk"]) for f in found} == {(os.getpid(), 3)}


@pytest.mark.parametrize("jobs", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_bad_item_does_not_lose_the_others_and_keeps_its_sentence(jobs: int) -> None:
    work = squaring_all_but(1, 3)
    outcomes = run_each(work, range(5), title="", progress=Silent(), jobs=jobs)
    assert [o.value for o in outcomes] == [0, None, 4, None, 16]
    assert [o.error for o in outcomes if o.error] == ["1 cannot be used.", "3 cannot be used."]
    with pytest.raises(NeosegError, match=r"1 cannot be used") as told:
        run_all(work, range(5), title="", progress=Silent(), jobs=jobs)
    assert told.value.exit_code == 2
