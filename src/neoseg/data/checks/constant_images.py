"""Images without content."""

from __future__ import annotations

import math

from .colours import of_one_picture
from .facts import DataFacts
from .problem import Problem, error

__all__ = ["constant_images"]


def constant_images(data: DataFacts) -> list[Problem]:
    """Report images in which every finite voxel has one value; those without any finite voxel are reported as such.

    A colour that a picture does without is no finding while another one shows something.
    """
    return [
        error(
            facts.case.case,
            file.path,
            f"Every voxel is {file.minimum:g}, so the image shows nothing; export the scan again.",
        )
        for facts in data.cases
        for file in facts.images.values()
        if file.constant and math.isfinite(file.minimum)
        if not of_one_picture(facts) or all(other.constant for other in facts.images.values())
    ]
