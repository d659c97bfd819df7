"""Does a head belong to its group? Told from the affine registrations of all heads.

A head that lies turned, is mirrored, shows something else or has another size looks like any other once it is averaged.
Beside its group it stands out by the same numbers that tell a wrong optimum of a patient's registration: those of its
registration to the mean of the other heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..register.plausible import FAR_TURN_DEGREES, LEAST_OVERLAP, implausible, unlike_the_rest

__all__ = ["does_not_lie_on", "doubts", "other_values", "share_astray"]

PERCENTILES = (5, 25, 75, 95)
SPREADS, LEAST_SPREAD = 3.5, 0.05
"""Heads stand out when a percentile of their values over their median lies further from the group's median than this
many robust standard deviations, each at least the second number."""


def doubts(group: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Return head to sentences, for those heads only whose alignment has to be looked at.

    Args:
        group: head to what :meth:`neoseg.register.affine.AffineRegistration.facts` gave for it and the mean of the
            others.
    """
    beside = unlike_the_rest(group)
    told = {name: (*implausible(facts), *beside.get(name, ())) for name, facts in group.items()}
    return {name: sentences for name, sentences in told.items() if sentences}


def does_not_lie_on(facts: Mapping[str, Any]) -> str | None:
    """Return why a head cannot be averaged with the others, or None: the masks hardly overlap after alignment."""
    overlap = float(facts.get("affine_overlap", 1.0))
    if overlap >= LEAST_OVERLAP:
        return None
    return (
        f"after registration its brain overlaps with that of the group's first head with a Dice of only {overlap:.2f} "
        f"({LEAST_OVERLAP:g} is the least); is it a brain, stripped like the others?"
    )


def share_astray(group: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the share of a group that lies far turned or beside a head; above a half it is that head that is odd.

    Args:
        group: head to the numbers of its registration to that head.
    """
    astray: list[bool] = [
        facts.get("affine_turn_degrees", 0.0) > FAR_TURN_DEGREES or does_not_lie_on(facts) is not None
        for facts in group.values()
    ]
    return float(sum(astray)) / max(len(astray), 1)


def other_values(heads: Sequence[NDArray[np.floating]]) -> NDArray[np.bool_]:
    """Tell which heads have values that are distributed unlike those of the group, as another contrast has.

    Args:
        heads: the values inside the mask of each head.

    Returns:
        ``(heads,)``.
    """
    levels = np.array([np.percentile(values, (50, *PERCENTILES)) for values in heads])
    shares = levels[:, 1:] / levels[:, :1]
    away = np.abs(shares - np.median(shares, axis=0))
    spread = np.maximum(1.4826 * np.median(away, axis=0), LEAST_SPREAD)
    return np.asarray((away > SPREADS * spread).any(axis=1))
