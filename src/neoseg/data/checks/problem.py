"""One thing that is wrong, or looks wrong, with a data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Problem", "error", "warning"]


@dataclass(frozen=True)
class Problem:
    """A finding of a check.

    Attributes:
        severity: "error" (training or prediction would stop or be wrong) or "warning" (look at it).
        case: the case, or "" when the finding is about the whole data set.
        file: the file, when there is one.
        sentence: what was found, what was wanted, what to do.
    """

    severity: Literal["error", "warning"]
    case: str
    file: Path | None
    sentence: str

    @property
    def told(self) -> str:
        """The finding as one line: the case and the file in front of the sentence."""
        parts = [f"case {self.case}"] if self.case else []
        parts += [str(self.file)] if self.file is not None else []
        return f"{', '.join(parts)}: {self.sentence}" if parts else self.sentence


def error(case: str, file: Path | None, sentence: str) -> Problem:
    """Return a finding that has to be corrected."""
    return Problem("error", case, file, sentence)


def warning(case: str, file: Path | None, sentence: str) -> Problem:
    """Return a finding that a person should look at."""
    return Problem("warning", case, file, sentence)
