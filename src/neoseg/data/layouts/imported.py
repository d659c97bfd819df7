"""What every layout gives: cases, what their labels mean, what their channels are."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..cases import Case

__all__ = ["ImportedData"]


@dataclass(frozen=True, kw_only=True)
class ImportedData:
    """The result of an import.

    Attributes:
        cases: sorted by name; an image without a label and a label without an image are kept, for the checks to name.
        labels: class name to stored value or values.
        channels: channel name to kind: "adc", "z", "ct" or "mr"; see :func:`neoseg.data.units.channel_kind`.
        notes: what a person should know about the import, one sentence each.
    """

    cases: list[Case]
    labels: dict[str, int | list[int]]
    channels: dict[str, str]
    notes: list[str] = field(default_factory=list)
