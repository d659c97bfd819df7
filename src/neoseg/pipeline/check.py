"""Stage check: every problem of the data set at once."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..data.checks import Problem, run_checks
from ..data.checks.problem import error, warning
from ..data.folds import Fold, read_folds, too_few_subjects
from ..errors import GeometryError, InputError
from ..io import read_grid
from ..prepare.configs import ZADC, channels_read
from ..wording import listed
from .plan import has_folds
from .session import Session
from .suited import unsuited

__all__ = ["check", "require_clean"]

LEFT, RIGHT = {"left", "l", "lh"}, {"right", "r", "rh"}
"""Words in the names of classes that tell a side."""


def check(session: Session) -> list[Problem]:
    """Return every problem of the cases and of the images that the run reads of them, errors first."""
    folds, faults = _folds(session)
    found = run_checks(
        session.cases, session.labels, _needed(session), session.progress, folds=folds, read=session.read_of
    )
    few = [] if folds or faults else _few_subjects(session)
    own = [*faults, *few, *_settings(session), *_idle_template(session), *_idle_healthy(session), *_sides(session)]
    return sorted([*found, *own], key=lambda p: p.severity)


def _folds(session: Session) -> tuple[Sequence[Fold], list[Problem]]:
    """Return the folds that the plan will keep, and what is wrong with them; others it makes anew."""
    try:
        if not has_folds(session):
            return (), []
    except InputError:  # a file that cannot be read: the checks name it
        return (), []
    try:
        return read_folds(session.workspace.folds, {c.case: c.subject for c in session.trainable}), []
    except InputError as problem:
        return (), [error("", None, f"{problem} Or delete the file and plan again.")]


def _needed(session: Session) -> list[str]:
    """Return the channels that every patient has to bring."""
    brought = [c for c in session.channels_read if any(c in case.images for case in session.used)]
    always = channels_read(session.config.prepare, session.channels, makes_zmap=False)
    # where some bring a Z map, ADC is needed of the others only, and preparation says of whom
    return [c for c in brought if c in always or ZADC not in brought]


def _settings(session: Session) -> list[Problem]:
    """Report settings that the plan would refuse for images of as many axes as the first that can be read."""
    for case in session.used:
        if not set(session.read_of(case)) & set(case.images):
            continue
        try:
            axes = read_grid(session.grid_image(case)).ndim
        except (InputError, GeometryError):  # the checks name it
            continue
        return [error("", None, str(problem)) for problem in unsuited(session, axes)]
    return []


def _few_subjects(session: Session) -> list[Problem]:
    """Report that there are too few subjects for the folds."""
    subjects = {case.subject for case in session.trainable}
    told = too_few_subjects(len(subjects), session.config.folds) if session.used else None
    return [error("", None, told)] if told else []


def _idle_template(session: Session) -> list[Problem]:
    """Report a template that nothing in this run looks at."""
    given, config = session.config.template, session.config.prepare
    if given is None or session.makes_zmap or config.space == "template":
        return []
    why = "there is no [prepare.zmap]" if config.zmap is None else "no Z map has to be made"
    sentence = (
        f'template = {str(given)!r} is not used, because prepare.space is "native" and {why}; set one of the two, or '
        "remove it."
    )
    return [warning("", None, sentence)]


def _idle_healthy(session: Session) -> list[Problem]:
    """Report healthy cases that no atlas is built of: a person may have meant them to be trained on."""
    idle = [case.case for case in session.healthy if case.label is not None]
    if not idle or session.builds_atlas:
        return []
    sentence = (
        f"{len(idle)} of the group healthy with a label ({listed(sorted(idle))}) take no part in this run, which "
        'builds no atlas: trained and scored are those of the group "patient".'
    )
    return [warning("", None, sentence)]


def _sides(session: Session) -> list[Problem]:
    """Report classes of one side where trainings or predictions mirror left and right."""
    window, augment = session.config.window, session.config.augment
    keys = {
        "augment.flip_axes": augment.flip_axes if augment.flip_probability > 0 else (),
        "window.mirror_axes": window.mirror_axes,
    }
    mirrored = [key for key, axes in keys.items() if 0 in axes]
    words = {name: {word.lower() for word in re.split(r"[^A-Za-z]+", name)} for name in session.labels.names}
    left, right = (next((n for n, own in words.items() if own & of_side), None) for of_side in (LEFT, RIGHT))
    if left is None or right is None or not mirrored:
        return []
    sentence = (
        f"{left!r} and {right!r} are classes of one side each, but {' and '.join(mirrored)} mirror left and right, "
        "after which nothing but the rest of the image tells them apart; leave axis 0 out there."
    )
    return [warning("", None, sentence)]


def require_clean(problems: list[Problem]) -> None:
    """Go on when there are at most warnings.

    Raises:
        InputError: there are errors; the message holds the first and the number of all.
    """
    errors = [p for p in problems if p.severity == "error"]
    if errors:
        more = f" (and {len(errors) - 1} more; `neoseg check` lists all)" if len(errors) > 1 else ""
        raise InputError(f"{errors[0].told}{more}")
