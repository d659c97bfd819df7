"""atlas: building one from healthy scans."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .console import print_json, print_lines, progress_for
from .options import Changes, Json, Quiet

__all__ = ["atlas"]


class Action(StrEnum):
    """What can be done with an atlas."""

    build = "build"


def atlas(
    action: Annotated[Action, typer.Argument(help="build: from healthy scans.")],
    scans: Annotated[list[Path], typer.Argument(help="Folder or files of skull-stripped scans of healthy heads.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the atlas.")],
    regions: Annotated[
        Path | None, typer.Option("--regions", help="Folder of region labels, each named as its scan.")
    ] = None,
    n4: Annotated[
        bool,
        typer.Option(
            "--n4",
            help="Correct the bias field (N4) first; with the settings of [prepare.bias_field] where --config has it, "
            'whose method then has to be "n4".',
        ),
    ] = False,
    config: Annotated[
        Path | None, typer.Option("--config", help="Configuration with [atlas], [prepare.bias_field] and jobs.")
    ] = None,
    changes: Changes = None,
    jobs: Annotated[int | None, typer.Option("--jobs", "-j", min=0, help="Worker processes; 0 starts none.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another atlas in the folder.")] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Build a normal atlas: mean and sd of each voxel of a healthy group. The same command goes on after a stop."""
    from ..atlas.configs import AtlasConfig
    from ..atlas.files import build_atlas_from_files, healthy_scans
    from ..cluster.local import run_all
    from ..config import load_config
    from ..errors import ConfigError
    from ..prepare.bias_field import BiasFieldConfig
    from ..progress import Silent

    if changes and config is None:
        raise ConfigError("atlas: --set changes a configuration; give one with --config FILE.")
    settings = load_config(config, changes or ()) if config is not None else None
    correction = settings.prepare.bias_field if settings else None
    if n4 and correction is not None and correction.method != "n4":
        raise ConfigError(
            f'{config}: prepare.bias_field.method = "{correction.method}", but --n4 asks for N4, and a run takes only '
            'an atlas of scans that were corrected as its own; leave --n4 out, or set the method to "n4".'
        )
    correction = correction or (BiasFieldConfig(method="n4") if n4 else None)
    workers = jobs if jobs is not None else settings.jobs if settings else 0

    def each(function: Any, items: Any) -> list[Any]:
        return run_all(function, items, title="Heads", progress=Silent(), jobs=workers)

    built = build_atlas_from_files(
        healthy_scans(scans, regions=regions, bias_field=correction),
        output,
        settings.atlas if settings else AtlasConfig(),
        overwrite=overwrite,
        run_each=each,
        progress=progress_for(quiet),
    )
    failed = dict(built.provenance["failed"])
    if as_json:
        print_json({"folder": str(output), "heads": built.count, "failed": failed, "warnings": built.warnings})
        return
    print_lines([f"warning: {sentence}" for sentence in built.warnings])
    print_lines([f"Atlas of {built.count} heads ({len(failed)} left out): {output}"])
    print_lines([f"Use it in a run: template = {str(output.resolve())!r}"])
