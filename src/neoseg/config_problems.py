"""What is wrong with a configuration, in words: the key by its full path, what was given, what was wanted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from .errors import nearest

__all__ = ["first_problem"]

LONGEST = 200
"""Characters of a wrong value that are shown."""


def first_problem(error: ValidationError, root: type[BaseModel]) -> tuple[str, str]:
    """Return what is wrong with a tree of values, and what to do about it in a file that the user writes.

    Args:
        error: what pydantic said.
        root: the table that holds all others.
    """
    # A misspelt key is often the cause of a missing one, so it is told first.
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")
    parts, models = _follow([str(part) for part in first["loc"]], root)
    key = ".".join(parts)
    match first["type"]:
        case "extra_forbidden":
            fields = [field for model in models for field in model.model_fields]
            if home := _home_of(parts, root):
                return f"the key {key!r} is not known: {parts[-1]} belongs {home}", "move it there"
            return f"the key {key!r} is not known{nearest(parts[-1], fields)}", "correct or remove it"
        case "missing" if parts[-1].isdigit():
            lacking = [e for e in error.errors() if e["type"] == "missing" and e["loc"][:-1] == first["loc"][:-1]]
            wanted = len(first["input"]) + len(lacking)
            return _of_length(".".join(parts[:-1]), first["input"], wanted), "correct it"
        case "too_long" if isinstance(first["input"], Sequence):
            return _of_length(key, first["input"], f"at most {first['ctx']['max_length']}"), "correct it"
        case "missing":
            return f"the key {key!r} is missing", "add it"
        case "union_tag_not_found":
            return f"the key '{key}.kind' is missing{nearest('', map(_kind, models))}", "add it"
        case "union_tag_invalid":
            tag = str(first["ctx"]["tag"])
            return f"{key}.kind = {tag!r} is not known{nearest(tag, map(_kind, models))}", "correct it"
        case "literal_error" if (
            isinstance(first["input"], str) and len(choices := _choices(first["ctx"]["expected"])) > 1
        ):
            return f"{key} = {first['input']!r} is not known{nearest(first['input'], choices)}", "correct it"
        case "model_type" | "model_attributes_type" | "dict_type":
            kind = ", whose key 'kind' names one of several" if any(map(_kind, models)) else ""
            table = f"[[{'.'.join(parts[:-1])}]]" if parts[-1].isdigit() else f"[{key}]"
            return f"{key} = {first['input']!r}: a table is wanted here, {table}{kind}", "write one"
        case "tuple_type" | "list_type" if isinstance(first["input"], Mapping):
            return f"{key}: a list of tables is wanted, and this is one table", f"write [[{key}]] in place of [{key}]"
        case "tuple_type" | "list_type":
            return f"{key} = {first['input']!r}: a list is wanted here", f"write {key} = [...]"
    message = first["msg"].removeprefix("Value error, ")
    given = repr(first["input"])
    shown = f"{key} = {given if len(given) <= LONGEST else given[:LONGEST] + ' ...'}: " if key else ""
    return f"{shown}{message[:1].lower()}{message[1:]}", "correct it"


def _choices(expected: str) -> list[str]:
    """Return the texts that a field takes, from what pydantic says: "'a', 'b' or 'c'"."""
    return re.findall(r"'([^']*)'", expected)


def _of_length(key: str, given: Sequence[object], wanted: int | str) -> str:
    return f"{key} = {list(given)!r}: {wanted} values are wanted here, and this has {len(given)}"


def _home_of(parts: Sequence[str], root: type[BaseModel]) -> str:
    """Return where in the file a key stands that was written below another table; "" where that is not sure."""
    if len(parts) > 1 and parts[-1] in root.model_fields and not _follow(parts[-1:], root)[1]:
        return "above the first [table]"
    if parts[-1] == "kind":  # each table that is one of several has one of its own
        return ""
    tables = [
        name for name in root.model_fields if any(parts[-1] in model.model_fields for model in _follow([name], root)[1])
    ]
    return f"below [{tables[0]}]" if len(tables) == 1 and tables[0] != parts[0] else ""


def _follow(parts: Iterable[str], root: type[BaseModel]) -> tuple[list[str], list[type[BaseModel]]]:
    """Return the keys on a path of pydantic, and the tables that its end may be a key of or stand for.

    Where a table is one of several kinds, pydantic puts the kind into the path; it is no key and is left out.
    """
    keys: list[str] = []
    models: list[type[BaseModel]] = [root]
    for part in parts:
        if len(models) > 1 and (chosen := [model for model in models if _kind(model) == part]):
            models = chosen
            continue
        keys.append(part)
        annotations = [model.model_fields[part].annotation for model in models if part in model.model_fields]
        if annotations:  # else the place in a list, a name of the user's, or an unknown key
            models = [model for annotation in annotations for model in _models_in(annotation)]
    return keys, models


def _kind(model: type[BaseModel]) -> str:
    """Return the kind of a table that is one of several, or nothing."""
    field = model.model_fields.get("kind")
    return "" if field is None else str(field.default)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in getattr(annotation, "__args__", ()) for model in _models_in(inner)]
