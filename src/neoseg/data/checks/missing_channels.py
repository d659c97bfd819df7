"""Cases without an image for a channel that the data set has."""

from __future__ import annotations

from ...errors import nearest
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["missing_channels"]


def missing_channels(data: DataFacts) -> list[Problem]:
    """Report patients that lack a channel; a healthy case (for the atlas) needs one of the channels only."""
    found = []
    for facts in data.cases:
        given = list(facts.case.images)
        lacking = [channel for channel in data.channels if channel not in facts.case.images]
        if not given or not lacking:
            continue  # a case without any image is the business of missing_images
        if facts.case.group == "healthy" and len(lacking) < len(data.channels):
            continue
        for channel in lacking:
            sentence = f"The case has no image for the channel {channel!r}{nearest(channel, given)}"
            found.append(error(facts.case.case, None, f"{sentence}; add the file or leave the case out."))
    return found
