"""Dice and loss of whole volumes, during training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from ..inference.configs import WindowConfig
from ..inference.sliding_window import Unrefused, predict_probabilities
from ..targets import Targets, inside
from .data import TrainingCase, TrainingData
from .ranks import ALONE, Ranks

__all__ = ["OVERLAP", "Loss", "Validation", "mean_dice", "validate"]

OVERLAP = 0.25
"""Least share of a window that the next one covers again: enough to compare epochs, with a third to a half of the
windows of a prediction."""

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]
"""(logits, full size first; target ``(b, x, y, z)`` int64) -> scalar."""


@dataclass(frozen=True)
class Validation:
    """Scores over the inner validation cases.

    Attributes:
        dice: mean over the cases with foreground of the case's mean Dice; ``None`` when no case has any.
        loss: mean over all cases.
        false_positive_voxels: mean over the cases without foreground of the voxels predicted there; ``None`` when
            there is no such case.
    """

    dice: float | None
    loss: float
    false_positive_voxels: float | None


def mean_dice(prediction: Tensor, truth: Tensor, targets: Targets) -> float | None:
    """Return the mean Dice over the foreground classes or regions that occur in the truth; ``None`` when none does.

    Args:
        prediction, truth: class indices of one shape.
        targets: which regions there are.
    """
    scores = []
    for members in targets.members:
        found, wanted = inside(prediction, members), inside(truth, members)
        size = int(wanted.sum())
        if size:
            scores.append(2 * int((found & wanted).sum()) / (int(found.sum()) + size))
    return float(np.mean(scores)) if scores else None


def validate(
    network: nn.Module,
    loss: Loss,
    data: TrainingData,
    config: WindowConfig,
    device: torch.device,
    *,
    ranks: Ranks = ALONE,
    after_case: Callable[[], None] = lambda: None,
) -> Validation:
    """Predict every validation case in full, with the network as it is, and score it.

    Several ranks share the cases; all of them get the same scores. ``after_case`` is called after each case (with
    several ranks: after each round of cases, by all of them) and may raise to end the work.
    """
    was_training = network.training
    network.eval()
    # dice, loss and false positive voxels of each case; what a case does not have stays NaN
    found = torch.zeros(len(data.validation), 3, dtype=torch.float64)
    for first in range(0, len(data.validation), ranks.world):
        own = first + ranks.rank
        if own < len(data.validation):
            scores = _scores(network, loss, data.validation[own], data, config, device)
            found[own] = torch.tensor(scores, dtype=torch.float64)
        after_case()
    network.train(was_training)
    scored = ranks.total(found).numpy()
    dices, false_positives = scored[~np.isnan(scored[:, 0]), 0], scored[~np.isnan(scored[:, 2]), 2]
    return Validation(
        dice=float(np.mean(dices)) if len(dices) else None,
        loss=float(np.mean(scored[:, 1])),
        false_positive_voxels=float(np.mean(false_positives)) if len(false_positives) else None,
    )


def _scores(
    network: nn.Module,
    loss: Loss,
    case: TrainingCase,
    data: TrainingData,
    config: WindowConfig,
    device: torch.device,
) -> tuple[float, float, float]:
    """Return mean Dice, loss and false positive voxels of a case; the first or the last is NaN."""
    probabilities = predict_probabilities(
        Unrefused(network),
        case.image,
        patch=data.window_for(case.label.shape) if data.window_for else data.patch,
        targets=data.targets,
        config=config,
        device=device,
        fill=data.fill,
    )
    target = torch.from_numpy(np.array(case.label)).to(device)
    # the loss sees the averaged probabilities where it expects logits
    logits = data.targets.logits(probabilities, 1e-7)[None]
    value = loss((logits,), target[None].long()).item()
    prediction = data.targets.classes_of(probabilities, 0)
    dice = mean_dice(prediction, target, data.targets)
    if dice is None:
        return math.nan, value, float((prediction > 0).sum())
    return dice, value, math.nan
