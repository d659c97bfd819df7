"""What a run was made from: its settings as they were given, and the hashes of every file that it read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..atomic import read_record
from ..config import RunConfig, config_from
from ..data.cases import NO_CHANNELS, Case
from ..data.store import files_digest
from ..data.units import UNITS_OF_ADC, channel_kind, factor_to_micro
from ..errors import StateError
from ..workspace import Run, write_if_changed
from .made_with import remedy_of
from .session import Session

__all__ = [
    "case_facts",
    "channels_of_table",
    "given_config",
    "keep_given",
    "manifest_of",
    "read_manifest",
    "usual_units",
]

REMEDY = "only a run that `neoseg train` or `neoseg run` of this version has made can be used here"

AFTER_TRAINING = ("window", "postprocess", "rules", "evaluate")
"""Parts of the configuration that may change once a run is trained."""


def manifest_of(session: Session) -> dict[str, Any]:
    """Return what ``manifest.json`` of a run holds.

    That is ``given``, the fields of the configuration that were set (all others have the defaults of the version that
    ``environment.json`` names; a default that the plan may overrule is told from a set value by that), ``cases``, and
    ``template``, the hash of the files of a given template or atlas.
    """
    template = session.config.template
    return {
        "given": session.config.model_dump(mode="json", exclude_unset=True),
        "cases": {case.case: case_facts(session, case) for case in session.cases},
        "template": None if template is None else _template_digest(template),
    }


def case_facts(session: Session, case: Case) -> dict[str, Any]:
    """Return where a case belongs and the hashes of its files, 16 hexadecimal digits of SHA-256 each."""
    found = session.digests(case)
    where = {"subject": case.subject, "site": case.site, "group": case.group, "split": case.split}
    return {**where, "files": found["files"], "index": found["index"], "units": found["units"]}


def read_manifest(run: Run) -> dict[str, Any]:
    """Return what ``manifest.json`` of a run holds.

    Raises:
        StateError: there is none, or it is damaged.
    """
    if not run.manifest.is_file():
        raise StateError(f"{run.manifest}: there is no such file; {REMEDY}.")
    found = read_record(run.manifest, REMEDY)
    if not isinstance(found.get("given"), dict) or not isinstance(found.get("cases"), dict):
        raise StateError(f"{run.manifest}: this file is damaged (settings or cases are missing); {REMEDY}.")
    return found


def given_config(run: Run) -> RunConfig:
    """Return the configuration of a run with just those fields set that were set when its stages were done.

    Raises:
        StateError: there is no whole manifest.
        ConfigError: it was written by another version.
    """
    return config_from(read_manifest(run)["given"], str(run.manifest), remedy=remedy_of(run))


def keep_given(run: Run, config: RunConfig) -> None:
    """Write into the manifest of a run what is given now for the stages after the training.

    All else stays as the run was trained with: a length, say, that is set now would read as one that was set then. A
    damaged manifest stays as it is, too; the training writes it anew, and what needs it says so.
    """
    try:
        manifest = read_manifest(run)
    except StateError:
        return
    now = config.model_dump(mode="json", exclude_unset=True)
    given = dict(manifest["given"])
    for key in AFTER_TRAINING:
        if key in now:
            given[key] = now[key]
        else:
            given.pop(key, None)
    write_if_changed(run.manifest, manifest | {"given": given})


def usual_units(run: Run) -> dict[str, str]:
    """Return the channels that ``cases.csv`` gave units of ADC, with the unit that all training cases have.

    It is "" where they have different ones; a channel called ADC is then left out, since the unit of each of its maps
    is told from the map. Of a run without a manifest nothing is known.

    Raises:
        StateError: the manifest is damaged.
    """
    if not run.manifest.is_file():
        return {}
    declared: dict[str, list[str]] = {}
    try:
        for facts in read_manifest(run)["cases"].values():
            if (facts["group"], facts["split"]) == ("patient", "train") and "label" in facts["files"]:
                for name in facts["files"]:
                    declared.setdefault(name, []).append(facts["units"].get(name, ""))
    except (KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{run.manifest}: this file is damaged ({error!r} in its cases); {REMEDY}.") from error
    found = {}
    for channel, units in declared.items():
        if not any(unit in UNITS_OF_ADC for unit in units):
            continue
        named = channel_kind(channel) == "adc"
        # without a unit the values are taken as they are, but those of a channel called ADC are looked at
        factors = {factor_to_micro(u) if u in UNITS_OF_ADC else 1.0 for u in units if u or not named}
        if len(factors) == 1:
            found[channel] = next(unit for unit in units if unit in UNITS_OF_ADC)
        elif not named:
            found[channel] = ""
    return found


def channels_of_table(run: Run) -> tuple[str, ...]:
    """Return all channels of the ``cases.csv`` of a run in its order; none where there is no manifest.

    Raises:
        StateError: the manifest is damaged.
    """
    if not run.manifest.is_file():
        return ()
    try:
        files = [list(facts["files"]) for facts in read_manifest(run)["cases"].values()]
    except (KeyError, TypeError, AttributeError) as error:
        raise StateError(f"{run.manifest}: this file is damaged ({error!r} in its cases); {REMEDY}.") from error
    # cases that have all of them first: one that lacks some does not say where these belong
    names = dict.fromkeys(name for case in sorted(files, key=len, reverse=True) for name in case)
    return tuple(name for name in names if name not in NO_CHANNELS)


def _template_digest(path: Path) -> str:
    return files_digest(sorted(path.glob("atlas.*")) if path.is_dir() else [path])
