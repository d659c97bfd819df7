"""The rigid search: which way round does the head lie?

An optimiser only ever finds the optimum next to its start, and a capture range is some 30 degrees. So the search starts
from the header's orientation, from turns about it, and from the best of some hundred orientations that are spread
evenly over all turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .alignment import Level, Pose, climb_rigid, rotation
from .configs import AffineConfig

__all__ = ["evenly_spread", "search", "turn_of"]

SCREEN_SAMPLES = 2500
"""Samples that orientations are compared with before the best of them are looked at in full."""

SCREEN_ITERATIONS = 12

SCREENED = 16
"""Orientations, beside those near the header's, whose nearest optimum is sought."""

FINALISTS = 2
"""Optima of the screening that are sought again with all samples, of those near the header's and of the others each."""

SAME_DEGREES, SAME_SIZE = 12.0, 0.06
"""Poses closer than this (the second in the logarithm of the size) are taken for one optimum."""

HEADER_LEAD = 1.03
"""An orientation far from the header's is believed when it has this many times the information of the best near it."""

FAR_DEGREES = 60.0
"""Orientations further from the header's than this are far from it."""


def evenly_spread(count: int) -> NDArray[np.float64]:
    """Return rotation matrices ``(count, 3, 3)`` spread evenly over all orientations.

    Source: Alexa, Super-Fibonacci Spirals, CVPR 2022, algorithm 1.
    """
    from scipy.spatial.transform import Rotation

    s = np.arange(count) + 0.5
    first, second = 2 * np.pi * s / np.sqrt(2), 2 * np.pi * s / 1.533751168755204288118041
    near, far = np.sqrt(s / max(count, 1)), np.sqrt(1 - s / max(count, 1))
    quaternions = np.stack(
        [near * np.sin(first), near * np.cos(first), far * np.sin(second), far * np.cos(second)], axis=1
    )
    if count == 0:
        return np.zeros((0, 3, 3))
    return np.asarray(Rotation.from_quat(quaternions).as_matrix(), dtype=np.float64)


def turn_of(linear: NDArray[np.float64]) -> float:
    """Return the angle in degrees, 0 to 180, of the rotation nearest to a linear map."""
    u, _, v = np.linalg.svd(linear)
    turn = u @ np.diag([1, 1, np.sign(np.linalg.det(u @ v))]) @ v
    return float(np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1))))


def search(
    level: Level, start: Pose, config: AffineConfig, *, scales: Sequence[float] = (1.0,)
) -> tuple[Pose, float | None]:
    """Find the best optimum of a turn, a shift and a size, from the header's orientation and from all others.

    Args:
        level: the coarsest.
        start: the header's orientation, centre on centre.
        config: turns, orientations and iterations.
        scales: sizes of the moving head over the fixed one to start from.

    Returns:
        The optimum, and the similarity of the best one that is turned far from it as a share of its own; None when
        there is no such optimum.
    """
    thin = level.thinned(SCREEN_SAMPLES, config.seed)
    turn = np.radians(config.turn_degrees)
    near = [start.linear]
    if turn > 0:
        near += [rotation(sign * turn * np.eye(3)[axis]) @ start.linear for axis in range(3) for sign in (1, -1)]
    spread = [r @ start.linear for r in evenly_spread(config.orientations)]
    near, spread = ([scale * linear for scale in scales for linear in some] for some in (near, spread))
    spread.sort(key=lambda linear: -thin.similarity(linear, start.shift))
    found = [climb_rigid(thin, Pose(linear, start.shift), SCREEN_ITERATIONS) for linear in (*near, *spread[:SCREENED])]
    far = [_apart(pose, start) > FAR_DEGREES for pose in found]
    ends = [_finish(level, [p for p, f in zip(found, far, strict=True) if f == side], config) for side in (False, True)]
    best = max(ends[0] or ends[1], key=_similarity)
    distant = max(ends[1], key=_similarity, default=best)
    if distant.similarity > HEADER_LEAD * best.similarity:
        best = distant
    rivals = [end.similarity for side in ends for end in side if _apart(end, best) > FAR_DEGREES]
    return best, max(rivals) / max(best.similarity, 1e-9) if rivals else None


def _finish(level: Level, poses: list[Pose], config: AffineConfig) -> list[Pose]:
    """Climb from the best poses that differ, with all samples."""
    chosen: list[Pose] = []
    for pose in sorted(poses, key=_similarity, reverse=True):
        if len(chosen) < FINALISTS and all(_differ(pose, other) for other in chosen):
            chosen.append(pose)
    return [climb_rigid(level, pose, config.iterations) for pose in chosen]


def _differ(one: Pose, other: Pose) -> bool:
    sizes = np.cbrt(np.linalg.det(one.linear) / np.linalg.det(other.linear))
    return _apart(one, other) > SAME_DEGREES or abs(float(np.log(sizes))) > SAME_SIZE


def _similarity(pose: Pose) -> float:
    return pose.similarity


def _apart(one: Pose, other: Pose) -> float:
    return turn_of(one.linear @ np.linalg.inv(other.linear))
