"""What the commands show: progress with an ETA on stderr, results on stdout."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ..progress import Advance
from ..training.launch import launched

__all__ = ["RichProgress", "print_json", "print_lines", "print_table", "progress_for"]

WIDEST = 10_000
"""Characters of a line that goes into a file or another program, where nothing needs to wrap."""


class RichProgress:
    """Progress bars on stderr; where there is no terminal, plain lines while and after each piece of work."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.bars: Progress | None = None

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Advance]:
        """Show one bar until the block ends; those of work side by side stand below each other, in any order."""
        if not self.console.is_terminal:
            with self._lines(title, total) as advance:
                yield advance
            return
        bars = self.bars or self._opened()
        task = bars.add_task(title, total=total, state="")
        try:
            yield lambda steps, text: bars.update(task, advance=steps, state=text)
        finally:
            if all(other.id == task for other in bars.tasks):
                bars.stop()
                self.bars = None
            else:  # what is finished moves up, so that one bar is left for each piece of work under way
                done = next(other for other in bars.tasks if other.id == task)
                bars.remove_task(task)
                self.say(f"{title}: {done.completed:g}/{total} in {done.elapsed or 0:.1f} s. {done.fields['state']}")

    def _opened(self) -> Progress:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[state]}"),
        )
        self.bars = Progress(*columns, console=self.console, transient=False)
        self.bars.start()
        return self.bars

    @contextmanager
    def _lines(self, title: str, total: int) -> Iterator[Advance]:
        import time

        start = last = time.monotonic()
        done = 0

        def advance(steps: int, text: str) -> None:
            nonlocal done, last
            done += steps
            now = time.monotonic()
            if now - last >= 20:
                last = now
                left = (now - start) / max(done, 1) * max(total - done, 0)
                self.say(f"{title}: {done}/{total}, about {left:.0f} s left. {text}")

        yield advance
        self.say(f"{title}: {done}/{total} in {time.monotonic() - start:.1f} s.")

    def say(self, sentence: str) -> None:
        """Print one line on stderr."""
        self.console.print(sentence, soft_wrap=True, markup=False)


def progress_for(quiet: bool) -> Any:
    """Return bars, or silence, which all processes but the first of torchrun's keep."""
    from ..progress import Silent

    return Silent() if quiet or launched().rank else RichProgress()


def print_json(value: Any) -> None:
    """Print one JSON object on stdout, from the first process."""
    if launched().rank:
        return
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def print_lines(lines: list[str]) -> None:
    """Print lines on stdout, from the first process."""
    for line in lines if launched().rank == 0 else []:
        print(line)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout, from the first process; cells wrap in a terminal only."""
    if launched().rank:
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDEST
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
