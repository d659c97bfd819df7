"""The device that a configuration names, on this machine."""

from __future__ import annotations

import re

from ..config import DEVICES
from ..errors import ConfigError

__all__ = ["resolved_device"]


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
