"""Images without content."""

from __future__ import annotations

import math

from .facts import DataFacts
from .problem import Problem, error

__all__ = ["constant_images"]


def constant_images(data: DataFacts) -> list[Problem]:
    """Report images in which every finite voxel has one value; those without any finite voxel are reported as such."""
    return [
        error(
            facts.case.case,
            file.path,
            f"Every voxel is {file.minimum:g}, so the image shows nothing; export the scan again.",
        )
        for facts in data.cases
        for file in facts.images.values()
        if file.constant and math.isfinite(file.minimum)
    ]
