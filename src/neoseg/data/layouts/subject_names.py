"""Whose a case is, told by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ...errors import ConfigError
from ...wording import listed

__all__ = ["several_of_one", "subject_in", "subjects_named"]

_BIDS = re.compile(r"^sub-[A-Za-z0-9]+")

_VISIT = r"^(.*\d.*?)[._-](?:frame|visit|ses|session|timepoint|tp|scan|left|right|l|r)[._-]?\d*$"
"""A name that goes on after that of a person, which has a number, with a visit's number or a side."""


def subject_in(case: str) -> str:
    """Return the subject that the name of a case tells as BIDS has it (``sub-01_ses-2``), else the name."""
    found = _BIDS.match(case)
    return found.group() if found else case


def several_of_one(cases: Sequence[str]) -> str | None:
    """Return a note where names look as if several cases were of one person, None where they do not."""
    found: dict[str, list[str]] = {}
    for name in cases:
        if (match := re.search(_VISIT, name, re.IGNORECASE)) is not None:
            found.setdefault(match.group(1), []).append(name)
    alike = [names for names in found.values() if len(names) > 1]
    if not alike:
        return None
    return (
        f"{alike[0][0]} and {alike[0][1]} look like scans of one person, and each counts as a subject of its own; name "
        "the person's part by --subject-pattern, such as '^(.+)[._-]', or scores will be too good."
    )


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
            f"({listed(sorted(missing))}); correct it."
        )
    return subjects
