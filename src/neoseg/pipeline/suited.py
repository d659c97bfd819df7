"""What of a configuration does not suit the images that it is for: told by the check, refused by the plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from ..errors import ConfigError, nearest
from ..plan.plan import require_axes, with_axes
from .session import Session

__all__ = ["unsuited"]


def unsuited(session: Session, axes: int) -> list[ConfigError]:
    """Return what is wrong with the settings for images of so many axes, a sentence each.

    Args:
        session: the configuration, and the channels that the cases bring.
        axes: spatial axes of the images, 2 or 3.
    """
    found = []
    for require in _requirements(session, axes):
        try:
            require()
        except ConfigError as error:
            found.append(error)
    return found


def _requirements(session: Session, axes: int) -> Iterator[Callable[[], object]]:
    config = session.config
    yield partial(_require_volumes, session, axes)
    yield partial(config.window.require_axes, axes)
    yield partial(config.augment.require_axes, axes)
    yield partial(with_axes, config.network, axes)
    for key, given in (("plan.spacing_mm", config.plan.spacing_mm), ("plan.patch", config.plan.patch)):
        if given is not None:
            yield partial(require_axes, key, given, axes)
    for channel in config.prepare.normalise:
        yield partial(_require_channel, session, channel)


def _require_volumes(session: Session, axes: int) -> None:
    prepare = session.config.prepare
    steps = {
        "prepare.bias_field": prepare.bias_field is not None,
        "prepare.zmap": prepare.zmap is not None,
        'prepare.space = "template"': prepare.space == "template",
    }
    for step, wanted in steps.items():
        if wanted and axes == 2:
            raise ConfigError(f"{step}: this step is for volumes, but the images are 2-D; remove it.")


def _require_channel(session: Session, name: str) -> None:
    if name not in session.channels:
        raise ConfigError(f"prepare.normalise.{name}: this is not a channel{nearest(name, session.channels)}.")
