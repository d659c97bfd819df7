"""Files of a run that this version does not read: which version made it, and no advice that would ruin it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from neoseg import __version__
from neoseg.config import config_from
from neoseg.errors import ConfigError
from neoseg.pipeline.made_with import config_of, plan_of
from neoseg.pipeline.manifest import given_config
from neoseg.plan.plan import write_plan
from neoseg.workspace import Run
from test_plan import planned

Read = Callable[[Run], Any]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A run folder without weights."""
    run = Run(tmp_path / "first")
    run.folder.mkdir()
    given = {"labels": {"lesion": 1}}
    run.config.write_text(config_from(given, "x").model_dump_json())
    run.manifest.write_text(json.dumps({"given": given, "cases": {}}))
    write_plan(planned(), run.plan)
    return run


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


FILES: dict[str, tuple[Read, Callable[[Run], Path], dict[str, Any], str]] = {
    "a plan": (plan_of, lambda r: r.plan, {"network": {"kind": "mamba"}}, "network.kind = 'mamba' is not known"),
    "a configuration": (config_of, lambda r: r.config, {"newthing": 1}, "the key 'newthing' is not known"),
    "a manifest": (given_config, lambda r: r.manifest, {"given": {"newthing": 1}}, "the key 'newthing'"),
}


@pytest.mark.parametrize("file", FILES)
def test_the_version_that_made_the_run_is_named(run: Run, file: str) -> None:
    read, path_of, values, problem = FILES[file]
    read(run)
    change(path_of(run), **values)
    for version, remedy in (
        ("9.1.0", f"made by neoseg 9.1.0 and this is {__version__}"),
        (__version__, "copy the file again"),
        (None, "copy the file again"),
    ):
        run.environment.write_text(json.dumps({"neoseg": version}))
        with pytest.raises(ConfigError) as caught:
            read(run)
        told = str(caught.value)
        assert problem in told and remedy in told and str(path_of(run)) in told
        assert not any(word in told for word in ("delete", "remove", "correct", "_kind_of", ".;"))
    run.environment.unlink()
    with pytest.raises(ConfigError, match="copy the file again"):
        read(run)


def test_a_new_key_of_the_network_is_called_unknown(run: Run) -> None:
    network = json.loads(run.plan.read_text())["network"]
    change(run.plan, network=network | {"newthing": 1})
    with pytest.raises(ConfigError, match=r"the key 'network\.newthing' is not known"):
        plan_of(run)
