"""What every layout gives: cases, what their labels mean, what their channels are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ..cases import Case

__all__ = ["ImportOptions", "ImportedData", "Meaning"]

Meaning = Literal["classes", "instances"]
"""What the values of a mask are: numbers of classes, or of the instances of one class."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """What a person may say about a folder besides its layout.

    Attributes:
        subject_pattern: regular expression that is searched in the name of each case; the subject is its first group,
            or all of what was found where it has none. Omitted: as the layout has it.
        masks: what the values of the masks are; omitted: told from the files, and refused where that is not clear.
    """

    subject_pattern: str | None = None
    masks: Meaning | None = None


@dataclass(frozen=True, kw_only=True)
class ImportedData:
    """The result of an import.

    Attributes:
        cases: sorted by name; an image without a label and a label without an image are kept, for the checks to name.
        labels: class name to stored value or values.
        channels: channel name to kind: "adc", "z", "ct" or "mr"; see :func:`neoseg.data.units.channel_kind`.
        notes: what a person should know about the import, one sentence each.
        instances: the values of the labels number the instances of the one class.
        regions: region name to its classes, in the order of painting; empty: the classes exclude each other and are
            learned themselves.
        merged: case to the mask files, one an instance, that are to become its label: it is not 0 where any of them is
            not 0. Such a case has no ``label`` yet.
    """

    cases: list[Case]
    labels: dict[str, int | list[int]]
    channels: dict[str, str]
    notes: list[str] = field(default_factory=list)
    instances: bool = False
    regions: dict[str, tuple[str, ...]] = field(default_factory=dict)
    merged: dict[str, list[Path]] = field(default_factory=dict)
