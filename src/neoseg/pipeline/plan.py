"""Stage plan: read the training cases once, decide the folds and the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ..atomic import read_json
from ..cluster.local import Outcome, run_each
from ..data.folds import make_folds, write_folds
from ..data.store import digest
from ..errors import ConfigError, InputError
from ..plan.budget import StepSettings
from ..plan.comparison import compared_with_nnunet
from ..plan.fingerprint import FORMAT, CaseFacts, Fingerprint, case_facts, read_fingerprint, write_fingerprint
from ..plan.plan import Plan, PlanConfig, Reason, make_plan, read_plan, write_plan
from ..plan.scales import PatchScales
from ..plan.topology import target_spacing
from ..prepare.standardise import Template
from .devices import resolved_device
from .prepare import template_of
from .session import Session
from .suited import unsuited

__all__ = ["compared", "is_planned", "plan", "plan_key", "planned_with"]

FEWEST_CASES = 3
"""Labelled training cases: one to train on, one to choose the epoch with, one to score."""


@dataclass(frozen=True)
class _Keys:
    """Hashes of what the fingerprint, the folds and the plan are made from."""

    data: str
    folds: str
    inputs: str


def plan(session: Session) -> Plan:
    """Return the plan, making fingerprint, folds and plan where they are missing or out of date.

    A ``plan.json`` or ``folds.json`` that was edited is obeyed as long as the data and the configuration stay as
    they were when it was made.

    Raises:
        InputError: too few labelled training cases, or an unusable file.
        ConfigError: an overruled value that does not fit.
    """
    config, workspace = session.config, session.workspace
    if len(session.trainable) < FEWEST_CASES:
        raise InputError(
            f"{config.cases}: {len(session.trainable)} labelled training cases were found, but at least {FEWEST_CASES} "
            "are needed; add labels, or rows with split = train."
        )
    keys = _keys(session)
    fingerprint = _fingerprint(session, keys.data)
    facts = list(fingerprint.cases)
    for problem in unsuited(session, len(facts[0].spacing_mm)):
        raise problem
    if not _has_key(session, keys.folds):
        burden = dict.fromkeys(fingerprint.failed, 0.0) | {f.case: f.burden for f in facts}
        subjects = {c.case: c.subject for c in session.trainable}
        folds = make_folds(subjects, burden, config.folds, np.random.default_rng([config.seed, 1]))
        write_folds(workspace.folds, folds, keys.folds)
    if workspace.plan.is_file():
        old = _read(session)
        if old.inputs == keys.inputs:
            config.augment.require_room(old.patch, old.spacing_mm)
            return old
    template = template_of(session)
    made = _made(session, facts, template, config.plan, _batch(session), keys.inputs)
    if template is not None:
        reason = Reason(what="space", value="template", why="prepare.space; every case has the template's grid")
        own = {"spacing": f"{len(facts)} training cases, as in native space", "size": "the template with a margin"}
        rest = [r.model_copy(update={"inputs": own.get(r.what, r.inputs)}) for r in made.reasons]
        made = made.model_copy(update={"reasons": (reason, *rest)})
    if fingerprint.failed:
        whole = len(session.trainable)
        told = " ".join(fingerprint.failed.values())
        reason = Reason(what="cases", value=f"{len(facts)} of {whole}", why=f"the others cannot be used: {told}")
        made = made.model_copy(update={"reasons": (reason, *made.reasons)})
    config.augment.require_room(made.patch, made.spacing_mm)
    write_plan(made, workspace.plan)
    return made


def planned_with(session: Session, patch: tuple[int, ...], batch: int) -> Plan:
    """Return the plan that the same cases get when patch and batch are given; nothing is written.

    Raises:
        ConfigError, GeometryError: these do not suit the network.
    """
    keys = _keys(session)
    facts = list(_fingerprint(session, keys.data).cases)
    config = session.config.plan.model_copy(update={"patch": patch})
    return _made(session, facts, template_of(session), config, batch, keys.inputs)


def _made(
    session: Session, facts: list[CaseFacts], template: Template | None, config: PlanConfig, batch: int | None, key: str
) -> Plan:
    """Return the plan of the facts, as it would be in a workspace."""
    from ..inference.precision import is_reduced

    settings = session.config
    return make_plan(
        facts if template is None else _as_in_template(facts, template, config),
        channels=session.channels,
        network=settings.network,
        normalise=settings.prepare.normalise,
        config=config,
        step=StepSettings(
            batch,
            is_reduced(settings.training.precision, resolved_device(settings.device)),
            PatchScales.of(settings.training.patch_scales, len(facts[0].spacing_mm)),
            session.labels.count,  # not of regions: a plan does not depend on them
        ),
        inputs=key,
    )


def compared(session: Session) -> tuple[Reason, ...]:
    """Return what nnU-Net would choose for the training cases, for comparison.

    Raises:
        InputError: too few training cases can be read.
    """
    facts = _fingerprint(session, _keys(session).data).cases
    if len(facts[0].spacing_mm) == 2:
        return (Reason(what="nnU-Net", value="not compared", why="its rules are kept here for volumes only"),)
    return compared_with_nnunet(facts, session.labels.count)


def plan_key(session: Session) -> str:
    """Return a hash of what the plan and the folds are made from."""
    keys = _keys(session)
    return digest([keys.folds, keys.inputs])


def has_folds(session: Session) -> bool:
    """Tell whether the workspace has folds, made from the cases and the configuration of now.

    Raises:
        InputError: a file of a case, or ``folds.json``, cannot be read.
    """
    return session.workspace.folds.is_file() and _has_key(session, _keys(session).folds)


def is_planned(session: Session) -> bool:
    """Tell whether the workspace has a plan and folds, made from the cases and the configuration of now.

    Raises:
        ConfigError, InputError: ``plan.json`` or ``folds.json`` cannot be read.
    """
    keys, path = _keys(session), session.workspace.plan
    return path.is_file() and _read(session).inputs == keys.inputs and _has_key(session, keys.folds)


def _read(session: Session) -> Plan:
    """Return the plan of the workspace, which a person may have edited.

    Raises:
        ConfigError: a wrong key or value, or channels other than those of the run.
    """
    path = session.workspace.plan
    found = session.pinned.plan if session.pinned else read_plan(path)
    if found.inputs == _keys(session).inputs and found.channels != session.channels:
        raise ConfigError(
            f"{path}: channels is {list(found.channels)}, but the run has {list(session.channels)}; set `channels` in "
            "the configuration instead, or delete the file to plan anew."
        )
    return found


def _keys(session: Session) -> _Keys:
    config, precision = session.config, session.config.training.precision
    labels = list(config.labels.items())  # in their order, which numbers the classes
    parts = [[session.digests(c) for c in session.trainable], labels, config.label_key, session.channels]
    data = digest([*parts, *([session.channels_read] if session.channels_read != session.channels else [])])
    return _Keys(
        data=data,
        folds=digest([data, session.table_key, config.folds.model_dump(mode="json"), config.seed]),
        inputs=digest(
            [
                data,
                config.plan.model_dump(mode="json"),
                config.network.model_dump(mode="json"),
                sorted(config.network.model_fields_set),
                config.prepare.model_dump(mode="json")["normalise"],
                session.atlas_key if config.prepare.space == "template" else None,
                _batch(session),
                *([list(config.training.patch_scales)] if config.training.patch_scales else []),
                # a budget buys more steps in half of the bits; what "auto" is depends on the machine, and a workspace
                # that is carried elsewhere keeps its plan
                *([precision] if config.plan.core_minutes is not None and precision != "auto" else []),
            ]
        ),
    )


def _as_in_template(facts: Sequence[CaseFacts], template: Template, config: PlanConfig) -> list[CaseFacts]:
    """Return the facts that the cases have in template space: one grid, of the spacing that native space would get.

    Raises:
        GeometryError: the images have not three axes.
    """
    spacing = config.spacing_mm or target_spacing([f.spacing_mm for f in facts], [f.foreground_shape for f in facts])
    shape = template.grid(spacing).shape
    return [f.model_copy(update={"spacing_mm": spacing, "shape": shape, "foreground_shape": shape}) for f in facts]


def _batch(session: Session) -> int | None:
    """Patches a step where the user set them."""
    training = session.config.training
    return training.batch_size if "batch_size" in training.model_fields_set else None


def _fingerprint(session: Session, key: str) -> Fingerprint:
    """Return the facts of every training case that can be read; the others are listed, and preparation tells them."""
    path, stamp = session.workspace.fingerprint, session.workspace.root / "fingerprint.key"
    key = f"{key} {FORMAT}"
    if path.is_file() and stamp.is_file() and stamp.read_text(encoding="utf-8").strip() == key:
        return read_fingerprint(path)
    work = partial(case_facts, channels=session.channels, labels=session.labels, read=session.channels_read)
    outcomes: list[Outcome[CaseFacts]] = run_each(
        work, session.trainable, title="Reading cases", progress=session.progress, jobs=session.config.jobs
    )
    failed = {c.case: o.error for c, o in zip(session.trainable, outcomes, strict=True) if o.error is not None}
    fingerprint = Fingerprint(cases=tuple(o.value for o in outcomes if o.value is not None), failed=failed)
    if len(fingerprint.cases) < FEWEST_CASES:
        raise InputError(
            f"{len(fingerprint.cases)} of {len(outcomes)} training cases can be used, but at least {FEWEST_CASES} are "
            f"needed; the first that cannot: {next(iter(failed.values()))}"
        )
    write_fingerprint(path, fingerprint)
    stamp.write_text(key + "\n", encoding="utf-8")
    return fingerprint


def _has_key(session: Session, key: str) -> bool:
    path = session.workspace.folds
    try:
        return path.is_file() and read_json(path).get("key") == key
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: this is not a table of folds ({error}); delete it and plan again.") from error
