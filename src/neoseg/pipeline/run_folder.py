"""What a run folder holds besides the weights, so that it predicts wherever it is copied to."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..atomic import replacing
from ..data.cases import Case
from ..data.store import file_digest
from ..errors import StateError
from ..io import COLOURS, is_planar, volumes_in
from ..plan.plan import Plan
from ..prepare.standardise import Template
from ..workspace import write_if_changed
from .environment import environment
from .lengths import without_length
from .made_with import config_of, plan_of
from .manifest import keep_given, manifest_of
from .prepare import registrations, template_of
from .scan_files import Stacked
from .session import Session

__all__ = ["keep_config", "make_self_contained", "require_trained_alike"]

TRAINED_WITH = (
    "seed", "labels", "regions", "label_tolerance", "label_instances", "channels", "folds", "prepare", "atlas",
    "network", "loss", "augment", "training",
)  # fmt: skip
"""Parts of the configuration that the weights of a run depend on."""


def keep_config(session: Session) -> None:
    """Write the configuration into the run folder; the length of the training may differ from before.

    ``config.json`` gets all of it. A manifest that is there gets what was given for the stages after the training.

    Raises:
        StateError: the run was trained with other values of what its weights depend on.
    """
    _require_config(session)
    write_if_changed(session.run.config, session.config.model_dump(mode="json"))
    keep_given(session.run, session.config)


def _require_config(session: Session) -> None:
    run, now = session.run, session.config.model_dump(mode="json")
    if run.config.is_file() and any(run.folder.glob("fold*/training.json")):
        before = config_of(run).model_dump(mode="json")
        for tree in (before, now):
            tree["training"] = without_length(tree["training"])
        changed = [key for key in TRAINED_WITH if before[key] != now[key]]
        # equal tables may have another order, which is that of the network's channels
        if before["regions"] == now["regions"] and list(before["regions"] or ()) != list(now["regions"] or ()):
            changed.append("regions (their order)")
        if changed:
            raise StateError(
                f"{run.folder}: this run was trained with other values of {', '.join(changed)}; choose another `name` "
                "in the configuration, or delete this folder to train anew."
            )


def require_trained_alike(session: Session, plan: Plan) -> None:
    """Refuse a run that was trained with another plan or another configuration.

    Raises:
        StateError: it was.
    """
    run = session.run
    trained = run.plan.is_file() and any(run.folder.glob("fold*/training.json"))
    if trained and plan_of(run).decisions() != plan.decisions():
        raise StateError(
            f"{run.folder}: this run was trained with another plan; choose another `name` in the configuration, or "
            "delete this folder to train anew."
        )
    _require_config(session)


def make_self_contained(session: Session, plan: Plan, failed: Sequence[str]) -> None:
    """Put into the run folder what prediction needs besides the weights.

    Raises:
        StateError: as :func:`require_trained_alike`.
    """
    run = session.run
    require_trained_alike(session, plan)
    keep_config(session)
    write_if_changed(run.plan, plan.model_dump(mode="json"))
    write_if_changed(run.environment, environment())
    write_if_changed(run.manifest, manifest_of(session))
    write_if_changed(run.folder / "folds.json", [asdict(f) for f in session.folds])
    if (stacked := _stacked([c for c in session.trainable if c.case not in failed])) is not None:
        write_if_changed(run.stacked, asdict(stacked))
    if session.makes_zmap:
        _copy_atlas(session.config.template or session.workspace.atlas, run.atlas)
    if (template := template_of(session)) is not None:
        _keep_template(template, run.template)
    if found := registrations(session, session.trainable):
        write_if_changed(run.registrations, found)


def _stacked(cases: Sequence[Case]) -> Stacked | None:
    """Return how the channels lie in the 4-D files of the cases; None unless all have such files, and alike."""
    first, *others = [_stack_of(case) for case in cases] or [None]
    return first if all(other == first for other in others) else None


def _stack_of(case: Case) -> Stacked | None:
    files = set(case.images.values())
    if len(files) != 1 or not case.channel_index:
        return None
    file = files.pop()
    if is_planar(file):
        return Stacked(len(COLOURS), case.channel_index, colours=True)
    return Stacked(volumes_in(file), case.channel_index)


def _copy_atlas(source: Path, target: Path) -> None:
    """Copy the files of an atlas, each whole, where the copy is not there or differs."""
    from ..prepare.atlas import Atlas

    Atlas.load(source)
    for file in sorted(source.glob("atlas.*")):
        copy = target / file.name
        if not copy.is_file() or file_digest(copy) != file_digest(file):
            with replacing(copy) as temporary:
                shutil.copyfile(file, temporary)


def _keep_template(template: Template, target: Path) -> None:
    """Write a template unless the folder holds just that one."""
    if (target / "template.npz").is_file():
        there = Template.load(target)
        parts = [(t.image.array, t.mask, t.image.grid.affine) for t in (there, template)]
        if all(np.array_equal(a, b) for a, b in zip(*parts, strict=True)):
            return
    template.save(target)
