"""Volumes of a size that no scan has: spacings in another unit than mm."""

from __future__ import annotations

from ..field_of_view import size_doubt, unlikely_size
from ..units import channel_kind
from .facts import DataFacts
from .problem import Problem, error, warning

__all__ = ["sizes"]


def sizes(data: DataFacts) -> list[Problem]:
    """Report images whose spacing cannot be in mm, and ADC maps that are small for a head."""
    found = []
    for facts in data.cases:
        for channel, file in facts.images.items():
            if file.grid is None:
                continue
            if (told := unlikely_size(file.grid)) is not None:
                found.append(error(facts.case.case, file.path, told[:1].upper() + told[1:]))
            elif channel_kind(channel) == "adc" and (doubt := size_doubt(file.grid)) is not None:
                found.append(warning(facts.case.case, file.path, doubt))
    return found
