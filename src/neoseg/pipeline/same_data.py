"""Whether the folds of a run were trained on the data of now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..data.folds import Fold
from ..data.store import digest
from .fine_tune import FoldStart, fold_starts
from .session import Session

__all__ = ["inputs_of", "require_same_data"]


def require_same_data(session: Session, failed: Sequence[str]) -> None:
    """Refuse other data than those that the folds have begun with, before the run's records tell of the new ones.

    Args:
        session: the run.
        failed: cases that could not be prepared.

    Raises:
        StateError: a fold has begun with others.
    """
    from ..training.segments import require_same

    starts = fold_starts(session)
    for index, fold in enumerate(session.folds):
        require_same(
            session.run.fold(index),
            {
                "inputs": inputs_of(session, fold, starts.get(index)),
                "train": [name for name in fold.train if name not in failed],
                "validation": [name for name in fold.inner if name not in failed],
            },
        )


def inputs_of(session: Session, fold: Fold, start: FoldStart | None) -> str:
    """Hash of the prepared cases of a fold, the loss and the first weights, so that others are not mixed in."""
    keys = [session.store.record(n)["key"] for n in (*fold.train, *fold.inner) if session.store.has_any(n)]
    parts: list[Any] = [session.store.folder.name, keys, session.config.loss.model_dump(mode="json")]
    return digest(parts if start is None else [*parts, start.weights])
