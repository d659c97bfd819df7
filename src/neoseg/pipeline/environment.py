"""With what a run was made: versions of the code and its libraries, and the machine."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from .. import __version__
from ..data.store import files_digest

__all__ = ["environment"]

PACKAGES = (
    "torch",
    "numpy",
    "scipy",
    "monai",
    "SimpleITK",
    "nibabel",
    "connected-components-3d",
    "scikit-image",
    "safetensors",
    "pydantic",
)


def environment() -> dict[str, Any]:
    """Return versions and hardware as plain data; nothing that names a person or a place.

    ``code`` is a hash of the source files of this package, so that a changed line is noticed whatever the version says;
    ``commit`` is the one that it was installed from or is checked out at, where that can be read. Nothing is executed
    to find out.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return {
        "neoseg": __version__,
        "code": _code(),
        "commit": _commit(),
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": _cpu(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if gpus else None,
        "gpus": gpus,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,  # type: ignore[no-untyped-call]
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def _code() -> str:
    """Hash of the package's own source files, in the order of their names."""
    return files_digest(sorted(Path(__file__).parents[1].rglob("*.py")))


def _commit() -> str | None:
    """Return the commit of the code: of the installation, where it was installed from one, else of the checkout."""
    try:
        told = json.loads(metadata.distribution("neoseg").read_text("direct_url.json") or "{}")
        if commit := told.get("vcs_info", {}).get("commit_id"):
            return str(commit)
    except (metadata.PackageNotFoundError, ValueError, AttributeError):
        pass
    try:
        return _checked_out(Path(__file__).parents[3] / ".git")
    except (OSError, ValueError, IndexError):
        return None


def _checked_out(git: Path) -> str | None:
    """Return the commit that the files of a checkout name; ``git`` is a file in a further working tree."""
    if git.is_file():
        git = git.parent / git.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    common = git / "commondir"
    shared = git / common.read_text(encoding="utf-8").strip() if common.is_file() else git
    for place in (git / name, shared / name):
        if place.is_file():
            return place.read_text(encoding="utf-8").strip()
    packed = (shared / "packed-refs").read_text(encoding="utf-8").splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {name}")), None)


def _cpu() -> str | None:
    """Return the name of the processor, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
    except OSError:
        return platform.processor() or None
