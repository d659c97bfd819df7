"""The devices and threads that a configuration names, on this machine."""

from __future__ import annotations

import re

from ..config import DEVICES, RunConfig
from ..errors import ConfigError
from ..training.launch import Launch

__all__ = ["device_of_process", "devices_side_by_side", "resolved_device", "training_threads"]


def resolved_device(wanted: str) -> str:
    """Return the device that "auto" means here, or the wanted one when it exists.

    Raises:
        ConfigError: it is no name of a device, or a GPU is wanted that this torch cannot see.
    """
    import torch

    if not re.fullmatch(DEVICES, wanted):
        raise ConfigError(
            f"device = {wanted!r}: 'auto', 'cpu', 'cuda' or one GPU such as 'cuda:1' is wanted; correct it."
        )
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda"):
        index = int(wanted.partition(":")[2] or 0)
        if not torch.cuda.is_available() or index >= torch.cuda.device_count():
            raise ConfigError(
                f"device = {wanted!r}: torch sees {torch.cuda.device_count()} GPUs here; use 'cpu' or a GPU build."
            )
    return wanted


def training_threads(config: RunConfig) -> int:
    """Return the CPU threads of each training.

    The number does not depend on how many folds are left, so that an interrupted run repeats the bits of another.
    """
    import torch

    return config.threads or max(1, torch.get_num_threads() // config.fold_jobs)


def devices_side_by_side(wanted: str) -> list[str]:
    """Return the devices that trainings side by side are dealt to."""
    import torch

    device = resolved_device(wanted)
    if wanted in ("auto", "cuda") and device != "cpu":
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return [device]


def device_of_process(launch: Launch, config: RunConfig) -> str:
    """Return the device of one of several processes: a GPU of its own, or the CPU.

    Raises:
        ConfigError: there are not so many GPUs, one GPU was asked for, or folds were to be trained side by side too.
    """
    import torch

    if config.fold_jobs > 1:
        raise ConfigError(
            f"fold_jobs = {config.fold_jobs}: torchrun started {launch.world} processes that train each fold together, "
            "so folds cannot be trained side by side as well; leave --jobs out, or start without torchrun."
        )
    if config.device.startswith("cuda:"):
        raise ConfigError(
            f"device = {config.device!r}: {launch.world} processes need a GPU each; use 'cuda' and let torchrun count, "
            "or start without torchrun."
        )
    device = resolved_device(config.device)
    if device == "cpu":
        return device
    if launch.local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"torchrun started process {launch.local_rank + 1} on a machine with {torch.cuda.device_count()} GPUs; "
            "start one process a GPU (--nproc-per-node), or use --device cpu."
        )
    return f"cuda:{launch.local_rank}"
