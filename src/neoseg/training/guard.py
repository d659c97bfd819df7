"""What happens when a gradient is not finite: the step is undone, the scale lowered, after many in a row all given up.

The count goes on from epoch to epoch and through a checkpoint: an epoch may be a single step, and has no say in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import torch

from ..errors import NeosegError

__all__ = ["GIVE_UP", "Guard"]

GIVE_UP = 16
"""Steps in a row without a finite gradient after which a training is given up: float16 needs up to as many to find
its loss scale."""

HALF_START = 2.0**16
"""First loss scale in float16, whose smallest normal number is 6e-5."""

HALF_RAISE = 2000
"""Good steps in a row after which the loss scale is doubled in float16 (Micikevicius et al., ICLR 2018, 3.2)."""

RATE_RAISE = 200
"""Good steps in a row after which a lowered learning rate is doubled again, up to its own value."""


@dataclass
class Guard:
    """The scales of a training and how often they had to be lowered; part of its state on disk.

    Attributes:
        loss_scale: the loss is multiplied by it before the backward pass, the gradient divided after it.
        rate_scale: factor of the learning rate, 1 or below.
        in_a_row: steps without a finite gradient since the last good one.
        good: good steps since the last change of a scale.
        undone: all steps that were undone.
    """

    loss_scale: float = 1.0
    rate_scale: float = 1.0
    in_a_row: int = 0
    good: int = 0
    undone: int = 0

    @classmethod
    def for_format(cls, dtype: torch.dtype) -> Guard:
        """Return the guard of a new training; only float16 needs a loss scale."""
        return cls(loss_scale=HALF_START if dtype == torch.float16 else 1.0)

    def passed(self) -> None:
        """Count a good step."""
        self.in_a_row = 0
        self.good += 1
        if self.loss_scale > 1 and self.good >= HALF_RAISE:
            self.loss_scale, self.good = min(2 * self.loss_scale, HALF_START), 0
        elif self.rate_scale < 1 and self.good >= RATE_RAISE:
            self.rate_scale, self.good = min(1.0, 2 * self.rate_scale), 0

    def failed(self, numbers: str) -> None:
        """Count a step that was undone and lower the scale.

        Raises:
            NeosegError: it was one too many in a row.
        """
        self.in_a_row += 1
        self.undone += 1
        self.good = 0
        if self.loss_scale > 1:
            self.loss_scale /= 2
        else:
            self.rate_scale /= 2
        if self.in_a_row >= GIVE_UP:
            self.give_up(numbers)

    def give_up(self, numbers: str) -> NoReturn:
        """End the training in words."""
        raise NeosegError(
            f"The training broke down: {self.in_a_row} steps in a row gave no finite gradient ({numbers}); look for "
            "extreme values in the images, lower learning_rate or set precision to float32, and train this fold in a "
            "new folder."
        )

    @property
    def told(self) -> str:
        """What was done about the last failure, for the screen."""
        scale = f"loss scale {self.loss_scale:g}" if self.loss_scale > 1 else f"learning rate times {self.rate_scale:g}"
        return f"no finite gradient, so the step was undone ({self.in_a_row} in a row); now {scale}."
