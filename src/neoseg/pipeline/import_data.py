"""From a folder of a known layout to cases.csv and a configuration beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..atomic import replacing
from ..config import recipe_text
from ..data.cases import write_cases
from ..data.layouts import guess_layout, import_data
from ..data.layouts.imported import ImportedData
from ..errors import InputError

__all__ = ["Imported", "import_folder"]


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        data: cases, labels, channels, notes.
        layout: name of the layout, given or guessed.
        reason: why it was guessed; "" when it was given.
        cases, config: the files that were written.
    """

    data: ImportedData
    layout: str
    reason: str
    cases: Path
    config: Path


def import_folder(
    root: Path | str,
    workspace: Path | str,
    layout: str | None = None,
    *,
    recipe: str | None = None,
    overwrite: bool = False,
) -> Imported:
    """Write ``cases.csv`` and ``neoseg.toml`` into the workspace; the images stay where they are.

    Args:
        root: the data.
        workspace: where the two files go.
        layout: name of the layout; None guesses.
        recipe: shipped recipe that becomes ``neoseg.toml``; None writes one that fits the data.
        overwrite: replace files that are there.

    Raises:
        InputError: no layout fits, the folder holds no case, or the files are there already.
        ConfigError: there is no layout or recipe of that name.
    """
    root, workspace = Path(root), Path(workspace)
    text = recipe_text(recipe) if recipe else None
    name, reason = (layout, "") if layout else guess_layout(root)
    data = import_data(root, name)
    if not data.cases:
        raise InputError(f"{root}: the layout {name!r} found no image there; check the folder.")
    cases, config = workspace / "cases.csv", workspace / "neoseg.toml"
    there = [str(p) for p in (cases, config) if p.exists()]
    if there and not overwrite:
        raise InputError(f"{' and '.join(there)} exist; give --overwrite or another --workspace.")
    write_cases(data.cases, cases)
    with replacing(config) as temporary:
        temporary.write_text(text or _config_text(data), encoding="utf-8")
    return Imported(data, name, reason, cases, config)


def _config_text(data: ImportedData) -> str:
    lines = [
        "# All fields: docs/reference/configuration.md. On the command line: --set table.field=value.",
        'cases = "cases.csv"',
        "",
        "[labels]",
        *(f"{_key(name)} = {value}" for name, value in data.labels.items()),
    ]
    healthy = any(c.group == "healthy" for c in data.cases)
    has_z = any("zadc" in c.images for c in data.cases)
    if healthy and "adc" in data.channels and not has_z:
        lines += ["", "# Z map of each ADC from an atlas of the healthy group.", "[prepare.zmap]"]
    z_there = has_z or healthy
    if "adc" in data.channels and len(data.labels) == 1:
        lines += ["", "[[rules]]", 'name = "adc"', 'channel = "adc"', "low = 400", "high = 1400"]
        if z_there:
            lines += ["", "[[rules]]", 'name = "z"', 'channel = "zadc"', "low = -6", "high = -0.5"]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    plain = name.replace("-", "").replace("_", "")
    return name if plain.isascii() and plain.isalnum() else '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
