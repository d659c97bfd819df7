"""Configuration and plan of a run, and what to do where this version does not read them."""

from __future__ import annotations

from .. import __version__
from ..atomic import read_record
from ..config import RunConfig, load_resolved
from ..errors import StateError
from ..plan.plan import Plan, read_plan
from ..workspace import Run

__all__ = ["config_of", "plan_of", "remedy_of"]


def config_of(run: Run) -> RunConfig:
    """Return the configuration that a run was made with.

    Raises:
        ConfigError: its ``config.json`` is damaged or of another version, which the sentence names.
    """
    return load_resolved(run.config, remedy=remedy_of(run))


def plan_of(run: Run) -> Plan:
    """Return the plan that a run was made with.

    Raises:
        ConfigError: its ``plan.json`` is damaged or of another version, which the sentence names.
    """
    return read_plan(run.plan, remedy=remedy_of(run))


def remedy_of(run: Run) -> str:
    """Return what to do where a file of a run cannot be read."""
    try:
        version = read_record(run.environment, "").get("neoseg")
    except StateError:
        version = None
    if version not in (None, __version__):
        return f"the run was made by neoseg {version} and this is {__version__}, so use that version with it"
    return "copy the file again from where the run was made"
