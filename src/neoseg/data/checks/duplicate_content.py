"""The same scan under two names."""

from __future__ import annotations

from collections import defaultdict

from ...io import is_planar
from ..cases import Case
from .facts import DataFacts, FileFacts
from .problem import Problem, error, warning

__all__ = ["duplicate_content"]


def duplicate_content(data: DataFacts) -> list[Problem]:
    """Report images whose voxels are equal: across subjects an error, within one subject or case a warning."""
    by_digest: dict[str, list[tuple[Case, str, FileFacts]]] = defaultdict(list)
    for facts in data.cases:
        for channel, file in facts.images.items():
            if file.digest and not file.constant:
                by_digest[file.digest].append((facts.case, channel, file))
    found = []
    for same in by_digest.values():
        first, channel, file = same[0]
        for case, other_channel, other in same[1:]:
            if is_planar(other.path) and other.path == file.path:
                continue  # red, green and blue of a grey picture
            told = f"The image has the same voxels as {channel} of case {first.case} ({file.path.name})"
            if case.subject != first.subject:
                found.append(
                    error(case.case, other.path, f"{told} of another subject; remove one or give both one subject.")
                )
            else:
                found.append(warning(case.case, other.path, f"{told}; is {other_channel} the right file?"))
    return found
