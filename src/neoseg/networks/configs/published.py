"""The four published variants of UNETR++ as configs."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from .unetr_pp import UnetrPPConfig

__all__ = ["PUBLISHED", "Published"]


class Published(NamedTuple):
    """One published variant: its config and the data that it was made for.

    `patch` has the axes of the published weights: slices first, (z, y, x). `native_orientation` is where those axes
    lead, None where nobody who knows has written it down; `orientation_source` says who has, or what was looked at.
    """

    config: UnetrPPConfig
    in_channels: int
    classes: int
    patch: tuple[int, ...]
    native_orientation: str | None
    orientation_source: str


UNKNOWN_ORIENTATION = (
    "not stated: the authors' code takes arrays as the training files store them, slices first, and turns nothing; the "
    "files' own orientation is not part of the code or of the weights"
)


def _legacy(**fields: object) -> UnetrPPConfig:
    """Return a published config: the fields that all four variants share, and the given ones."""
    return UnetrPPConfig.model_validate(
        {"layout": "legacy", "norm": "batch", "full_norm": "plain_instance", "attention_dropout": 0.1, **fields}
    )


PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "synapse": Published(
            _legacy(stem=(2, 4, 4), attention_dropout=0.15), 1, 14, (64, 128, 128), None, UNKNOWN_ORIENTATION
        ),
        "acdc": Published(
            _legacy(stem=(1, 4, 4), token_projection="separate", conv_blocks=2),
            1, 4, (16, 160, 160), None, UNKNOWN_ORIENTATION,
        ),
        "tumor": Published(
            _legacy(stem=(4, 4, 4), token_projection="matrix", fusion="sum"),
            4, 4, (128, 128, 128), None, UNKNOWN_ORIENTATION,
        ),
        "lung": Published(
            _legacy(stem=(1, 4, 4), token_projection="separate", conv_blocks=2),
            1, 2, (32, 192, 192), None, UNKNOWN_ORIENTATION,
        ),
    }
)  # fmt: skip
