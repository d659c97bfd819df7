"""How windows are laid over a volume and masks are made; no torch here, so that configurations load fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, field_validator, model_validator

from ..errors import ConfigError
from ..plan.topology import smallest_patch

__all__ = [
    "Average",
    "Criterion",
    "PostprocessConfig",
    "PostprocessSearch",
    "Precision",
    "Whole",
    "WindowConfig",
    "bytes_of",
    "shown_bytes",
]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Number format of the network's arithmetic; "auto" takes bfloat16 where the device computes with it natively. float16
is for GPUs."""

Average = Literal["softmax", "logits"]
"""What is averaged over windows, mirrorings and folds: probabilities, or logits whose softmax is taken at the end. With
[regions] the sigmoid stands in place of the softmax in both."""

Criterion = Literal["dice", "lesion_f1", "both"]
"""By what a post-processing is chosen: Dice, lesion-wise F1, or the mean of the two."""


def _is_a_choice_or_a_number(value: Any) -> Any:
    if not isinstance(value, bool) and not (isinstance(value, int) and value >= 2):
        raise ValueError("true, false or a number of voxels of 2 or more is wanted")
    return value


Whole = Annotated[bool | Annotated[int, Field(ge=2)], BeforeValidator(_is_a_choice_or_a_number)]
"""Whether a volume is one window; a number: where it has at most so many voxels."""

PASS_VOXELS = 2**17
"""Voxels of the windows in one pass when nothing else is asked for: small ones one at a time leave a CPU half idle."""

_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def bytes_of(size: str) -> int:
    """Return the bytes of a size such as "4G", "1.5GiB" or "600M" (powers of 1024).

    Raises:
        ConfigError: it is not such a size.
    """
    text = size.strip().upper().removesuffix("B").removesuffix("I")
    try:
        number = float(text[:-1]) * _UNITS[text[-1:]]
    except (KeyError, ValueError):
        number = 0.0
    if not 0 < number < 2**60:
        raise ConfigError(f"max_memory = {size!r}: a size such as 4G or 600M is wanted (K, M, G or T after a number).")
    if number < 2**20:
        raise ConfigError(f"max_memory = {size!r}: that is no room for an image; at least 1M is wanted, such as 4G.")
    return int(number)


def shown_bytes(count: float) -> str:
    """Return bytes as one would give them: "0.9G"; rounded up, so that what is shown suffices."""
    return f"{-(-count * 10 // 2**30) / 10:.1f}G"


class WindowConfig(BaseModel, frozen=True, extra="forbid"):
    """How a volume larger than the patch is covered by windows.

    Attributes:
        overlap: least share of a window that the next one covers again, 0..0.9.
        mirror_axes: spatial axes (0 = x, left-right; 1 = y; 2 = z) over whose flips the prediction is averaged, each
            named once; ``(0, 1, 2)`` costs eight times as much as none. Pictures have no axis 2.
        batch: windows in one pass through the network; omitted: as many as hold about 131,000 voxels, at least one.
        precision: "auto" takes bfloat16 where the device has it in hardware, else float32; "float16" is for GPUs.
        average: what is averaged over windows, mirrorings and folds. "softmax": the probabilities, so that each has the
            same say. "logits": the networks' answers before softmax, so that a sure one counts for more than an unsure
            one; the softmax of the mean is the normalised geometric mean of the probabilities. With [regions] the
            sigmoid of each stands in place of the softmax.
        whole: each volume is one window, so that every voxel sees all of its surroundings: ``true``, or a number of
            voxels, beyond which a volume is covered by windows of at most so many: it is halved along its longest axis
            until they fit, but not below the patch. Only for networks that take any size, all but UNETR++ of size
            "native"; a pass takes memory by the voxels of the window. A network that normalises each window by itself
            takes the noise of an empty window for signal; a whole volume is rarely empty.
        skip_background: windows of a volume in which every channel is 0 throughout are not computed. Voxels that are
            not 0 keep their result; what lies in no other window is background. Pictures are computed everywhere: their
            black is a grey level like others.
        max_memory: the most main memory that prediction may take, with the program itself, such as "4G"; omitted: no
            limit. Results are the same but for rounding, and what cannot be kept is refused before the start.
    """

    overlap: float = Field(default=0.5, ge=0, le=0.9)
    mirror_axes: tuple[int, ...] = ()
    batch: int | None = Field(default=None, ge=1)
    precision: Precision = "auto"
    average: Average = "softmax"
    whole: Whole = False
    skip_background: bool = True
    max_memory: str | None = None

    @field_validator("mirror_axes")
    @classmethod
    def _are_axes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not set(value) <= {0, 1, 2} or len(set(value)) < len(value):
            raise ValueError("the spatial axes 0 (x), 1 (y) and 2 (z) are wanted, each at most once")
        return value

    @field_validator("max_memory")
    @classmethod
    def _is_a_size(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                bytes_of(value)
            except ConfigError as error:
                raise ValueError(str(error).partition(": ")[2].rstrip(".")) from error
        return value

    def require_axes(self, axes: int) -> None:
        """Refuse mirror axes that the images do not have.

        Args:
            axes: spatial axes of the images, 2 or 3.

        Raises:
            ConfigError: naming the key.
        """
        if any(axis >= axes for axis in self.mirror_axes):
            raise ConfigError(
                f"window.mirror_axes = {list(self.mirror_axes)}: the images have {axes} axes, counted from 0 to "
                f"{axes - 1}; leave out those beyond."
            )

    def patch_for(
        self, shape: Sequence[int], patch: Sequence[int], multiple: Sequence[int], lowest: int = 1
    ) -> tuple[int, ...]:
        """Return the voxels of a window along each axis of a volume.

        Args:
            shape: of the volume.
            patch: that the network was trained on.
            multiple: what the network's sizes are multiples of.
            lowest: voxels that a window has to leave at the lowest level of the network, so that they can be
                normalised; a volume that leaves fewer gets a window that is longer along its longest axis.
        """
        if not self.whole:
            return tuple(patch)
        least = smallest_patch(shape, multiple, lowest)
        window = [max(few, -(-n // m) * m) for n, m, few in zip(shape, multiple, least, strict=True)]
        while self.whole is not True and math.prod(window) > self.whole:
            longer = [axis for axis, (n, few) in enumerate(zip(window, patch, strict=True)) if n > few]
            if not longer:
                break
            axis = max(longer, key=lambda a: window[a])
            half = -(-window[axis] // (2 * multiple[axis])) * multiple[axis]
            window[axis] = max(half, patch[axis])
        return tuple(window)

    def windows_at_once(self, patch: Sequence[int]) -> int:
        """Return how many windows of a patch go through the network in one pass."""
        return self.batch or max(1, PASS_VOXELS // math.prod(patch))

    def decisions(self) -> dict[str, Any]:
        """Return the fields that results depend on, plain data; the memory allowed is not one of them."""
        return self.model_dump(mode="json", exclude={"max_memory"})


class PostprocessConfig(BaseModel, frozen=True, extra="forbid"):
    """How probabilities become a mask.

    Attributes:
        threshold: with one foreground class, the least probability of foreground; with more classes the most probable
            class is taken, with regions those of a probability of at least 0.5, and this number is not used.
        minimum_lesion_mm3: connected components (26 neighbours, each class by itself) smaller than this are removed.
        keep_largest: how many of the largest components of each foreground class stay, one number a class in their
            order; 0 keeps all, and so does an empty list.
    """

    threshold: float = Field(default=0.5, gt=0, lt=1)
    minimum_lesion_mm3: float = Field(default=0.0, ge=0)
    keep_largest: tuple[Annotated[int, Field(ge=0)], ...] = ()


class PostprocessSearch(BaseModel, frozen=True, extra="forbid"):
    """Which post-processings are tried, on cases that are not scored; with [regions] none.

    Of a network the one nearest to a threshold of 0.5 that leaves nothing out is taken, unless another is better by
    more than one standard error over the subjects.

    Attributes:
        thresholds: of the foreground probability, rising, each between 0 and 1; with one foreground class only.
        minimum_lesion_mm3: smallest lesion kept, rising; with one foreground class only.
        keep_largest: numbers of largest components that are tried, 0 for all of them; ``[0, 1]`` suits organs. With
            several foreground classes each class has its own choice among these, and nothing else is chosen.
        criterion: by what they are judged, a mean over cases: "dice", "lesion_f1" (lesion-wise F1, one voxel of
            overlap detects) or "both" (the mean of the two). A class that is absent from a case scores 1 when nothing
            of it is left in the mask, else 0.
    """

    thresholds: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = tuple(
        round(0.1 + 0.05 * i, 2) for i in range(17)
    )
    minimum_lesion_mm3: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
    )  # fmt: skip
    keep_largest: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    criterion: Criterion = "dice"

    @model_validator(mode="after")
    def _numbers_differ(self) -> PostprocessSearch:
        for name in ("thresholds", "minimum_lesion_mm3"):
            given = getattr(self, name)
            if any(b <= a for a, b in pairwise(given)):
                raise ValueError(f"{name} = {list(given)} does not rise; sort it, and name each number once")
        if len(set(self.keep_largest)) < len(self.keep_largest):
            raise ValueError(f"keep_largest = {list(self.keep_largest)} names a number twice; name each once")
        return self
