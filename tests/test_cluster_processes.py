"""Processes side by side: what one does, the others do not feel; one request to stop reaches each of them once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import slow_items
from neoseg.cluster.processes import run_here, run_side_by_side
from neoseg.errors import Stopped
from neoseg.progress import Advance, Progress, Silent


class Listener:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: dict[str, int] = {}

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        self.steps[title] = 0

        def advance(steps: int, text: str) -> None:
            self.steps[title] += steps

        yield advance

    def say(self, sentence: str) -> None:
        self.said.append(sentence)


def test_each_item_has_its_own_process_and_its_own_end(capfd: pytest.CaptureFixture[str]) -> None:
    heard = Listener()
    items = ["first", "mistake", "defect", "killed", "left", "last"]
    found = run_side_by_side(slow_items.fate, items, jobs=3, progress=heard)
    assert [o.value[0] if o.value else None for o in found] == ["first", None, None, None, None, "last"]
    pids = {o.value[1] for o in found if o.value} | {os.getpid()}
    assert len(pids) == 3
    errors = [str(o.error) for o in found]
    assert (errors[1], found[1].user_error) == ("This cannot be used.", True)
    assert "ZeroDivisionError: a defect" in errors[2] and not found[2].user_error
    assert "SIGKILL" in errors[3] and "memory" in errors[3]
    assert "exit code 7" in errors[4]
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert sorted(heard.said) == sorted(f"This is {item}." for item in items)
    assert heard.steps == dict.fromkeys(items, 2)


def test_in_one_process_an_error_does_not_lose_the_other_items(capfd: pytest.CaptureFixture[str]) -> None:
    found = run_here(slow_items.fate, ["mistake", "defect", "last"], progress=Silent())
    assert [o.user_error for o in found] == [True, False, False]
    assert found[2].value == ("last", os.getpid())
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_in_one_process_a_request_to_stop_ends_all() -> None:
    def stopped(item: int, slot: int, progress: Progress) -> None:
        raise Stopped(signal.SIGTERM)

    with pytest.raises(Stopped):
        run_here(stopped, [0, 1], progress=Silent())


@pytest.mark.parametrize(("jobs", "told"), [(2, 1), (1, 0)])
def test_without_posix_signals_all_is_done_in_this_process(
    jobs: int, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    listener = Silent()
    monkeypatch.setattr(listener, "say", said.append)
    monkeypatch.delattr(signal, "pthread_sigmask")
    found = run_side_by_side(
        lambda item, slot, progress: (item, slot, os.getpid()), [3, 4], jobs=jobs, progress=listener
    )
    assert [outcome.value for outcome in found] == [(3, 0, os.getpid()), (4, 0, os.getpid())]
    assert len([text for text in said if "done one after the other" in text]) == told


@pytest.fixture
def at_work(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[Path]]]:
    """Two items at work in a group of their own."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    process = subprocess.Popen(
        [sys.executable, slow_items.__file__, *map(str, folders)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for(lambda: all((f / "begun").is_file() and (f / "begun").read_text() for f in folders))
    yield process, folders
    process.kill()
    process.communicate()


def wait_for(condition: object, within_s: float = 120) -> None:
    assert callable(condition)
    limit = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)


def runs(folder: Path) -> bool:
    try:
        os.kill(int((folder / "begun").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "whole_group"), [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGTERM, False)]
)
def test_a_signal_reaches_each_process_once(
    at_work: tuple[subprocess.Popen[str], list[Path]], number: int, whole_group: bool
) -> None:
    process, folders = at_work
    if whole_group:  # what a terminal does at Ctrl-C, and a scheduler that ends a job
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 128 + number, told
    assert f"Stopped by {signal.Signals(number).name}; what was done is kept" in told and "Traceback" not in told
    assert all((folder / "kept").is_file() for folder in folders)
    assert not any(runs(folder) for folder in folders)


def test_a_second_signal_ends_at_once(at_work: tuple[subprocess.Popen[str], list[Path]]) -> None:
    process, folders = at_work
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 130 and "Traceback" not in told
    assert not any((folder / "kept").is_file() for folder in folders)
    assert not any(runs(folder) for folder in folders)


def test_no_process_outlives_the_first_one(at_work: tuple[subprocess.Popen[str], list[Path]]) -> None:
    process, folders = at_work
    process.kill()
    process.wait(60)
    wait_for(lambda: not any(runs(folder) for folder in folders), 60)
    assert all((folder / "kept").is_file() for folder in folders)
