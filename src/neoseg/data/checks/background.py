"""Images with a background where the others of their channel have exact zeros."""

from __future__ import annotations

from ...io import is_planar
from .facts import DataFacts
from .problem import Problem, warning

__all__ = ["background"]

_MANY, _NONE = 0.1, 1e-3


def background(data: DataFacts) -> list[Problem]:
    """Report images without exact zeros in a channel in which at least four of five images are cut out by zeros."""
    found = []
    for channel in data.channels:
        files = [(f.case.case, f.images[channel]) for f in data.cases if channel in f.images]
        files = [(case, file) for case, file in files if file.grid is not None and not file.constant]
        files = [(case, file) for case, file in files if not is_planar(file.path)]
        cut_out = [file for _, file in files if file.zeros >= _MANY]
        if not files or len(cut_out) < 0.8 * len(files):
            continue
        for case, file in files:
            if file.zeros < _NONE:
                sentence = (
                    f"No voxel is 0, but {len(cut_out)} of {len(files)} {channel} images have a background of zeros; "
                    "is this one skull-stripped?"
                )
                found.append(warning(case, file.path, sentence))
    return found
