"""Our own free-form registration with torch: the same cost on any device, its gradient by automatic differentiation.

The optimiser is the one of :mod:`.ffd_lbfgs`; only the coefficients travel between device and host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from ..errors import ConfigError
from .configs import FfdConfig
from .ffd_lbfgs import minimise
from .ffd_level import BENDING, Level
from .ffd_similarity import NOISE_FLOOR, window_matrix
from .transforms import Ffd

__all__ = ["TorchCost", "fit_torch"]

Floats = NDArray[np.float64]


def fit_torch(levels: Sequence[Level], config: FfdConfig, bending: float) -> Ffd:
    """Return the deformation that minimises the cost of the last level, coarse to fine.

    Raises:
        ConfigError: the device is not there.
    """
    try:
        device = torch.device(config.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"The free-form registration cannot run on the device {config.device!r} ({reason}); choose 'cpu'."
        ) from error
    return minimise(levels, config, lambda level: TorchCost(level, config, bending, device=device))


@final
class TorchCost:
    """1 - similarity + bending as a function of the coefficients (mm), float32 on the device."""

    def __init__(self, level: Level, config: FfdConfig, bending: float, *, device: torch.device) -> None:
        """Bring images and matrices to the device."""

        def tensor(array: NDArray[np.generic]) -> torch.Tensor:
            return torch.tensor(array, dtype=torch.float32, device=device)

        self.weight, self.shape = bending, tuple(int(n) for n in level.counts)
        self.samples = torch.tensor(level.samples, device=device)
        self.matrices = [tensor(matrix) for matrix in level.matrices[0]]
        self.grams = [[tensor(gram) for gram in of_order] for of_order in level.grams]
        inside, other = (image.ravel()[level.samples] for image in (level.fixed, level.moving))
        self.fixed = tensor((inside - inside.mean()) / max(float(inside.std()), 1e-12))
        moving = (level.moving - other.mean()) / max(float(other.std()), 1e-12)
        self.moving = tensor(np.ascontiguousarray(moving.transpose(2, 1, 0)))[None, None]
        self.size = tensor(np.asarray(level.grid.shape, dtype=np.float64))
        self.index = tensor(level.index)
        self.side, self.grid_shape = level.side, level.grid.shape
        self.boxes = (
            [tensor(window_matrix(n, config.window_voxels)) for n in level.grid.shape]
            if config.similarity == "local"
            else None
        )

    def __call__(self, parameters: Floats) -> tuple[float, Floats]:
        """Return the cost and its gradient, flat as the parameters."""
        coefficients = torch.tensor(parameters, dtype=torch.float32, device=self.fixed.device)
        coefficients = coefficients.reshape(3, *self.shape).requires_grad_()
        field = _along(self.matrices, coefficients).reshape(3, -1)[:, self.samples]
        places = (self.index + field.T / self.side) * (2 / (self.size - 1)) - 1
        read = functional.grid_sample(
            self.moving, places[None, None, None], mode="bilinear", padding_mode="border", align_corners=True
        )
        values = read.reshape(-1)
        similarity = self._global(values) if self.boxes is None else self._local(values, self.boxes)
        cost = 1 - similarity + self.weight * self._bending(coefficients)
        (gradient,) = torch.autograd.grad(cost, coefficients)
        return float(cost.detach()), gradient.cpu().numpy().astype(np.float64).ravel()

    def _global(self, values: torch.Tensor) -> torch.Tensor:
        centred = values - values.mean()
        return torch.mean(self.fixed * centred) / centred.square().mean().sqrt().clamp(min=1e-12)

    def _local(self, moving: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
        fixed = self.fixed
        rows = torch.stack([torch.ones_like(fixed), fixed, fixed**2, moving, moving**2, fixed * moving])
        full = torch.zeros(len(rows), int(np.prod(self.grid_shape)), device=fixed.device)
        full[:, self.samples] = rows
        sums = _along(boxes, full.reshape(len(rows), *self.grid_shape)).reshape(len(rows), -1)[:, self.samples]
        f, ff, m, mm, fm = sums[1:] / sums[0]
        spread = ((ff - f**2).clamp(min=0) + NOISE_FLOOR) * ((mm - m**2).clamp(min=0) + NOISE_FLOOR)
        return torch.mean((fm - f * m) / spread.sqrt())

    def _bending(self, coefficients: torch.Tensor) -> torch.Tensor:
        total = coefficients.new_zeros(())
        for orders, count in BENDING:
            grams = [self.grams[order][axis] for axis, order in enumerate(orders)]
            total = total + count * (coefficients * _along(grams, coefficients)).sum()
        return total


def _along(matrices: Sequence[torch.Tensor], field: torch.Tensor) -> torch.Tensor:
    """Multiply one matrix onto each spatial axis of ``(k, a, b, c)``."""
    x, y, z = matrices
    return torch.einsum("ai,kibc->kabc", x, y @ (field @ z.T))
