"""Which number format a training computes in."""

from __future__ import annotations

import torch

from ..inference.configs import Precision
from ..inference.precision import resolve_precision

__all__ = ["training_precision"]


def training_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the number format: that of a prediction, but of GPUs without bfloat16 those of float16 use it.

    Raises:
        ConfigError: float16 on a device other than a GPU.
    """
    dtype = resolve_precision(precision, device)
    if precision == "auto" and device.type == "cuda" and dtype == torch.float32:
        # tensor cores of Volta and Turing multiply in float16 only
        return torch.float16 if torch.cuda.get_device_capability(device) >= (7, 0) else torch.float32
    return dtype
