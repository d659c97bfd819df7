"""Our own free-form registration: correlation and bending energy with exact gradients, minimised by L-BFGS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from .configs import FfdConfig
from .ffd_level import Level
from .ffd_similarity import similarity_of
from .mutual_information import read_linear
from .transforms import Ffd

__all__ = ["Cost", "fit_lbfgs", "minimise"]

Floats = NDArray[np.float64]


@final
class Cost:
    """1 - similarity + bending as a function of the coefficients (mm), with its exact gradient."""

    def __init__(self, level: Level, config: FfdConfig, bending: float) -> None:
        """Prepare the similarity that the config names."""
        self.level, self.bending = level, bending
        self.similarity = similarity_of(level, config)

    def __call__(self, parameters: Floats) -> tuple[float, Floats]:
        """Return the cost and its gradient, flat as the parameters."""
        coefficients = parameters.reshape(3, *self.level.counts)
        values, slopes = read_linear(self.level.moving, self.level.places(coefficients))
        similarity, by_values = self.similarity(values)
        gradient = self.level.by_coefficients(-by_values[:, None] * slopes)
        bending, by_bending = self.level.bending(coefficients)
        return 1 - similarity + self.bending * bending, (gradient + self.bending * by_bending).ravel()


def fit_lbfgs(levels: Sequence[Level], config: FfdConfig, bending: float) -> Ffd:
    """Return the deformation that minimises the cost of the last level, coarse to fine."""
    return minimise(levels, config, lambda level: Cost(level, config, bending))


def minimise(
    levels: Sequence[Level], config: FfdConfig, cost_of: Callable[[Level], Callable[[Floats], tuple[float, Floats]]]
) -> Ffd:
    """Minimise the cost of each level from the result of the coarser one.

    Source: Byrd et al., SIAM J Scientific Computing 16 (1995) 1190-1208, as in scipy.
    """
    from scipy.optimize import minimize

    ffd: Ffd | None = None
    for level in levels:
        result = minimize(
            cost_of(level),
            level.coefficients(ffd).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": config.iterations, "ftol": 1e-6},
        )
        ffd = level.ffd(np.asarray(result.x))
    assert ffd is not None
    return ffd
