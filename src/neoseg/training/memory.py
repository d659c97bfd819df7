"""How much memory a training has taken."""

from __future__ import annotations

import torch

from ..machine import peak_bytes

__all__ = ["peak_gib"]


def peak_gib(device: torch.device) -> float | None:
    """Return the peak in GiB: on a GPU of its allocated memory, else of what the process had resident.

    ``None`` where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = peak_bytes()
    return None if peak is None else peak / 2**30
