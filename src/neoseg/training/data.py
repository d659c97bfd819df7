"""What a fold trains on, and the pieces that are cut from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ..augment.pieces import Box, Piece
from ..data.patches import Position, clipped, cut
from ..errors import InputError
from ..targets import Targets

__all__ = ["TrainingCase", "TrainingData", "load_pieces"]


@dataclass(frozen=True)
class TrainingCase:
    """One prepared case.

    Attributes:
        name: the case.
        image: ``(c, x, y, z)`` float32, a memory map as a rule.
        label: ``(x, y, z)`` uint8 class indices.
    """

    name: str
    image: NDArray[np.float32]
    label: NDArray[np.uint8]


@dataclass(frozen=True)
class TrainingData:
    """The cases of a fold.

    Attributes:
        train: cases that the weights are fitted to.
        validation: inner validation cases, which choose the best epoch and the early stop; never cases that are
            scored. May be empty: then the last epoch is the best one.
        spacing_mm: voxel size of the prepared grid.
        targets: what the network is asked for.
        patch: voxels along each axis.
        patches: sizes of the training batches, where there are several.
        fill: image value outside the image, after normalisation.
        window_for: returns the voxels of a window along each axis, for a validation volume of a shape; omitted: those
            of the patch.
    """

    train: Sequence[TrainingCase]
    validation: Sequence[TrainingCase]
    spacing_mm: tuple[float, ...]
    targets: Targets
    patch: tuple[int, ...]
    fill: float = 0.0
    patches: tuple[tuple[int, ...], ...] = ()
    window_for: Callable[[Sequence[int]], tuple[int, ...]] | None = None

    def __post_init__(self) -> None:
        both = sorted({c.name for c in self.train} & {c.name for c in self.validation})
        if both:
            raise InputError(
                f"The cases {both[:5]} were given for training and for validation; a case may stand on one side only."
            )
        for case in (*self.train, *self.validation):
            if case.image.shape[1:] != case.label.shape or case.label.ndim != len(self.patch):
                raise InputError(
                    f"{case.name}: an image of shape {case.image.shape} and a label of shape {case.label.shape} were "
                    f"given for a patch {self.patch}, but (c, *shape) and shape are wanted; prepare the case again."
                )

    def patch_at(self, step: int, seed: int) -> tuple[int, ...]:
        """Return the size of a step's batches: every size once, in an order drawn anew, then all of them again.

        So steps in a row that are as many as the sizes cost what the training costs in the mean.
        """
        if len(self.patches) < 2:
            return self.patch
        round_, place = divmod(step, len(self.patches))
        order = np.random.default_rng([seed, round_, len(self.patches)]).permutation(len(self.patches))
        return self.patches[order[place]]

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return int(self.train[0].image.shape[0])


def load_pieces(
    data: TrainingData, positions: Sequence[Position], boxes: Sequence[Box | None], patch: tuple[int, ...]
) -> list[Piece]:
    """Cut what each sample is made from: the patch, or what of its box lies in the volume; no more of a file is read.

    Args:
        data: the cases.
        positions: of the patches.
        boxes: for each patch, the voxels that a spatial transform needs; ``None``: those of the patch.
        patch: voxels along each axis.

    Returns:
        Images float32 and labels uint8, in main memory.
    """
    pieces = []
    for position, box in zip(positions, boxes, strict=True):
        case = data.train[position.case]
        start, shape = position.start, patch
        if box is not None:
            start = tuple(a + b for a, b in zip(start, box.first, strict=True))
            start, shape = clipped(start, box.shape, case.label.shape)
        image = cut(case.image, start, shape, data.fill).astype(np.float32, copy=False)
        label = cut(case.label[None], start, shape)[0]
        first = tuple(a - b for a, b in zip(start, position.start, strict=True))
        pieces.append(Piece(torch.from_numpy(image), torch.from_numpy(label), first))
    return pieces
