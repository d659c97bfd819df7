"""Free-form deformation: a cubic B-spline grid moved by normalised cross-correlation, by one of several methods."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..volume import Volume
from .configs import FfdConfig
from .ffd_lbfgs import fit_lbfgs
from .ffd_level import Level
from .ffd_similarity import GlobalCorrelation, Similarity, similarity_of
from .images import require_image
from .mutual_information import read_linear
from .transforms import Chain, Ffd, Transform

__all__ = ["METHODS", "FfdRegistration", "register_ffd"]

Method = Callable[[Sequence[Level], FfdConfig, float], Ffd]


def _itk_lbfgsb(levels: Sequence[Level], config: FfdConfig, _: float) -> Ffd:
    from .ffd_itk import fit_lbfgsb

    return fit_lbfgsb(levels, config)


def _gradient_descent(levels: Sequence[Level], config: FfdConfig, _: float) -> Ffd:
    from .ffd_itk import fit_gradient_descent

    return fit_gradient_descent(levels, config)


def _torch(levels: Sequence[Level], config: FfdConfig, bending: float) -> Ffd:
    from .ffd_torch import fit_torch

    return fit_torch(levels, config, bending)


METHODS: Mapping[str, Method] = {
    "lbfgs": fit_lbfgs,
    "torch": _torch,
    "itk_lbfgsb": _itk_lbfgsb,
    "gradient_descent": _gradient_descent,
}
"""Each method turns levels, config and bending weight into a deformation on the lattice of the last level."""

SIMPLEITK = ("itk_lbfgsb", "gradient_descent")
PLAIN = {"similarity": "global", "bending": 0.0, "stiffer": 0}
"""What SimpleITK's methods do whatever the config says about these."""


@dataclass(frozen=True)
class FfdRegistration:
    """What a free-form registration found, the same for every method.

    Attributes:
        transform: the whole chain, fixed world to moving world: the deformation, then the start.
        ncc_before: normalised cross-correlation in the mask with the start alone, -1 to 1.
        ncc_after: the same with the deformation.
        smallest_jacobian: smallest Jacobian determinant of the deformation that was found, also when it was refused;
            1 means that volumes are kept.
        bending: the bending weight in mm2 that was used in the end; 0 for methods that have none.
        accepted: whether the deformation is part of ``transform``.
        warning: one sentence for the report when it is not.
        seconds: wall time.
        method: key of :data:`METHODS`.
    """

    transform: Transform
    ncc_before: float
    ncc_after: float
    smallest_jacobian: float
    bending: float
    accepted: bool
    warning: str | None
    seconds: float
    method: str


def register_ffd(
    fixed: Volume,
    moving: Volume,
    start: Transform,
    *,
    config: FfdConfig,
    fixed_mask: NDArray[Any] | None = None,
) -> FfdRegistration:
    """Deform the fixed space so that the moving head, read through ``start``, fits the fixed one.

    The deformation acts first, in fixed world space, so grids of heads registered to one template can be averaged:
    their lattice depends on the fixed mask and the config alone. The same call gives the same bits.

    Where a face of a field of view cuts through a head, what lies behind it is unknown and takes no part.

    Args:
        fixed: one channel, 3-D.
        moving: one channel, 3-D, of the same contrast up to gain and offset.
        start: fixed world to moving world, usually affine.
        config: method, levels, bending weight, limits.
        fixed_mask: where the fixed head is; by default the voxels that are not 0.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, a constant image, numbers that are not finite, or a start that lays the heads apart.
        ConfigError: a device that is not there.

    Source: Rueckert et al., IEEE Trans Med Imaging 18 (1999) 712-721, with correlation in place of mutual information.
    """
    begin = time.perf_counter()
    if config.method in SIMPLEITK:
        config = config.model_copy(update=PLAIN)
    inside = require_image(fixed, fixed_mask, "fixed")
    other = require_image(moving, None, "moving")
    levels = [
        Level(fixed, moving, start, inside=inside, other=other, sizes=sizes, config=config)
        for sizes in zip(config.grid_mm, config.image_mm, strict=True)
    ]
    last = levels[-1]
    judges = GlobalCorrelation(last.fixed.ravel()[last.samples]), similarity_of(last, config)
    before, aligned = _measured(judges, last, last.coefficients(None))
    for attempt in range(config.stiffer + 1):
        bending = config.bending * 4**attempt
        ffd = METHODS[config.method](levels, config, bending)
        after, fitted = _measured(judges, last, ffd.coefficients)
        smallest = ffd.smallest_determinant()
        warning = _refusal((aligned, fitted), smallest, config)
        if warning is None:
            break
    return FfdRegistration(
        transform=start if warning else Chain([ffd, start]),
        ncc_before=before,
        ncc_after=before if warning else after,
        smallest_jacobian=smallest,
        bending=bending,
        accepted=warning is None,
        warning=warning,
        seconds=time.perf_counter() - begin,
        method=config.method,
    )


def _measured(
    judges: tuple[Similarity, Similarity], level: Level, coefficients: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the correlation over the whole mask and the similarity that the config asks for."""
    values = read_linear(level.moving, level.places(coefficients))[0]
    return judges[0](values)[0], judges[1](values)[0]


def _refusal(similarities: tuple[float, float], smallest: float, config: FfdConfig) -> str | None:
    """Return why a deformation cannot be used, as a sentence for the report."""
    tried = f" (also with {4**config.stiffer} times the bending weight)" if config.stiffer else ""
    before, after = similarities
    if smallest < config.smallest_jacobian or smallest <= 0:
        return (
            f"The free-form deformation was refused because its Jacobian determinant falls to {smallest:.2f}, below "
            f"{config.smallest_jacobian:g}{tried}; the affine alignment is used alone."
        )
    if after < before:
        return (
            f"The free-form deformation was refused because it lowers the {config.similarity} correlation from "
            f"{before:.3f} to {after:.3f}{tried}; the affine alignment is used alone."
        )
    return None
