"""A script that calls neoseg outside of ``if __name__ == "__main__":`` is run again by each process that it starts."""

from __future__ import annotations

import multiprocessing
import sys

__all__ = ["UNGUARDED", "WORDS", "require_main_guard"]

UNGUARDED = 87
"""The exit code of a process that ended for this reason, so that the first one can say why."""

WORDS = (
    'the script that called neoseg has no `if __name__ == "__main__":` around its calls, and a process that works '
    "beside it has to read the script again; put the calls into a function and call that below this line."
)


def require_main_guard() -> None:
    """End a process that is about to repeat, on its start, the work of the script that started it.

    Raises:
        SystemExit: with :data:`UNGUARDED`; the script's calls were reached while the process was still reading it.
    """
    # The flag that multiprocessing itself looks at before it refuses with a page of traceback, but only afterwards,
    # when the stages before would have been repeated in the same workspace by several processes at a time.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.stderr.write(f"Error: {WORDS}\n")
        raise SystemExit(UNGUARDED)
