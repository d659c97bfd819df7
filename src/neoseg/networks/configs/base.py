"""What every network's config tells those who plan patches and cut windows."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from neoseg.errors import GeometryError

__all__ = [
    "MOST_LEVELS",
    "NetworkBase",
    "Norm",
    "Positive",
    "Share",
    "Widths",
    "axes_wanted",
    "check_lowest",
    "check_patch",
    "longer",
    "lowest_voxels_of",
    "required_multiple",
    "times",
]

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
MOST_LEVELS = 8
Widths = Annotated[tuple[Positive, ...], Field(min_length=2, max_length=MOST_LEVELS)]
Norm = Literal["batch", "instance", "group"]


class NetworkBase(BaseModel, ABC, frozen=True, extra="forbid"):
    """The part that all networks share.

    Attributes:
        kind: the name of the network in configuration files.
        spatial_dims: axes of the images: 3 for volumes (B, c, x, y, z), 2 for planes (B, c, x, y).
        deep_supervision: several outputs in training, full size first, in place of one.
    """

    kind: str
    spatial_dims: Literal[2, 3] = 3
    deep_supervision: bool = True

    @property
    @abstractmethod
    def any_size(self) -> bool:
        """Whether a built network takes images of any size, so that a whole volume may go in at once."""

    @property
    @abstractmethod
    def multiple(self) -> tuple[int, ...]:
        """What each axis of a patch has to be a multiple of.

        Raises:
            ConfigError: a field that the plan has to fill is empty.
        """

    @property
    def learns_positions(self) -> bool:
        """Whether the network learns where in a patch a voxel lies, so that images of other sizes may suit it badly."""
        return False

    @property
    def lowest_voxels(self) -> int:
        """How many voxels a patch has to leave at the lowest level, so that they can be normalised."""
        return 1


def axes_wanted(entries: int, spatial_dims: int) -> str:
    """Return in words how many entries a field of one an axis needs, where it has another number."""
    wanted = f"with spatial_dims = {spatial_dims} give it {spatial_dims}"
    return f"{wanted}, or set spatial_dims = 2 for pictures" if entries == 2 else wanted


def lowest_voxels_of(norm: str, *, one_a_group: bool = False) -> int:
    """Return how many voxels a normalisation needs of each image: a single one has no spread within its image.

    Args:
        norm: the normalisation.
        one_a_group: whether its groups are of one channel each, so that "group" is no other than "instance".
    """
    return 2 if norm in ("instance", "plain_instance") or (norm == "group" and one_a_group) else 1


def required_multiple(config: NetworkBase) -> tuple[int, ...]:
    """Return what each axis of a patch has to be a multiple of.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
    """
    return config.multiple


def check_patch(config: NetworkBase, patch: Sequence[int]) -> None:
    """Refuse a patch that the network cannot halve evenly down to its lowest level.

    Networks that take any size are built for such a patch too; other sizes are padded when they come in.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
        GeometryError: a wrong number of axes or a size that is no multiple; the nearest right patch is named.
    """
    multiples = config.multiple
    if len(patch) != len(multiples):
        raise GeometryError(
            f"The patch {times(patch)} has {len(patch)} axes and the network has {len(multiples)}: give "
            f"{len(multiples)} sizes."
        )
    if any(size < 1 or size % multiple for size, multiple in zip(patch, multiples, strict=True)):
        right = tuple(
            max(round(size / multiple), 1) * multiple for size, multiple in zip(patch, multiples, strict=True)
        )
        while math.prod(right) < config.lowest_voxels * math.prod(multiples):
            right = longer(right)
        raise GeometryError(
            f"The patch {times(patch)} does not suit a network whose axes must be multiples of {times(multiples)}: "
            f"the nearest right patch is {times(right)}."
        )


def check_lowest(
    config: NetworkBase, sizes: Sequence[int], least: int | None = None, given: Sequence[int] | None = None
) -> None:
    """Refuse sizes that leave a single voxel at the lowest level where single voxels cannot be normalised.

    Args:
        config: the network.
        sizes: of an image, multiples of what the network asks.
        least: voxels that have to be left; None takes the network's own number.
        given: the sizes before they were padded to multiples.

    Raises:
        ConfigError: a field that the plan has to fill is empty.
        GeometryError: there are fewer.
    """
    needed = config.lowest_voxels if least is None else least
    if math.prod(sizes) < needed * math.prod(config.multiple):
        fields = type(config).model_fields
        light = getattr(config, "light", None) is not None
        by_norm = least is not None or lowest_voxels_of(getattr(config, "norm", "")) > 1
        others = [
            what
            for what, possible in (
                ("a batch of two", least is not None),
                ("fewer levels", not light and not fields.keys().isdisjoint(("widths", "dims", "blocks_down"))),
                ("network.encoder = 'plain'", light),
                ("network.norm = 'group'", by_norm and "norm" in fields),
                ("a wider lowest level", not by_norm),
            )
            if possible
        ]
        padded = f", padded to {times(sizes)}," if given is not None and tuple(given) != tuple(sizes) else ""
        what = f"{'patch' if given is None else 'image'} {times(given or sizes)}{padded}"
        mend = _either(f"use a larger patch, such as {times(longer(sizes))}", *others)
        raise GeometryError(
            f"The {what} leaves a single voxel at the lowest level, and nothing to normalise there: {mend}."
        )


def _either(*choices: str) -> str:
    """Return choices as they are read aloud."""
    *first, last = choices
    return f"{', '.join(first)}{',' * (len(first) > 1)} or {last}" if first else last


def longer(sizes: Sequence[int]) -> tuple[int, ...]:
    """Return sizes with the shortest axis doubled, so that what the lowest level leaves is doubled too."""
    shortest = min(range(len(sizes)), key=lambda axis: sizes[axis])
    return tuple(size * 2 if axis == shortest else size for axis, size in enumerate(sizes))


def times(sizes: Sequence[int]) -> str:
    """Return sizes as they are read aloud: 64x128x128."""
    return "x".join(str(size) for size in sizes)
