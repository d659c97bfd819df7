"""From a folder of a known layout to cases.csv and a configuration beside it."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..atomic import replacing, replacing_folder
from ..config import recipe_text
from ..data.cases import write_cases
from ..data.layouts import guess_layout, import_data
from ..data.layouts.imported import ImportedData, ImportOptions
from ..data.layouts.left_out import MERGED_MASKS
from ..data.layouts.planar_masks import MERGED
from ..data.layouts.registry import require_pairs
from ..errors import ConfigError, GeometryError, InputError
from ..io import is_planar, read_grid, read_label, write_volume
from ..labels import LabelSet
from ..networks.configs import DEFAULT
from ..targets import Targets
from ..volume import Volume, same_grid

__all__ = ["Imported", "import_folder"]


_PICTURES = ("microscopy", "planar")
"""Recipes for images of two axes."""


@dataclass(frozen=True)
class Imported:
    """What an import did.

    Attributes:
        data: cases, labels, channels, notes.
        layout: name of the layout, given or guessed.
        reason: why it was guessed; "" when it was given.
        cases, config: the files that were written.
        labels: class name to stored value, or values, as the configuration has them.
    """

    data: ImportedData
    layout: str
    reason: str
    cases: Path
    config: Path
    labels: dict[str, int | list[int]]


def import_folder(
    root: Path | str,
    workspace: Path | str,
    layout: str | None = None,
    *,
    recipe: str | None = None,
    overwrite: bool = False,
    options: ImportOptions | None = None,
) -> Imported:
    """Write ``cases.csv`` and ``neoseg.toml`` into the workspace; the images stay where they are.

    Masks that lie as one file an instance are merged to ``merged_masks/<case>.png`` in the workspace.

    Args:
        root: the data.
        workspace: where the two files go.
        layout: name of the layout; None guesses.
        recipe: shipped recipe that becomes ``neoseg.toml``; None writes one that fits the data.
        overwrite: replace files that are there.
        options: what the masks mean, and how names tell the subject.

    Raises:
        InputError: no layout fits, the folder holds no case, no label bears the name of an image, or the files are
            there already.
        GeometryError: masks that are to be merged differ in size.
        ConfigError: there is no layout or recipe of that name, or the classes of the data cannot be declared.
    """
    root, workspace = Path(root), Path(workspace)
    text = recipe_text(recipe) if recipe else None
    name, reason = (layout, "") if layout else guess_layout(root)
    data = import_data(root, name, options)
    if not data.cases:
        raise InputError(f"{root}: the layout {name!r} found no image there; check the folder.")
    require_pairs(root, data)
    cases, config = workspace / "cases.csv", workspace / "neoseg.toml"
    written = [cases, config, *([workspace / MERGED_MASKS] if data.merged else [])]
    there = [str(p) for p in written if p.exists()]
    if there and not overwrite:
        raise InputError(f"{' and '.join(there)} exist; give --overwrite or another --workspace.")
    data = _with_sound_regions(data)
    content = _with_labels(text, data) if text else _config_text(data)
    labels = _sound_labels(root, content)
    labelled = data.merged or any(case.label for case in data.cases)
    if text and labelled and not data.instances:
        data = replace(data, notes=[*data.notes, *_about_labels(f"the recipe {recipe!r}", labels, data.labels, config)])
    data = replace(data, notes=[*data.notes, *_about_axes(recipe, data)])
    data = _with_merged(data, workspace / MERGED_MASKS)
    write_cases(data.cases, cases)
    with replacing(config) as temporary:
        temporary.write_text(content, encoding="utf-8")
    return Imported(data, name, reason, cases, config, labels)


def _about_axes(recipe: str | None, data: ImportedData) -> list[str]:
    """Return a note where pictures come without a recipe for pictures, or volumes with one."""
    if recipe is None and _is_planar(data):
        return [
            "For pictures there are recipes, which train and predict them whole: --recipe microscopy for cells and "
            "tissue, --recipe planar for others."
        ]
    if recipe in _PICTURES and _axes(data) == 3:
        return [
            f"The recipe {recipe!r} is for pictures, and these are volumes; leave out --recipe for a plan of theirs."
        ]
    return []


def _axes(data: ImportedData) -> int | None:
    """Return the axes of the first image that can be read."""
    for case in data.cases:
        for file in case.images.values():
            try:
                return read_grid(file).ndim
            except InputError:  # the checks name it
                continue
    return None


def _about_labels(
    recipe: str, labels: Mapping[str, int | list[int]], own: Mapping[str, int | list[int]], config: Path
) -> list[str]:
    """Say where the classes of a recipe are not those of the data."""
    if others := _values(own) - _values(labels):
        told = ", ".join(str(value) for value in sorted(others))
        return [f"[labels] is that of {recipe}, but the labels also hold {told}; correct it in {config}."]
    declared = [name for name in own if not name.startswith("label_")]
    if {name.lower() for name in declared} - {name.lower() for name in labels}:
        return [
            f"[labels] is that of {recipe} ({', '.join(labels)}), but the data call the classes {', '.join(declared)}; "
            f"correct it in {config}."
        ]
    if never := sorted(_values(labels) - _values(own)):
        told = ", ".join(str(value) for value in never)
        return [f"[labels] is that of {recipe}, but no label holds {told}; correct it in {config}."]
    return []


def _values(labels: Mapping[str, int | list[int]]) -> set[int]:
    return {one for value in labels.values() for one in (value if isinstance(value, list) else [value])}


def _sound_labels(root: Path, content: str) -> dict[str, int | list[int]]:
    """Return the labels of a configuration before it is written.

    Raises:
        ConfigError: the next command would refuse them.
    """
    table = tomllib.loads(content)
    labels: dict[str, int | list[int]] = table.get("labels", {})
    try:
        if labels:
            LabelSet.of(labels, instances=table.get("label_instances", False))
    except ConfigError as error:
        raise ConfigError(f"{root}: what the data declare cannot be imported. {error}") from error
    return labels


def _with_sound_regions(data: ImportedData) -> ImportedData:
    """Leave regions out from which the classes do not follow, with a note."""
    if not data.regions:
        return data
    try:
        Targets.of(LabelSet.of(data.labels), data.regions)
    except ConfigError as error:
        note = f"The regions of dataset.json were left out, and their classes are learned: {error}"
        return replace(data, regions={}, notes=[*data.notes, note])
    return data


def _with_merged(data: ImportedData, folder: Path) -> ImportedData:
    """Write the masks that are one file an instance as one file a case: all of them, or none where one is unfit."""
    if not data.merged:
        return data
    with replacing_folder(folder) as temporary:
        for name, files in data.merged.items():
            write_volume(_merged(files), temporary / f"{name}.png")
    made = {name: folder / f"{name}.png" for name in data.merged}
    return replace(data, cases=[replace(c, label=made.get(c.case, c.label)) for c in data.cases])


def _merged(files: Sequence[Path]) -> Volume:
    first = read_label(files[0])
    marked = first.array != 0
    for file in files[1:]:
        volume = read_label(file)
        if not same_grid(volume.grid, first.grid):
            raise GeometryError(
                f"{file}: this mask has {volume.grid.shape} pixels, but {files[0].name} beside it has "
                f"{first.grid.shape}; masks of one picture have to be of one size."
            )
        marked |= volume.array != 0
    return Volume(np.where(marked, MERGED, 0).astype(np.uint8), first.grid)


PLANAR = "unet"
"""The network for pictures, which measured best or as good as any (docs/explanation/networks.md)."""

MARK = "# The import puts the labels of the data here."
"""Line of a recipe after which its labels stand for those of any data."""


def _with_labels(text: str, data: ImportedData) -> str:
    """Return the text of a recipe with the labels of the data, where it leaves them to the import."""
    found = re.search(re.escape(MARK) + r"\n(?:.+\n)*", text)
    if found is None:
        return text
    return text[: found.start()] + "\n".join(_label_lines(data)) + "\n" + text[found.end() :]


def _label_lines(data: ImportedData) -> list[str]:
    lines = ["# The values number instances: each above 0 is the one class.", "label_instances = true", ""]
    return [
        *(lines if data.instances else []),
        "[labels]",
        *(f"{_key(name)} = {value}" for name, value in data.labels.items()),
        *(
            ["", "# Learned and scored in place of the classes, see docs/explanation/regions.md.", "[regions]"]
            if data.regions
            else []
        ),
        *(f"{_key(name)} = {json.dumps(members, ensure_ascii=False)}" for name, members in data.regions.items()),
    ]


def _is_planar(data: ImportedData) -> bool:
    return any(is_planar(image) for case in data.cases for image in case.images.values())


def _config_text(data: ImportedData) -> str:
    lines = [
        "# All fields: docs/reference/configuration.md. On the command line: --set table.field=value.",
        'cases = "cases.csv"',
        "",
        *_label_lines(data),
        "",
        "# `neoseg info --networks` lists the others.",
        "[network]",
        f'kind = "{PLANAR if _is_planar(data) else DEFAULT}"',
        "",
        "# For a CPU: a network, a patch and a length of training for so many core-minutes a fold; without it the plan",
        "# is one for a GPU.",
        "# [plan]",
        "# core_minutes = 60",
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
    # JSON escapes all that TOML wants escaped but this one
    return (
        name if plain.isascii() and plain.isalnum() else json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
    )
