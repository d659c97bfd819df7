"""Which number format a device computes a network in."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch

from ..errors import ConfigError
from .configs import Precision

__all__ = ["autocast", "is_reduced", "resolve_precision"]

FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the number format for a device.

    "auto" is bfloat16 on GPUs that have it in hardware (compute capability 8.0 and later) and on CPUs with
    AVX512-BF16, float32 everywhere else: emulated bfloat16 is slower than float32.

    Raises:
        ConfigError: float16 on a device other than a GPU.
    """
    if precision == "float16" and device.type != "cuda":
        raise ConfigError(f'precision = "float16": it is for GPUs, not for {device.type}; use "auto" or "float32".')
    if precision != "auto":
        return FORMATS[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float32
    return torch.bfloat16 if device.type == "cpu" and _cpu_has_bfloat16() else torch.float32


def is_reduced(precision: Precision, device: str) -> bool:
    """Tell whether networks compute in half the bits of float32 on a device ("cpu", "cuda:0")."""
    where = torch.device(device)
    return where.type != "cpu" or resolve_precision(precision, where) != torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> AbstractContextManager[None]:
    """Return the context in which a network computes in the format (for float32 it does nothing)."""
    reduced = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if reduced else torch.bfloat16, enabled=reduced)


def _cpu_has_bfloat16() -> bool:
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe()) if probe is not None else False
