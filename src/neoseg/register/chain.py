"""The whole registration of one head to another: moments, rigid, affine, free-form deformation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from ..volume import Volume
from .affine import register_affine
from .configs import AffineConfig, FfdConfig
from .ffd import register_ffd
from .transforms import Affine, Transform

__all__ = ["HeadRegistration", "register_heads"]


@dataclass(frozen=True)
class HeadRegistration:
    """What the chain found.

    Attributes:
        transform: fixed world to moving world, the whole chain.
        affine: its affine part.
        facts: numbers of the affine step that :func:`neoseg.register.plausible.implausible` judges.
        similarity: mutual information (nats) of the affine alignment.
        ncc: normalised cross-correlation of the final alignment, NaN without a free-form step.
        warnings: sentences for the report; empty when all went well.
        seconds: wall time.
    """

    transform: Transform
    affine: Affine
    facts: Mapping[str, float]
    similarity: float
    ncc: float
    warnings: tuple[str, ...]
    seconds: float


def register_heads(
    fixed: Volume,
    moving: Volume,
    *,
    affine: AffineConfig,
    ffd: FfdConfig | None,
    fixed_mask: NDArray[Any] | None = None,
    moving_mask: NDArray[Any] | None = None,
    start: Affine | None = None,
) -> HeadRegistration:
    """Register two heads of the same contrast; a refused deformation leaves the affine transform and a warning.

    Args:
        fixed: one channel, 3-D.
        moving: one channel, 3-D.
        affine: the affine step.
        ffd: the free-form step; ``None`` leaves it out.
        fixed_mask: by default the voxels that are not 0.
        moving_mask: the same for the moving head.
        start: a first guess in place of the rigid search.

    Raises:
        GeometryError: not one channel in 3-D, or a mask of another shape.
        InputError: an empty mask, a constant image or numbers that are not finite.
    """
    first = register_affine(fixed, moving, config=affine, fixed_mask=fixed_mask, moving_mask=moving_mask, start=start)
    if ffd is None:
        return HeadRegistration(
            transform=first.transform,
            affine=first.transform,
            facts=first.facts(),
            similarity=first.similarity,
            ncc=float("nan"),
            warnings=(),
            seconds=first.seconds,
        )
    second = register_ffd(fixed, moving, first.transform, config=ffd, fixed_mask=fixed_mask)
    return HeadRegistration(
        transform=second.transform,
        affine=first.transform,
        facts=first.facts(),
        similarity=first.similarity,
        ncc=second.ncc_after,
        warnings=() if second.warning is None else (second.warning,),
        seconds=first.seconds + second.seconds,
    )
