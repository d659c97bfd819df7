"""Write the pages below docs/reference from the code: configuration, commands, metrics.

    python docs/make_reference.py

The pages are committed; a test fails when one of them is out of date.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from pydantic import BaseModel

from neoseg.atomic import replacing
from neoseg.cli.app import app
from neoseg.config import RunConfig, recipe_text, recipes
from neoseg.metrics import METRICS, PRESETS, Metric, worst_value

__all__ = ["FOLDER", "attributes", "commands_page", "configuration_page", "main", "metrics_page", "pages"]

FOLDER = Path(__file__).parent / "reference"

GENERATED = "<!-- Written by docs/make_reference.py from the code; change the docstrings there, not this page. -->"

EXAMPLE_SHAPE, EXAMPLE_SPACING = (128, 128, 24), (1.4, 1.4, 4.0)

Schema = Mapping[str, Any]


def pages() -> dict[Path, str]:
    """Return file to text of every generated page."""
    return {
        FOLDER / "configuration.md": configuration_page(),
        FOLDER / "commands.md": commands_page(),
        FOLDER / "metrics.md": metrics_page(),
    }


def configuration_page() -> str:
    """Return the page of all fields of a configuration."""
    schema = RunConfig.model_json_schema()
    lines = [
        "# Configuration",
        GENERATED,
        "",
        "A run is described by one TOML file. `neoseg import` writes a first one, `neoseg.toml`. Every field below may "
        "be left out when it has a default. An unknown key is an error that names the nearest valid one. On the "
        "command line `--set table.field=value` changes one field.",
        "",
        "The resolved configuration of a run, with all defaults filled in, stands in its `config.json`. Numbers that "
        "follow from the data (grid, patch, batch, steps, statistics) stand in `plan.json` with their reasons, and "
        "`plan.json` may be edited.",
        "",
        f"Shipped recipes: {', '.join(f'`{name}`' for name in recipes())}. The demo's is at the end of this page.",
        "",
        *_model_lines("", schema, schema["$defs"]),
        "## The recipe of the demo",
        "",
        "```toml",
        *recipe_text("demo").rstrip().splitlines(),
        "```",
    ]
    return _page(lines)


def commands_page() -> str:
    """Return the page of all commands with their arguments and options."""
    group: Any = typer.main.get_command(app)
    lines = [
        "# Commands",
        GENERATED,
        "",
        "Every command is a thin skin over one function of the Python API. `neoseg COMMAND --help` shows the same in a "
        "terminal. Results go to stdout, progress and errors to stderr.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | all went well |",
        "| 1 | the machine lacks disk space, memory or a process; or neoseg itself failed, then with lines to report. "
        "`reproduce`: a result differs. `demo`: cases could not be prepared |",
        "| 2 | something that was given has to change: a file, a key, an option; one sentence says what. `check`: the "
        "data have errors. `predict`: some scans could not be predicted, the others are done |",
        "| 130 | stopped by Ctrl-C (SIGINT); the same command goes on from there |",
        "| 141 | whoever read the output closed it, such as `head` (SIGPIPE) |",
        "| 143 | stopped by SIGTERM; the same command goes on from there |",
        "",
        "`neoseg --version` prints the version.",
        "",
    ]
    for name, command in _commands(group):
        arguments = [p for p in command.params if not p.opts[0].startswith("-")]
        options = [p for p in command.params if p.opts[0].startswith("-")]
        shown = "".join(f" {_argument(p)}" for p in arguments)
        lines += [
            f"## neoseg {name}",
            "",
            " ".join(command.help.split()),
            "",
            f"    neoseg {name}{shown} [OPTIONS]",
            "",
        ]
        lines += ["| | value | meaning |", "|---|---|---|"]
        lines += [f"| {_argument(p)} | {_value(p)} | {_cell(p.help)} |" for p in arguments]
        lines += [f"| {_flags(p)} | {_value(p)} | {_cell(p.help)}{_default(p)} |" for p in options]
        lines += [""]
    return _page(lines)


def _commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Give each command with its whole name; commands of a group come where the group stands."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def metrics_page() -> str:
    """Return the page of all metrics and presets."""
    shape, spacing = " × ".join(map(str, EXAMPLE_SHAPE)), " × ".join(f"{s:g}" for s in EXAMPLE_SPACING)
    lines = [
        "# Metrics",
        GENERATED,
        "",
        "Masks are compared on the scan's own grid, each class by itself. A surface is made of the elements that the "
        "official BONBID-HIE scorer uses, weighted by their area in mm². A lesion is a connected component of 26 "
        "neighbours.",
        "",
        "Columns: *both empty*, *truth empty* and *prediction empty* are the values of cases without a voxel on that "
        "side; *as computed* means that the formula holds there too. Summaries show two means side by side: one "
        "without the undefined values, one with the worst value put in their place. *Worst* is that value for an image "
        f"of {shape} voxels of {spacing} mm.",
        "",
        "| metric | unit | better | identical masks | both empty | truth empty | prediction empty | worst | meaning |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_metric_line(m) for m in METRICS),
        "",
        "## Presets",
        "",
        "A preset scores as a named benchmark does, with its own rules for label values, spacings and empty masks: "
        "`neoseg evaluate --truth DIR --prediction DIR --preset NAME`.",
        "",
        "| preset | metrics | rules |",
        "|---|---|---|",
    ]
    for preset in PRESETS.values():
        units = ", ".join(f"{name} ({unit})" for name, unit in preset.units.items())
        lines.append(f"| `{preset.name}` | {units} | {_cell(preset.text)} |")
    return _page(lines)


def attributes(docstring: str) -> tuple[str, dict[str, str]]:
    """Return the text of a docstring before its section "Attributes", and the meaning of each attribute.

    Args:
        docstring: Google style, indentation already removed.
    """
    text, _, section = docstring.partition("\nAttributes:\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.splitlines():
        entry = re.match(r"^ {4}(\w+(?:, \w+)*): (.*)$", line)
        if entry:
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith("     "):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            names = []
    return " ".join(text.split()), found


def _model_lines(path: str, model: Schema, models: Mapping[str, Schema], kind: str = "") -> Iterator[str]:
    """Yield the section of one table, or of one kind of it, and those of the tables below it."""
    summary, meanings = attributes(model["description"])[0], meanings_of(model["title"])
    yield f"## {_heading(path, kind)}"
    yield ""
    yield summary
    yield ""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    below: list[tuple[str, Schema, str]] = []
    for name, field in model["properties"].items():
        inner, *others = _references(field) or [None]
        if inner is None:
            given = "default" in field and not (kind and name == "kind")
            default = _toml(field["default"]) if given else "required"
            yield f"| `{name}` | {_type(field)} | {default} | {_cell(meanings[name])} |"
            continue
        if others:
            listed = field.get("type") == "array"
            place = f"{path}.{name}" if path else name
            place = f"[{place}]" if listed else place
            several = [models[reference.removeprefix("#/$defs/")] for reference in (inner, *others)]
            kinds = {child["properties"]["kind"]["const"]: child for child in several}
            links = ", ".join(f"[`{kind}`](#{_anchor(_heading(place, kind))})" for kind in kinds)
            form, default = ("list of tables", "none") if listed else ("table", f"`{field['default']['kind']}`")
            meaning = _cell(meanings[name].replace("see each.", "one of these kinds."))
            yield f"| `{name}` | {form}, each of a kind: {links} | {default} | {meaning} |"
            below += [(place, child, kind) for kind, child in kinds.items()]
            continue
        child = models[inner.removeprefix("#/$defs/")]
        child_path = f"{path}.{name}" if path else name
        if field.get("type") == "array":
            child_path, kind = f"[{child_path}]", "list of tables"
        elif "additionalProperties" in field:
            child_path, kind = f"{child_path}.<channel>", "one table a channel"
        else:
            kind = "table"
        off = field.get("default", ...) is None
        default = "off" if off else "none" if kind != "table" else "its defaults"
        meaning = meanings.get(name, "")
        meaning = child["description"].partition("\n\n")[0] if meaning in ("", "see each.") else meaning
        heading = _heading(child_path)
        yield f"| `{name}` | {kind}, see [{heading}](#{_anchor(heading)}) | {default} | {_cell(meaning)} |"
        below.append((child_path, child, ""))
        own = {key: value["default"] for key, value in child["properties"].items() if "default" in value}
        if kind == "table" and not off and own | field.get("default", {}) != own:
            raise ValueError(f"{child_path}: its default here differs from the class'; this page cannot show that.")
    yield ""
    for child_path, child, child_kind in below:
        yield from _model_lines(child_path, child, models, child_kind)


def meanings_of(title: str) -> dict[str, str]:
    """Return the meaning of each field of a class, those that it inherits included."""
    (model,) = [m for m in _models_below(RunConfig) if m.__name__ == title]
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= attributes(inspect.cleandoc(base.__doc__ or ""))[1]
    return found


def _models_below(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Return a model and all models that its fields hold."""
    inner = {part for info in model.model_fields.values() for part in _models_of(info.annotation)}
    return {model}.union(*(_models_below(part) for part in inner))


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for inner in getattr(annotation, "__args__", ()) for part in _models_of(inner)]


def _heading(path: str, kind: str = "") -> str:
    table = f"`[{path}]`" if path else "The whole"
    return f"{table} of kind `{kind}`" if kind else table


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _references(field: Schema) -> list[str]:
    """Return the models that a field holds, in itself, in a list, by name or as an option: several if told by kind."""
    candidates = [field, field.get("items", {}), field.get("additionalProperties", {}), *field.get("anyOf", [])]
    places = [c for c in candidates if isinstance(c, Mapping)]
    return [c["$ref"] for place in places for c in (place, *place.get("oneOf", [])) if "$ref" in c]


def _type(field: Schema) -> str:
    """Return a type with its bounds, in words."""
    if "anyOf" in field:
        parts = [_type(part) for part in field["anyOf"] if part.get("type") != "null"]
        return " or ".join(dict.fromkeys(parts))
    if "enum" in field or "const" in field:
        values = field.get("enum", [field.get("const")])
        return ", ".join(f"`{json.dumps(value)}`" for value in values)
    match field["type"]:
        case "array":
            return _list_type(field)
        case "object":
            return f"table: name = {_type(field['additionalProperties'])}"
        case "string":
            return "path" if field.get("format") == "path" else "text" + _pattern(field)
        case "boolean":
            return "`true`, `false`"
        case kind:
            return f"{kind}{_bounds(field)}"


def _list_type(field: Schema) -> str:
    items = field.get("prefixItems") or [field["items"]]
    least, most = field.get("minItems"), field.get("maxItems")
    count = f"{least} " if least is not None and least == most else f"{least} to {most} " if least and most else ""
    count = f"{least} or more " if least and most is None else count
    kind = " or ".join(dict.fromkeys(_type(item) for item in items))
    return f"list of {count}({kind})"


def _bounds(field: Schema) -> str:
    names = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {field[name]:g}" for name, sign in names.items() if name in field]
    return f" {', '.join(bounds)}" if bounds else ""


def _pattern(field: Schema) -> str:
    return f" `{field['pattern']}`".replace("|", "\\|") if "pattern" in field else ""


def _toml(value: Any) -> str:
    if value is None:
        return "not set"
    if value in ({}, []):
        return "none"
    if isinstance(value, list):
        return f"`[{', '.join(json.dumps(v) for v in value)}]`"
    return f"`{json.dumps(value)}`"


def _argument(parameter: Any) -> str:
    name = parameter.name.upper()
    return name if parameter.required else f"[{name}]"


def _flags(parameter: Any) -> str:
    return ", ".join(f"`{flag}`" for flag in sorted(parameter.opts, key=len, reverse=True))


def _value(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    if parameter.metavar:
        return f"`{parameter.metavar}`"
    kind = parameter.type_descriptor.annotation
    several, kind = (" ...", get_args(kind)[0]) if get_origin(kind) is list else ("", kind)
    if issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return {Path: "path", str: "text", int: "integer", float: "number"}[kind] + several


def _default(parameter: Any) -> str:
    if parameter.required:
        return " Required."
    plain = parameter.default in (None, False, "") or getattr(parameter, "is_flag", False)
    return "" if plain else f" Default: {parameter.default}."


def _metric_line(metric: Metric) -> str:
    empty = metric.empty
    unit = "" if metric.unit == "ratio" else f" {metric.unit}"
    worst = f"{_number(worst_value(metric, EXAMPLE_SHAPE, EXAMPLE_SPACING))}{unit}"
    better = "nearer to 0" if metric.direction == "zero" else metric.direction
    values = [metric.best, empty.both, empty.truth, empty.prediction]
    cells = [f"`{metric.name}`", metric.unit, better, *(_number(v) for v in values), worst, _cell(metric.text)]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    if value is None:
        return "as computed"
    return "undefined" if math.isnan(value) else f"{value:.6g}"


def _cell(text: str) -> str:
    """Return text for one cell of a table: one line, code marks of Markdown, no role of Sphinx."""
    text = " ".join(text.split()).replace("``", "`").replace("|", "\\|")
    return re.sub(r":\w+:`~?([\w.]+)`", r"`\1`", text)


def _page(lines: Sequence[str]) -> str:
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Write all pages."""
    for path, text in pages().items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
