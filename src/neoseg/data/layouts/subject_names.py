"""Whose a case is, told by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigError
from .files import describe_some

__all__ = ["subjects_named"]


def subjects_named(cases: Sequence[str], pattern: str) -> list[str]:
    """Return the subject of each case.

    Args:
        cases: names.
        pattern: regular expression that is searched in each name; the subject is its first group, else all it matches.

    Raises:
        ConfigError: the pattern is no regular expression, or does not find a subject in every name.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"--subject-pattern {pattern!r}: this is no regular expression ({error}).") from error
    matches = [expression.search(name) for name in cases]
    subjects = ["" if m is None else (m.group(1) if expression.groups else m.group()) or "" for m in matches]
    if missing := [name for name, subject in zip(cases, subjects, strict=True) if not subject]:
        raise ConfigError(
            f"--subject-pattern {pattern!r}: it finds no subject in {len(missing)} of {len(cases)} names "
            f"({describe_some(missing)}); correct it."
        )
    return subjects
