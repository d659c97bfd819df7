"""Colours of pictures as channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...io import COLOURS, read_volume, volumes_in
from ..cases import Case

__all__ = ["GREY", "with_colours"]

GREY = "grey"
"""The channel of a picture that has one file, until it is seen to be in colour."""


def with_colours(cases: Sequence[Case], notes: list[str]) -> list[Case]:
    """Give the cases red, green and blue where any picture is in colour.

    Raises:
        InputError: one of several files of a picture is in colour.
    """
    colour: dict[str, bool] = {}
    for case in cases:
        for file in case.images.values():
            try:
                colour[case.case] = _is_coloured(file)
            except InputError as error:
                notes.append(f"An image could not be read: {error}")
                continue
            if colour[case.case] and GREY not in case.images:
                raise InputError(
                    f"{file}: this is one of several channels of a picture, and in colour; store red, green and blue "
                    "as channels of their own, in grey."
                )
    if not any(colour.values()):
        return list(cases)
    grey = [name for name, coloured in colour.items() if not coloured]
    if grey:
        notes.append(
            f"{len(grey)} of {len(colour)} images are grey; since the others are in colour, their grey stands for red, "
            "green and blue alike."
        )
    index = {name: number for number, name in enumerate(COLOURS)}
    return [
        replace(case, images=dict.fromkeys(COLOURS, case.images[GREY]), channel_index=index)
        if GREY in case.images
        else case
        for case in cases
    ]


def _is_coloured(file: Path) -> bool:
    if volumes_in(file) == 1:
        return False
    red, green, blue = (read_volume(file, volume_index=i).array for i in range(len(COLOURS)))
    return not (np.array_equal(red, green) and np.array_equal(red, blue))
