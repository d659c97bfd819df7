"""What the channels of a network's answer stand for: classes that exclude each other, or regions that overlap.

With classes a voxel has one of them: one channel a class, the background first, and a softmax over the channels. With
regions (BraTS: whole tumour, tumour core, enhancing tumour) a voxel may lie in several: one channel a region, none for
the background, and a sigmoid for each. Labels and masks hold class indices in both cases. Which regions a class lies in
follows from the configuration; back from regions to classes, they are painted in their order, a later one over an
earlier one, each with the one class that stands in it and in no later one. What is painted from the regions of a class
is so that class again.

This is the one place that tells the two apart; the functions on tensors use their methods, so that no torch is loaded
where only names and counts are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError, nearest
from .labels import LabelSet, check_name

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CERTAIN_LOGIT", "REACHED", "Targets", "inside"]

CERTAIN_LOGIT = 30.0
"""Size of a logit that stands for certainty: with softmax and sigmoid the probability of the rest is below 1e-12."""

REACHED = 0.5
"""Least probability with which a voxel lies in a region."""


@dataclass(frozen=True)
class Targets:
    """What a network is asked for.

    Attributes:
        classes: names of the foreground classes in order; class ``i + 1`` is ``classes[i]``, class 0 is background.
        regions: name and class indices of each region, in the order of painting; empty: the classes themselves are
            asked for.
    """

    classes: tuple[str, ...]
    regions: tuple[tuple[str, tuple[int, ...]], ...] = ()

    @staticmethod
    def of(labels: LabelSet, regions: Mapping[str, Sequence[str]] | None = None) -> Targets:
        """Make targets from classes, and from regions given as names of classes.

        Raises:
            ConfigError: the classes cannot be told from the regions; the sentence names the region.
        """
        if regions is None:
            return Targets(labels.names)
        _check(labels.names, regions)
        return Targets(
            labels.names,
            tuple((name, tuple(labels.names.index(one) + 1 for one in members)) for name, members in regions.items()),
        )

    @staticmethod
    def of_classes(count: int) -> Targets:
        """Make targets from a number of classes, the background included, without names of their own."""
        return Targets(tuple(str(index) for index in range(1, count)))

    @property
    def overlapping(self) -> bool:
        """Whether regions are asked for: channels that do not exclude each other, and no background."""
        return bool(self.regions)

    @property
    def names(self) -> tuple[str, ...]:
        """What is asked for besides the background: the regions, or the foreground classes."""
        return tuple(name for name, _ in self.regions) or self.classes

    @property
    def channels(self) -> int:
        """Channels of the network's answer."""
        return len(self.regions) or len(self.classes) + 1

    @property
    def foreground(self) -> slice:
        """The channels that belong to ``names``."""
        return slice(None) if self.overlapping else slice(1, None)

    @property
    def members(self) -> tuple[tuple[int, ...], ...]:
        """Class indices of each of ``names``."""
        own = tuple((index,) for index in range(1, len(self.classes) + 1))
        return tuple(members for _, members in self.regions) or own

    @property
    def structures(self) -> dict[str, tuple[int, ...]]:
        """What is measured and scored: name to class indices, first ``names``, then the classes beside regions."""
        own = {name: (index,) for index, name in enumerate(self.classes, start=1)}
        return {**dict(zip(self.names, self.members, strict=True)), **own}

    @cached_property
    def painted(self) -> tuple[int, ...]:
        """The class that each region paints: the one that stands in it and in no later one."""
        later = [{i for own in self.members[place + 1 :] for i in own} for place in range(len(self.regions))]
        return tuple(
            next(index for index in own if index not in after)
            for (_, own), after in zip(self.regions, later, strict=True)
        )

    @property
    def told(self) -> str:
        """What is asked for in words, for comparisons with other targets: equal words mean equal channels."""
        if not self.overlapping:
            return f"the classes {', '.join(self.classes)}"
        regions = (f"{name} ({', '.join(self.classes[i - 1] for i in sorted(own))})" for name, own in self.regions)
        return f"the regions {', '.join(regions)}"

    def probabilities(self, logits: Tensor, dim: int) -> Tensor:
        """Return the probabilities of logits; ``dim`` is the axis of the channels."""
        return logits.sigmoid() if self.overlapping else logits.softmax(dim)

    def logits(self, probabilities: Tensor, least: float) -> Tensor:
        """Return logits that have these probabilities.

        Args:
            probabilities: 0..1.
            least: what stands in for smaller ones, and for regions for a smaller distance from 1, to stay finite.
        """
        logs = probabilities.clamp_min(least).log()
        return logs - (1 - probabilities).clamp_min(least).log() if self.overlapping else logs

    def background(self, *, logits: bool = False) -> list[float]:
        """Return what stands for certain background: the probability, or logit, of each channel."""
        if self.overlapping:
            return [-CERTAIN_LOGIT if logits else 0.0] * self.channels
        return [CERTAIN_LOGIT if logits else 1.0, *[0.0] * len(self.classes)]

    def whole(self, foreground: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the probabilities of all channels, given those of ``names`` ``(names, ...)``."""
        if self.overlapping:
            return foreground
        return np.concatenate([1 - foreground.sum(axis=0, keepdims=True), foreground])

    def classes_of(self, scores: Tensor, dim: int, *, logits: bool = False) -> Tensor:
        """Return the class index of each voxel of probabilities or logits: the most probable, or the painted one.

        Args:
            scores: channels along the axis ``dim``.
            dim: the axis.
            logits: whether these are logits.
        """
        if not self.overlapping:
            # argmax is many times slower on CPUs
            return scores.max(dim=dim).indices
        reached = (scores >= (0.0 if logits else REACHED)).unbind(dim)
        classes = reached[0].byte() * self.painted[0]
        for region, index in zip(reached[1:], self.painted[1:], strict=True):
            classes.masked_fill_(region, index)
        return classes

    def truth(self, classes: Tensor) -> Tensor:
        """Return what a loss compares logits ``(b, channels, ...)`` with.

        Args:
            classes: class indices ``(b, ...)``.

        Returns:
            The class indices themselves, or for regions bool ``(b, regions, ...)``.
        """
        if not self.overlapping:
            return classes
        table = classes.new_tensor([[i in own for own in self.members] for i in range(len(self.classes) + 1)]).bool()
        return table[classes.long()].movedim(-1, 1)


@overload
def inside(classes: NDArray[np.uint8], members: Sequence[int]) -> NDArray[np.bool_]: ...


@overload
def inside(classes: Tensor, members: Sequence[int]) -> Tensor: ...


def inside(classes: Any, members: Sequence[int]) -> Any:
    """Return where class indices are among some, as bool; ``members`` are one or more."""
    found = classes == members[0]
    for index in members[1:]:
        found = found | (classes == index)
    return found


def _check(classes: Sequence[str], regions: Mapping[str, Sequence[str]]) -> None:
    """Refuse regions from which the classes do not follow.

    Raises:
        ConfigError: naming the region.
    """
    if not regions:
        raise ConfigError("regions: the table names no region; write one such as whole = [...], or remove the table.")
    seen: dict[frozenset[str], str] = {}
    for name, members in regions.items():
        check_name("regions", name)
        if not members:
            raise ConfigError(f"regions.{name}: the region holds no class; name at least one of {_told(classes)}.")
        for one in members:
            if one not in classes:
                raise ConfigError(f"regions.{name}: {one!r} is not a class of [labels]{nearest(one, classes)}.")
        if len(set(members)) < len(members):
            raise ConfigError(f"regions.{name}: it names a class twice, {_told(members)} were given; name each once.")
        if (twin := seen.get(frozenset(members))) is not None:
            raise ConfigError(f"regions.{name}: it holds the same classes as regions.{twin}; remove one of them.")
        if name in classes and set(members) != {name}:
            raise ConfigError(
                f"regions.{name}: a class has this name too, but the region holds {_told(members)}; give the region "
                "another name."
            )
        seen[frozenset(members)] = name
    for one in classes:
        if not any(one in members for members in regions.values()):
            raise ConfigError(
                f"regions: the class {one!r} of [labels] lies in no region; add it to one, or remove it from [labels]."
            )
    names = list(regions)
    for place, (name, members) in enumerate(regions.items()):
        later = {one for other in names[place + 1 :] for one in regions[other]}
        left = [one for one in members if one not in later]
        if len(left) == 1:
            continue
        rule = "a region is painted as the one class that stands in it and in no later region"
        remedy = (
            "each of its classes stands in a later one, so none is left; order the regions from the largest to the "
            "innermost"
            if not left
            else f"{_told(left)} are left; add a region that tells them apart, or make them one class in [labels]"
        )
        raise ConfigError(f"regions.{name}: {rule}, but {remedy}.")


def _told(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))
