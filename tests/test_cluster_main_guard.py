"""A script without the guard around its calls: one sentence, and nothing is done twice."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from neoseg.cluster.main_guard import UNGUARDED, require_main_guard
from neoseg.config import RunConfig
from neoseg.pipeline.session import open_session

SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import slow_items
from neoseg.cluster.processes import run_side_by_side
from neoseg.progress import Silent

{guard}
    for outcome in run_side_by_side(slow_items.fate, ["first", "last"], jobs=2, progress=Silent()):
        print(outcome.value[0] if outcome.value else outcome.error)
"""


def said_by(tmp_path: Path, guard: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(__file__).parent), guard=guard), encoding="utf-8")
    return subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120, check=True)


def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    done = said_by(tmp_path, "if True:")
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all('has no `if __name__ == "__main__":` around its calls' in line for line in lines)
    assert "Traceback" not in done.stderr


def test_a_script_with_the_guard_is_served(tmp_path: Path) -> None:
    assert said_by(tmp_path, 'if __name__ == "__main__":').stdout.split() == ["first", "last"]


def test_a_session_is_not_opened_while_the_script_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as raised:
        open_session(RunConfig(labels={"lesion": 1}))
    assert raised.value.code == UNGUARDED


def test_the_first_process_is_let_through() -> None:
    require_main_guard()
