"""Stage plan: read the training cases once, decide the folds and the plan."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..atomic import read_json
from ..cluster.local import run_all
from ..data.folds import make_folds, write_folds
from ..data.store import digest
from ..errors import ConfigError, InputError, nearest
from ..plan.fingerprint import CaseFacts, case_facts, read_facts, write_facts
from ..plan.plan import Plan, make_plan, read_plan, write_plan
from .session import Session

__all__ = ["plan"]


def plan(session: Session) -> Plan:
    """Return the plan, making fingerprint, folds and plan where they are missing or out of date.

    A ``plan.json`` or ``folds.json`` that was edited is obeyed as long as the data and the configuration stay as
    they were when it was made.

    Raises:
        InputError: too few labelled training cases, or an unusable file.
        ConfigError: an overruled value that does not fit.
    """
    config, workspace = session.config, session.workspace
    if len(session.trainable) < 3:
        raise InputError(
            f"{config.cases}: {len(session.trainable)} labelled training cases were found, but at least 3 are needed."
        )
    data_key = digest(
        [[session.digests(c) for c in session.trainable], config.labels, config.label_tolerance, session.channels]
    )
    facts = _facts(session, data_key)
    for name in config.prepare.normalise:
        if name not in session.channels:
            raise ConfigError(f"prepare.normalise.{name}: this is not a channel{nearest(name, session.channels)}.")
    folds_key = digest([data_key, session.table_key, config.folds.model_dump(mode="json"), config.seed])
    if not _has_key(session, folds_key):
        burden = {f.case: f.burden for f in facts}
        subjects = {c.case: c.subject for c in session.trainable}
        folds = make_folds(subjects, burden, config.folds, np.random.default_rng([config.seed, 1]))
        write_folds(workspace.folds, folds, folds_key)
    batch = config.training.batch_size if "batch_size" in config.training.model_fields_set else None
    inputs = digest(
        [
            data_key,
            config.plan.model_dump(mode="json"),
            config.network.model_dump(mode="json"),
            sorted(config.network.model_fields_set),
            config.prepare.model_dump(mode="json")["normalise"],
            batch,
        ]
    )
    if workspace.plan.is_file():
        old = read_plan(workspace.plan)
        if old.inputs == inputs:
            return old
    made = make_plan(
        facts,
        channels=session.channels,
        network=config.network,
        normalise=config.prepare.normalise,
        config=config.plan,
        batch=batch,
        inputs=inputs,
    )
    write_plan(made, workspace.plan)
    session.keep_digests()
    return made


def _facts(session: Session, key: str) -> list[CaseFacts]:
    path, stamp = session.workspace.fingerprint, session.workspace.root / "fingerprint.key"
    if path.is_file() and stamp.is_file() and stamp.read_text().strip() == key:
        return read_facts(path)
    work = partial(case_facts, channels=session.channels, labels=session.labels)
    facts = run_all(work, session.trainable, title="Reading cases", progress=session.progress, jobs=session.config.jobs)
    write_facts(path, facts)
    stamp.write_text(key + "\n")
    return facts


def _has_key(session: Session, key: str) -> bool:
    path = session.workspace.folds
    try:
        return path.is_file() and read_json(path).get("key") == key
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: this is not a table of folds ({error}); delete it and plan again.") from error
