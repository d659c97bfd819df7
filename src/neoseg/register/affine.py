"""Affine registration by Mattes mutual information: moments, a rigid search, then affine from coarse to fine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..volume import Volume
from .alignment import Pose, climb_affine, make_level
from .configs import AffineConfig
from .images import clipped, require_image
from .moments import start_from_moments
from .search import search, turn_of
from .transforms import Affine, sample

__all__ = ["AffineRegistration", "register_affine"]

OTHER_SIZE = 0.1
"""Heads whose masks differ by more than this in the logarithm of their diameter are searched at both sizes."""


@dataclass(frozen=True)
class AffineRegistration:
    """What an affine registration found.

    Attributes:
        transform: fixed world to moving world.
        similarity: mutual information (nats) at the finest level; higher is better.
        overlap: Dice coefficient of the two masks after alignment, 0 to 1.
        mirrored: mutual information of the moving head's mirror image, aligned alike at the coarsest level, as a share
            of that of the head itself; above 1 the mirror image fits better.
        rival: similarity of the best optimum far from the orientation that was chosen, as a share of the chosen one's;
            None when none was sought.
        seconds: wall time.
    """

    transform: Affine
    similarity: float
    overlap: float
    mirrored: float
    rival: float | None
    seconds: float

    def facts(self) -> dict[str, float]:
        """Return what :func:`neoseg.register.plausible.implausible` and its kin judge, as plain numbers.

        Beside the attributes: the angle by which the heads lie apart in the world of their headers, how many times
        larger the moving head is, and the largest over the smallest stretch along any direction.
        """
        linear = self.transform.matrix[:3, :3]
        stretches = np.linalg.svd(linear, compute_uv=False)
        rival = {} if self.rival is None else {"affine_rival": self.rival}
        return {
            "affine_similarity": self.similarity,
            "affine_overlap": self.overlap,
            "affine_mirrored": self.mirrored,
            "affine_turn_degrees": turn_of(linear),
            "affine_volume": float(np.prod(stretches)),
            "affine_stretch": float(stretches[0] / stretches[-1]),
            **rival,
        }


def register_affine(
    fixed: Volume,
    moving: Volume,
    *,
    config: AffineConfig,
    fixed_mask: NDArray[Any] | None = None,
    moving_mask: NDArray[Any] | None = None,
    start: Affine | None = None,
) -> AffineRegistration:
    """Find the affine map from the fixed to the moving head.

    The same call gives the same bits.

    Args:
        fixed: one channel, 3-D.
        moving: one channel, 3-D; any contrast.
        config: levels, search and optimiser.
        fixed_mask: where the fixed head is, ``(x, y, z)``; by default what is not background, see
            :func:`neoseg.register.images.require_image`.
        moving_mask: the same for the moving head.
        start: a first guess; then the rigid search is left out. By default the centres of the masks are aligned.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, fewer than 3 slices in it, a constant image, numbers that are not finite, or a start
            that lays the heads side by side.

    Source: Mattes et al., IEEE Trans Med Imaging 22 (2003) 120-128.
    """
    begin = time.perf_counter()
    inside = (require_image(fixed, fixed_mask, "fixed"), require_image(moving, moving_mask, "moving"))
    heads = (clipped(fixed, inside[0]), clipped(moving, inside[1]))
    centre = fixed.grid.to_world(np.argwhere(inside[0]).mean(axis=0))
    levels = [make_level(heads, inside, centre, config=config, spacing=mm) for mm in config.levels_mm]
    rival = None
    if start is None:
        first = start_from_moments(fixed, moving, fixed_mask=inside[0], moving_mask=inside[1])
        pose = Pose(first.matrix[:3, :3], first.points(centre[None])[0])
        pose, rival = search(levels[0], pose, config, scales=_scales(fixed, moving, inside))
    else:
        if _overlap(fixed, moving, inside, start) == 0:
            raise InputError("The start lays the two heads side by side; give one under which they overlap, or none.")
        pose = Pose(start.matrix[:3, :3], start.points(centre[None])[0])
    mirrored = 0.0
    for number, level in enumerate(levels):
        pose = climb_affine(level, pose, config.iterations)
        if number == 0:
            mirror = climb_affine(level, Pose(pose.linear * [-1.0, 1.0, 1.0], pose.shift), config.iterations)
            mirrored = mirror.similarity / max(pose.similarity, 1e-9)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = pose.linear, pose.shift - pose.linear @ centre
    transform = Affine(matrix)
    overlap = _overlap(fixed, moving, inside, transform)
    return AffineRegistration(transform, pose.similarity, overlap, mirrored, rival, time.perf_counter() - begin)


def _scales(fixed: Volume, moving: Volume, inside: tuple[NDArray[np.bool_], NDArray[np.bool_]]) -> tuple[float, ...]:
    """Return the sizes to start from: the same, and that of the masks where it is another.

    The masks alone are not to be trusted: one may hold a whole head and the other its brain.
    """
    volumes = [m.sum() * v.grid.voxel_volume for m, v in zip(inside, (fixed, moving), strict=True)]
    scale = float(np.cbrt(volumes[1] / volumes[0]))
    return (1.0,) if abs(np.log(scale)) < OTHER_SIZE else (1.0, scale)


def _overlap(
    fixed: Volume, moving: Volume, inside: tuple[NDArray[np.bool_], NDArray[np.bool_]], transform: Affine
) -> float:
    """Return the Dice coefficient of the masks under a transform, from the fixed mask's voxels alone."""
    places = fixed.grid.to_world(np.argwhere(inside[0]))
    other = Volume(inside[1][None].astype(np.uint8), moving.grid)
    common = float(sample(other, transform.points(places), order=0).sum()) * fixed.grid.voxel_volume
    volume = moving.grid.voxel_volume * float(inside[1].sum()) / abs(np.linalg.det(transform.matrix[:3, :3]))
    return float(2 * common / (len(places) * fixed.grid.voxel_volume + volume))
