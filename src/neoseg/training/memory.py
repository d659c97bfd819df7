"""How much memory a training has taken, and what it holds besides its steps."""

from __future__ import annotations

import torch

from ..machine import forget_peak, peak_bytes
from .configs import TrainingConfig

__all__ = ["PeakMemory", "state_gib"]


class PeakMemory:
    """The peak of a training: what was prepared or trained before it in this process is no part of it.

    Args:
        device: where the training runs; the count begins now.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._before = forget_peak()

    def gib(self) -> float | None:
        """Return the peak in GiB so far: on a GPU of its allocated memory, else of what the process had resident.

        ``None`` where the system does not tell: on Windows, and where the process had once more before and the system
        does not forget that.
        """
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) / 2**30
        peak = peak_bytes()
        return peak / 2**30 if peak is not None and peak > self._before else None


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
