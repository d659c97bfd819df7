"""The demo: write a made-up cohort and a configuration, then call what ``neoseg run`` calls."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ..atomic import read_json, write_json
from ..cluster.local import run_all
from ..config import load_config
from ..errors import InputError
from ..phantom.cohort import write_cohort
from ..phantom.config import CohortConfig
from ..progress import Progress
from .import_data import import_folder
from .run import run

__all__ = ["NOTICE", "demo"]

NOTICE = (
    "All heads on this page are made by a program (neoseg.phantom). The page shows that every stage works; it says "
    "nothing about accuracy on patients."
)


def demo(
    folder: Path,
    progress: Progress,
    *,
    cohort: CohortConfig | None = None,
    changes: tuple[str, ...] = (),
    length: Mapping[str, float] | None = None,
    jobs: int = 2,
) -> dict[str, Any]:
    """Write the cohort into ``folder/cohort`` and the configuration ``folder/neoseg.toml``, and run it.

    Called again, it goes on where it was stopped. ``neoseg run folder/neoseg.toml`` repeats the run by hand.

    Args:
        folder: the workspace; made when absent.
        progress: the listener.
        cohort: numbers of heads and their seed; by default 20 healthy, 30 patients, 12 held out.
        changes: changes of the configuration, as for ``--set``.
        length: of each fold's training, see :func:`neoseg.config.load_config`.
        jobs: worker processes for writing the heads.

    Returns:
        What summary.json holds.

    Raises:
        InputError: the folder holds something else.
    """
    config_path, heads = folder / "neoseg.toml", folder / "cohort"
    wanted = cohort or CohortConfig()
    stamp = folder / "cohort.json"
    if folder.is_file():
        raise InputError(f"{folder}: this is a file; give a new folder for the demo.")
    if folder.exists() and any(folder.iterdir()) and not stamp.is_file() and not heads.is_dir():
        raise InputError(f"{folder}: this folder is not empty and no demo was made in it; give an empty one.")
    if not stamp.is_file() or read_json(stamp) != wanted.model_dump(mode="json"):
        if stamp.is_file():
            raise InputError(f"{folder}: this folder holds a demo with another cohort; give an empty one.")
        write_cohort(heads, wanted, run_each=partial(_each, jobs=jobs, progress=progress))
        import_folder(heads, folder, "bonbid", recipe="demo", overwrite=True)
        write_json(stamp, wanted.model_dump(mode="json"))
    return run(load_config(config_path, changes, length=length), progress, notice=NOTICE)


def _each(function: Any, items: Any, *, jobs: int, progress: Progress) -> list[Any]:
    return run_all(function, list(items), title="Writing heads", progress=progress, jobs=jobs)
