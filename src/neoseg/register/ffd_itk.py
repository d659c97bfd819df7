"""Free-form registration by SimpleITK: its B-spline transform and correlation metric, by LBFGSB or gradient descent.

Images, mask, lattice and levels are those of our own method, so that the results can be exchanged and compared.
SimpleITK has no bending energy: the lattice alone keeps the deformation smooth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..volume import Volume
from .configs import FfdConfig
from .ffd_lbfgs import Cost
from .ffd_level import Level
from .itk import bspline_to_itk, image_to_itk, lps
from .transforms import Ffd

__all__ = ["fit_gradient_descent", "fit_lbfgsb"]

SEED = 1


def fit_lbfgsb(levels: Sequence[Level], config: FfdConfig) -> Ffd:
    """Return the deformation that SimpleITK's LBFGSB finds, coarse to fine."""

    def choose(method: Any, _: Level, __: Ffd) -> None:
        method.SetOptimizerAsLBFGSB(1e-6, config.iterations, costFunctionConvergenceFactor=1e5)

    return _fit(levels, config, choose)


def fit_gradient_descent(levels: Sequence[Level], config: FfdConfig) -> Ffd:
    """Return the deformation that gradient descent with a golden section search along it finds, coarse to fine.

    The search begins at the step that moves the control point with the steepest slope by one voxel. SimpleITK's own
    estimate perturbs every parameter for every sample, which takes far longer than the descent.
    """

    def choose(method: Any, level: Level, start: Ffd) -> None:
        slope = Cost(level, config, 0.0)(start.coefficients.ravel())[1]
        rate = level.side / max(float(np.abs(slope).max()), 1e-12)
        method.SetOptimizerAsGradientDescentLineSearch(
            rate,
            config.iterations,
            convergenceMinimumValue=1e-5,
            convergenceWindowSize=5,
            lineSearchEpsilon=0.1,
            lineSearchMaximumIterations=8,
        )

    return _fit(levels, config, choose)


def _fit(levels: Sequence[Level], config: FfdConfig, choose: Callable[[Any, Level, Ffd], None]) -> Ffd:
    import SimpleITK as sitk  # noqa: N813

    ffd: Ffd | None = None
    for level in levels:
        start = level.ffd(level.coefficients(ffd))
        transform = bspline_to_itk(start, margin=0)
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)  # sums over threads come in any order, and the same call has to give the same bits
        method.SetMetricAsCorrelation()
        method.SetMetricFixedMask(image_to_itk(Volume(level.mask[None], level.grid)))
        if config.sampling < 1:
            method.SetMetricSamplingStrategy(method.REGULAR)
            method.SetMetricSamplingPercentage(config.sampling, SEED)
        method.SetInterpolator(sitk.sitkLinear)
        choose(method, level, start)
        method.SetInitialTransform(transform, inPlace=True)
        fixed, moving = (
            image_to_itk(Volume(image[None].astype(np.float32), level.grid)) for image in (level.fixed, level.moving)
        )
        method.Execute(fixed, moving)
        values = np.asarray(transform.GetParameters()).reshape(3, *level.counts[::-1]).transpose(0, 3, 2, 1)
        ffd = level.ffd(np.moveaxis(lps(np.moveaxis(values, 0, -1)), -1, 0))
    assert ffd is not None
    return ffd
