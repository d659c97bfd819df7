"""NIfTI headers whose two descriptions of the orientation disagree, or that have none."""

from __future__ import annotations

import numpy as np

from ...volume import Grid, Stored, same_grid
from .facts import DataFacts
from .problem import Problem, warning

__all__ = ["orientation"]


def orientation(data: DataFacts) -> list[Problem]:
    """Report files whose qform and sform lie more than half a voxel apart, and files without either.

    neoseg takes the sform when its code is above 0, other programs may take the qform.
    """
    found = []
    for facts in data.cases:
        for file in (*facts.images.values(), *([facts.label] if facts.label else [])):
            stored = file.grid.stored if file.grid is not None else None
            if stored is None or stored.file_format != "nifti":
                continue
            if stored.header["form"] == "pixdim":
                sentence = "The header gives voxel sizes but no orientation; left and right may be exchanged."
                found.append(warning(facts.case.case, file.path, sentence))
            elif stored.header["sform"] and stored.header["qform"] and not _agree(stored):
                sentence = "The sform and the qform of the header disagree; the sform is used, other programs may not."
                found.append(warning(facts.case.case, file.path, sentence))
    return found


def _agree(stored: Stored) -> bool:
    sform, qform = np.asarray(stored.header["sform"]), np.asarray(stored.header["qform"])
    if not np.isfinite(qform).all():
        return False
    return same_grid(Grid(stored.shape, sform), Grid(stored.shape, qform), tolerance_voxels=0.5)
