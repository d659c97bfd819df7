"""How much memory a training has taken, and what it holds besides its steps."""

from __future__ import annotations

import torch

from ..machine import forget_peak, peak_bytes
from .configs import TrainingConfig

__all__ = ["begin_peak", "peak_gib", "state_gib"]


def begin_peak(device: torch.device) -> None:
    """Let :func:`peak_gib` count from now on: what was prepared or trained before in this process is no part of it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    forget_peak()


def peak_gib(device: torch.device) -> float | None:
    """Return the peak in GiB: on a GPU of its allocated memory, else of what the process had resident.

    ``None`` where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    peak = peak_bytes()
    return None if peak is None else peak / 2**30


def state_gib(parameters: int, config: TrainingConfig) -> float:
    """Return the GiB that a training holds for each of its parameters, whatever the patch.

    The weights, their gradients, the moments of the optimiser (two of AdamW, one of SGD), and with ``ema_decay`` the
    average and the network that is validated with it, all in float32.

    Args:
        parameters: trainable ones of the network.
        config: the training.
    """
    moments = 2 if config.optimiser == "adamw" else 1
    averaged = 0 if config.ema_decay is None else 2
    return (2 + moments + averaged) * 4 * parameters / 2**30
