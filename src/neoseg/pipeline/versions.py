"""Whether a run was made with other versions than those installed here."""

from __future__ import annotations

from importlib import metadata

from .. import __version__
from ..atomic import read_record
from ..errors import StateError
from ..workspace import Run

__all__ = ["other_versions"]


def other_versions(run: Run) -> str:
    """Return a sentence that names the packages whose versions differ from those that a run was trained with, or "".

    Weights and plans stay readable across versions, but numbers may differ in their last digits.
    """
    try:
        then = read_record(run.environment, "")
    except StateError:
        return f"{run.environment}: this record of the versions cannot be read, so they cannot be compared."
    packages = then.get("packages")
    known = {"neoseg": then.get("neoseg"), **(packages if isinstance(packages, dict) else {})}
    differ = []
    for name, version in known.items():
        try:
            now = __version__ if name == "neoseg" else metadata.version(name)
        except metadata.PackageNotFoundError:
            now = "none"
        if now != version:
            differ.append(f"{name} {version} (here {now})")
    if not differ:
        return ""
    return f"{run.folder}: this run was trained with {', '.join(differ)}; results may differ in their last digits."
