"""The texts keep up with the code: generated pages, commands, metrics, recipes, links, and the lines to be typed."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

from neoseg.cli.app import COMMANDS, GROUPS, app
from neoseg.config import RunConfig, config_from, recipe_text, recipes
from neoseg.metrics import METRICS, PRESETS

ROOT = Path(__file__).parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
README, README_ZH = ROOT / "README.md", ROOT / "README.zh.md"
GROUP: Any = typer.main.get_command(app)


def the_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = the_script()


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def code_lines(path: Path) -> list[str]:
    """Return the lines of all fenced blocks of shell commands, comments left out."""
    blocks = re.findall(r"^```(?:sh|powershell)\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


@pytest.mark.parametrize("path", list(SCRIPT.pages()), ids=lambda p: p.name)
def test_generated_page_is_up_to_date(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == SCRIPT.pages()[path], "run `python docs/make_reference.py`"


@pytest.mark.parametrize("command", list(COMMANDS))
def test_every_command_is_in_the_docs_and_in_the_readme(command: str) -> None:
    page = (SCRIPT.FOLDER / "commands.md").read_text(encoding="utf-8")
    assert f"\n## neoseg {command}\n" in page
    for option in (flag for p in GROUP.commands[command].params for flag in p.opts if flag.startswith("-")):
        assert f"`{option}`" in page
    for readme in (README, README_ZH):
        assert f"`neoseg {command}" in readme.read_text(encoding="utf-8"), readme.name


@pytest.mark.parametrize("group", list(GROUPS))
def test_every_command_of_a_group_is_in_the_docs(group: str) -> None:
    page = (SCRIPT.FOLDER / "commands.md").read_text(encoding="utf-8")
    for name in GROUP.commands[group].commands:
        assert f"\n## neoseg {group} {name}\n" in page


def test_every_command_has_a_help_text() -> None:
    for name, command in SCRIPT._commands(GROUP):
        assert command.help, name
        assert all(p.help for p in command.params), name


@pytest.mark.parametrize("name", recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    assert config_from(tomllib.loads(recipe_text(name)), name).labels
    assert f"`{name}`" in (SCRIPT.FOLDER / "configuration.md").read_text(encoding="utf-8")


def test_every_metric_and_preset_is_in_the_docs() -> None:
    page = (SCRIPT.FOLDER / "metrics.md").read_text(encoding="utf-8")
    for name in [*(m.name for m in METRICS), *PRESETS]:
        assert f"| `{name}` |" in page


def test_every_field_has_a_meaning() -> None:
    schema = RunConfig.model_json_schema()
    for name, model in {"RunConfig": schema, **schema["$defs"]}.items():
        assert set(SCRIPT.meanings_of(model["title"])) == set(model["properties"]), name


def test_attributes_of_a_docstring() -> None:
    text, found = SCRIPT.attributes(
        "What it is.\n\nMore.\n\nAttributes:\n    one: first\n        and last.\n    low, high: both.\n\nSource: it."
    )
    assert text == "What it is. More."
    assert found == {"one": "first and last.", "low": "both.", "high": "both."}


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_to_files(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not target.startswith(("http", "#")):
            assert (path.parent / target.partition("#")[0]).exists(), target
    headings = {SCRIPT._anchor(h) for h in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for anchor in re.findall(r"\]\(#([^)\s]+)\)", text):
        assert anchor in headings, anchor


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_lines_to_be_typed_are_valid(path: Path) -> None:
    for line in code_lines(path):
        words = shlex.split(line.replace("\\", "/"))
        place = next((i for i, word in enumerate(words) if word.rpartition("/")[2] == "neoseg"), None)
        if place is None or len(words) == place + 1:
            continue
        command, *rest = words[place + 1 :]
        if command == "--version":
            continue
        assert command in COMMANDS or command in GROUPS, line
        found = GROUP.commands[command]
        if command in GROUPS:
            found, rest = found.commands[rest[0]], rest[1:]
        known = {flag for p in found.params for flag in p.opts} | {"--help"}
        assert {word for word in rest if word.startswith("-")} <= known, line


def test_both_readmes_have_the_same_commands() -> None:
    assert code_lines(README) == code_lines(README_ZH)
    assert code_lines(README)[:2] == ["make demo", "make test"]


def test_the_pinned_torch_is_the_one_in_the_texts() -> None:
    pin = next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("torch=="))
    named = {found for path in TEXTS for found in re.findall(r"torch==[\w.]+", path.read_text(encoding="utf-8"))}
    assert named == {pin}


def test_readme_keeps_the_place_of_the_numbers() -> None:
    for readme in (README, README_ZH):
        text = readme.read_text(encoding="utf-8")
        assert text.count("<!-- results:start -->") == text.count("<!-- results:end -->") == 1
        assert "benchmarks/results/" in text.partition("<!-- results:start -->")[2].partition("<!-- results:end -->")[0]
