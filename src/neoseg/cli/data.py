"""import, check and info."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..wording import counted
from .console import print_json, print_lines, progress_for
from .options import Changes, ConfigFile, Json, Masks, Quiet, SubjectPattern, WorkspaceFolder, configured, meaning_of

__all__ = ["check", "import_", "info"]


def import_(
    folder: Annotated[Path, typer.Argument(help="Folder of scans in a known layout.")],
    layout: Annotated[
        str | None,
        typer.Option("--layout", help="bonbid, decathlon, planar_folders or folders; default: guessed."),
    ] = None,
    recipe: Annotated[str | None, typer.Option("--recipe", help="Shipped recipe to become neoseg.toml.")] = None,
    workspace: WorkspaceFolder = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace cases.csv, neoseg.toml and merged_masks/.")
    ] = False,
    subject_pattern: SubjectPattern = None,
    masks: Masks = None,
    as_json: Json = False,
) -> None:
    """Write cases.csv and neoseg.toml for a folder of scans; copies and renames nothing."""
    from ..data.layouts import ImportOptions
    from ..pipeline.import_data import import_folder

    options = ImportOptions(subject_pattern=subject_pattern, masks=meaning_of(masks))
    done = import_folder(folder, workspace or Path(), layout, recipe=recipe, overwrite=overwrite, options=options)
    data = done.data
    labelled = sum(c.label is not None for c in data.cases)
    if as_json:
        print_json(
            {
                "layout": done.layout,
                "reason": done.reason,
                "cases": len(data.cases),
                "subjects": len({c.subject for c in data.cases}),
                "labelled": labelled,
                "labels": done.labels,
                "channels": data.channels,
                "notes": data.notes,
                "files": [str(done.cases), str(done.config)],
            }
        )
        return
    print_lines([f"Layout {done.layout}" + (f": {done.reason}" if done.reason else "")])
    subjects = len({c.subject for c in data.cases})
    told = f"{counted(len(data.cases), 'case')} of {counted(subjects, 'subject')}, {labelled} with a label"
    print_lines([f"{told}; channels {data.channels}; labels {done.labels}"])
    print_lines([f"note: {note}" for note in data.notes])
    following = f"Next: neoseg run {done.config}"
    if not labelled and not data.merged:
        following = (
            "Nothing can be trained: no label was found. Put labels where the layout looks for them, or in cases.csv."
        )
    elif not done.labels:
        following = f"Next: name the classes below [labels] in {done.config}"
    print_lines([f"Written: {done.cases} and {done.config}", following])


def check(
    config: ConfigFile = None,
    workspace: WorkspaceFolder = None,
    changes: Changes = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """List every problem of the data at once; exit code 2 when one of them has to be corrected."""
    from ..pipeline.check import check as run_check
    from ..pipeline.session import open_session

    problems = run_check(open_session(configured(config, workspace, changes), progress_for(quiet)))
    errors = sum(p.severity == "error" for p in problems)
    if as_json:
        print_json([{**vars(p), "file": str(p.file) if p.file else None} for p in problems])
    else:
        print_lines([f"{p.severity}: {p.told}" for p in problems])
        print_lines([f"{errors} errors, {len(problems) - errors} warnings."])
    if errors:
        raise typer.Exit(2)


def info(
    networks: Annotated[
        bool, typer.Option("--networks", help="List the networks with sizes of two forms each.")
    ] = False,
    network: Annotated[
        str | None,
        typer.Option("--network", metavar="KIND", help="Sizes of all forms of a network, such as unetr_pp."),
    ] = None,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Show versions, devices and what this installation can do."""
    from ..errors import ConfigError
    from ..io import endings
    from ..networks.configs import NETWORKS

    table: dict[str, Any]
    if network is not None and networks:
        raise ConfigError(f"--networks and --network {network} were given; give one of them.")
    if network is not None:
        from ..networks.facts import network_facts

        sizes = network_facts(network)
        table = sizes if as_json else {name: _size_line(facts) for name, facts in sizes.items()}
    elif networks:
        from ..networks.facts import network_facts

        forms = {}
        with progress_for(quiet).track("Counting networks", len(NETWORKS)) as advance:
            for kind in NETWORKS:
                forms[kind] = network_facts(kind, None if as_json else 2)
                advance(1, kind)
        table = {}
        for kind, entry in NETWORKS.items():
            if as_json:
                table[kind] = {"title": entry.title, "paper": entry.paper, "forms": forms[kind]}
            else:
                table[kind] = f"{entry.title}: {entry.paper}"
                table |= {f"  {kind}, {name}": _size_line(facts) for name, facts in forms[kind].items()}
    else:
        from ..config import recipes
        from ..data.layouts import LAYOUTS
        from ..metrics import METRICS, PRESETS
        from ..pipeline.environment import environment

        facts = environment()
        packages = facts.pop("packages")
        table = {
            **facts,
            **packages,
            "networks": ", ".join(NETWORKS),
            "layouts": ", ".join(layout.name for layout in LAYOUTS),
            "formats": ", ".join(endings()),
            "metrics": ", ".join(m.name for m in METRICS),
            "presets": ", ".join(PRESETS),
            "recipes": ", ".join(recipes()),
        }
    if as_json:
        print_json(table)
    else:
        width = max(len(key) for key in table)
        print_lines([f"{key:<{width}}  {value}" for key, value in table.items()])


def _size_line(facts: dict[str, Any]) -> str:
    """Return one network's sizes in words."""
    line = f"patch {facts['patch']}: {facts['parameters']:,} parameters"
    if facts["with_statistics"] > facts["parameters"]:
        line += f" ({facts['with_statistics']:,} with statistics)"
    published, here = facts["gmacs_published_order"], facts["gmacs_here"]
    if published is not None:
        return f"{line}, {published:,.1f} G multiply-adds as published, {here:,.1f} G here"
    return f"{line}, {here:,.1f} G multiply-adds"
