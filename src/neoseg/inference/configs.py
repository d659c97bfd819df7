"""How windows are laid over a volume and masks are made; no torch here, so that configurations load fast."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

__all__ = ["PostprocessConfig", "PostprocessSearch", "Precision", "WindowConfig"]

Precision = Literal["auto", "float32", "bfloat16", "float16"]
"""Number format of the network's arithmetic; "auto" takes bfloat16 where the device computes with it natively. float16
is for GPUs."""


class WindowConfig(BaseModel, frozen=True, extra="forbid"):
    """How a volume larger than the patch is covered by windows.

    Attributes:
        overlap: least share of a window that the next one covers again, 0..0.9.
        mirror_axes: spatial axes (0 = x, left-right) over whose flips the prediction is averaged; ``(0, 1, 2)`` costs
            eight times as much as none.
        batch: windows in one pass through the network.
        precision: see :data:`Precision`.
    """

    overlap: float = Field(default=0.5, ge=0, le=0.9)
    mirror_axes: tuple[int, ...] = ()
    batch: int = Field(default=1, ge=1)
    precision: Precision = "auto"


class PostprocessConfig(BaseModel, frozen=True, extra="forbid"):
    """How probabilities become a mask.

    Attributes:
        threshold: with one foreground class, the least probability of foreground; with more classes the most probable
            class is taken and this number is not used.
        minimum_lesion_mm3: connected components (26 neighbours, each class by itself) smaller than this are removed.
    """

    threshold: float = Field(default=0.5, gt=0, lt=1)
    minimum_lesion_mm3: float = Field(default=0.0, ge=0)


class PostprocessSearch(BaseModel, frozen=True, extra="forbid"):
    """Which post-processings are tried, on cases that are not scored.

    Attributes:
        thresholds: of the foreground probability, rising, each between 0 and 1.
        minimum_lesion_mm3: smallest lesion kept, rising.
    """

    thresholds: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(min_length=1)] = tuple(
        round(0.1 + 0.05 * i, 2) for i in range(17)
    )
    minimum_lesion_mm3: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (
        0.0, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0,
    )  # fmt: skip
