"""Is an affine registration plausible? Seen by itself, and beside the rest of its cohort.

A wrong optimum looks like any other result: a matrix and a similarity. It stands out only beside others of its kind, so
each case is held against the median of the others, in units of their spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["implausible", "unlike", "unlike_the_rest"]

SPREADS = 3.5
"""A case is told about when it lies further from the median of the others than this many of their spreads."""

FAR_TURN_DEGREES = 60.0
"""Heads are scanned head first and roughly straight; a larger turn comes from a wrong header or a wrong optimum."""

LEAST_OVERLAP = 0.6
"""Dice of the two masks below which the heads can hardly lie on each other."""

CLOSE_RIVAL = 0.9
"""Share of the information that another orientation may reach before the way round the head lies is in doubt."""

BETTER_MIRRORED = 1.12
"""The mirror image may fit so much better by the chance asymmetry of two healthy heads of different people."""

_TO_DO = "look at its alignment and check the orientation in its header"


@dataclass(frozen=True)
class _Rule:
    """How one number is held against the others.

    Attributes:
        fact: its name.
        what: its name in the sentence.
        floor: smallest spread, in units of ``relative``: small cohorts often agree by chance.
        low, high: which side is suspicious.
        relative: the spread is of the logarithm, so a share, not a difference.
    """

    fact: str
    what: str
    floor: float
    low: bool
    high: bool
    relative: bool = True

    def scaled(self, values: Sequence[float]) -> NDArray[np.float64]:
        given = np.asarray(values, dtype=np.float64)
        return np.log(np.maximum(given, 1e-6)) if self.relative else given


RULES = (
    _Rule("affine_similarity", "similarity (nats)", 0.06, low=True, high=False),
    _Rule("affine_overlap", "overlap of the masks (Dice)", 0.015, low=True, high=False, relative=False),
    _Rule("affine_volume", "change of volume", 0.12, low=True, high=True),
    _Rule("affine_stretch", "stretch along one direction over another", 0.05, low=False, high=True),
    _Rule("affine_mirrored", "fit of the mirror image over that of the scan", 0.04, low=False, high=True),
)


def implausible(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return sentences about what is suspicious in the affine registration of one case, seen by itself.

    Args:
        facts: what :meth:`neoseg.register.affine.AffineRegistration.facts` returned; other entries are ignored, and
            without these there is nothing to say.
    """
    return tuple(s for s in (_turned(facts), _apart(facts), _in_doubt(facts), _mirrored(facts)) if s)


def unlike(facts: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return sentences about what sets the affine registration of one case apart from others of its kind.

    The centre of the others is their median and their spread 1.4826 times the median absolute deviation, at least a
    floor; with n others the limit lies 3.5 sqrt(1 + 1/n) spreads away, the width of a prediction interval.

    Args:
        facts: of one case, as for :func:`implausible`.
        others: of the other cases of the cohort, or of the cohort that a model was trained on, all registered to the
            same image; with none there is nothing to say.
    """
    found = (_unlike(rule, facts, others) for rule in RULES)
    return tuple(sentence for sentence in found if sentence)


def unlike_the_rest(cohort: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Hold each case of a cohort against all others and return case to sentences, for those that stand out only."""
    found = {
        case: unlike(facts, [other for name, other in cohort.items() if name != case]) for case, facts in cohort.items()
    }
    return {case: sentences for case, sentences in found.items() if sentences}


def _number(facts: Mapping[str, Any], name: str) -> float | None:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def _turned(facts: Mapping[str, Any]) -> str | None:
    turn = _number(facts, "affine_turn_degrees")
    if turn is None or turn <= FAR_TURN_DEGREES:
        return None
    return (
        f"Registration turned the head by {turn:.0f} degrees from the way its header says it lies, so the header is "
        f"wrong or the alignment is; left and right may be swapped too: {_TO_DO}."
    )


def _apart(facts: Mapping[str, Any]) -> str | None:
    overlap = _number(facts, "affine_overlap")
    if overlap is None or overlap >= LEAST_OVERLAP:
        return None
    return f"After registration the masks of the two heads overlap with a Dice of only {overlap:.2f}: {_TO_DO}."


def _in_doubt(facts: Mapping[str, Any]) -> str | None:
    rival = _number(facts, "affine_rival")
    if rival is None or rival <= CLOSE_RIVAL:
        return None
    return (
        f"A quite different orientation of the head reaches {100 * rival:.0f} % of the similarity of the one that "
        f"registration chose, so that choice is in doubt: {_TO_DO}."
    )


def _mirrored(facts: Mapping[str, Any]) -> str | None:
    mirrored = _number(facts, "affine_mirrored")
    if mirrored is None or mirrored <= BETTER_MIRRORED:
        return None
    return (
        f"The mirror image of the scan fits {100 * (mirrored - 1):.0f} % better than the scan, so left and right may "
        f"be swapped in its file: {_TO_DO}."
    )


def _unlike(rule: _Rule, facts: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> str | None:
    value = _number(facts, rule.fact)
    known = [number for number in (_number(other, rule.fact) for other in others) if number is not None]
    if value is None or not known:
        return None
    scaled = rule.scaled(known)
    centre = float(np.median(scaled))
    spread = max(rule.floor, 1.4826 * float(np.median(np.abs(scaled - centre))))
    reach = SPREADS * float(np.sqrt(1 + 1 / len(known))) * spread
    away = float(rule.scaled([value])[0]) - centre
    if not ((rule.low and away < -reach) or (rule.high and away > reach)):
        return None
    limit = centre + np.sign(away) * reach
    usual, edge = (np.exp(centre), np.exp(limit)) if rule.relative else (centre, limit)
    return (
        f"After registration its {rule.what} is {value:.2f}, but the other {len(known)} case(s) have {usual:.2f} in "
        f"the median, and {'less' if away < 0 else 'more'} than {edge:.2f} is not to be expected among them: {_TO_DO}."
    )
