"""How much memory a training has taken."""

from __future__ import annotations

import sys

import torch

__all__ = ["peak_gib"]


def peak_gib(device: torch.device) -> float | None:
    """Return the peak in GiB: on a GPU of its allocated memory, else of what the process had resident.

    ``None`` where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
