"""What a header says twice: the two descriptions of the orientation of a NIfTI file."""

from __future__ import annotations

import numpy as np

from ..volume import Grid, Stored, same_grid

__all__ = ["orientation_doubt"]

HALF_A_VOXEL = 0.5


def orientation_doubt(grid: Grid) -> str | None:
    """Return one sentence when the header of a file leaves doubt about which way the image lies, else None.

    neoseg takes the sform when its code is above 0, other programs may take the qform. Where the two differ in
    handedness, one of them swaps left and right, and the image itself does not tell which. Files of other formats say
    it once.

    Args:
        grid: as a file gave it.
    """
    stored = grid.stored
    if stored is None or stored.file_format != "nifti":
        return None
    sform, qform = stored.header["sform"], stored.header["qform"]
    if not sform and not qform:
        return "The header gives voxel sizes but no orientation; left and right may be exchanged."
    if not (sform and qform):
        return None
    if _handed(sform) * _handed(qform) < 0:
        return (
            "The sform and the qform of the header disagree on left and right, one is the mirror image of the other; "
            "the sform is used, other programs may not. Compare with the original scan which of them is right."
        )
    if not _agree(stored):
        return "The sform and the qform of the header disagree; the sform is used, other programs may not."
    return None


def _handed(form: list[list[float]]) -> float:
    """Return -1 or 1, and 0 for a matrix that is no orientation."""
    determinant = float(np.linalg.det(np.asarray(form)[:3, :3]))
    return float(np.sign(determinant)) if np.isfinite(determinant) else 0.0


def _agree(stored: Stored) -> bool:
    sform, qform = np.asarray(stored.header["sform"]), np.asarray(stored.header["qform"])
    if not np.isfinite(qform).all():
        return False
    return same_grid(Grid(stored.shape, sform), Grid(stored.shape, qform), tolerance_voxels=HALF_A_VOXEL)
