"""With what a run was made: versions of the code and its libraries, and the machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from .. import __version__

__all__ = ["environment"]

PACKAGES = ("torch", "numpy", "scipy", "monai", "SimpleITK", "nibabel", "connected-components-3d", "scikit-image")


def environment() -> dict[str, Any]:
    """Return versions and hardware as plain data; nothing that names a person or a place."""
    import torch

    return {
        "neoseg": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }
