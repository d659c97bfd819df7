"""Several networks as one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ConfigError
from ..networks.configs import required_multiple
from ..plan.plan import Plan
from ..prepare.standardise import Space
from ..targets import Targets
from ..volume import Grid
from .configs import WindowConfig
from .heap import give_back, kept_heap
from .memory import MemoryUse
from .restore import restore
from .scratch import Scratch
from .sliding_window import Answer, Call, answer_of, finite_logits, windowed_planes

__all__ = ["Ensemble", "mean_of", "window_patch"]


def mean_of(calls: Sequence[Call], targets: Targets) -> Call:
    """Return one network that answers with the mean of the others' probabilities (the mean after softmax or sigmoid).

    The answer is given as logits of the mean, so that it can stand wherever logits are expected: their softmax or
    sigmoid is the mean itself.

    Args:
        calls: the networks.
        targets: what the channels of their answers stand for.

    Raises:
        ConfigError: no network was given.
    """
    if not calls:
        raise ConfigError("An ensemble needs at least one network, but none was given; train a fold first.")
    if len(calls) == 1:
        return calls[0]

    def mean(batch: Tensor) -> tuple[Tensor, ...]:
        total = targets.probabilities(finite_logits(calls[0], batch), 1)
        for call in calls[1:]:
            total = total + targets.probabilities(finite_logits(call, batch), 1)
        return (targets.logits(total / len(calls), torch.finfo(torch.float32).tiny),)

    return mean


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Trained networks of one plan whose answers are averaged.

    Attributes:
        networks: in evaluation mode, on ``device``; each is asked for by its index, so it may be loaded then.
        plan: the patch.
        targets: what the channels of their answers stand for.
        window: how a volume is covered, and what is averaged.
        device: where the networks are.

    Raises:
        ConfigError: the window mirrors along an axis that the plan's images do not have.
    """

    networks: Sequence[nn.Module]
    plan: Plan
    targets: Targets
    window: WindowConfig
    device: str

    def __post_init__(self) -> None:
        """Refuse windows that do not suit the plan."""
        self.window.require_axes(len(self.plan.patch))

    def probabilities(self, image: NDArray[np.float32], space: Space, target: Grid) -> NDArray[np.float32]:
        """Return the probabilities ``(channels, x, y, z)`` of a prepared image on a grid of the scan's world.

        Args:
            image: ``(c, x, y, z)`` as prepared.
            space: where ``image`` lies.
            target: the grid wanted, usually the part of the scan's grid around its foreground.
        """
        outside = self.targets.background()
        return restore(self.prepared(image)[0], space.grid, target, space.transform, outside=outside)

    def prepared(
        self,
        image: NDArray[np.float32],
        *,
        members: bool = False,
        use: MemoryUse | None = None,
        scratch: Scratch | None = None,
    ) -> NDArray[np.float32]:
        """Return probabilities on the grid of the prepared image.

        Each window is cut once and goes through all the networks that are in memory together.

        Args:
            image: ``(c, x, y, z)`` as prepared, in memory or mapped from a file.
            members: also those of each network by itself.
            use: windows and networks at a time; default the window's batch and all networks.
            scratch: where the result is kept; default in memory.

        Returns:
            ``(sets, channels, x, y, z)``: the ensemble first; with ``members`` and more than one network then each of
            them.

        Raises:
            ConfigError: there is no network.
            StateError: the weights of a network are not finite.
            InputError: an answer is not finite although the weights are: the image is extreme.
        """
        use, scratch = use or MemoryUse(), scratch or Scratch()
        count = len(self.networks)
        if not count:
            raise ConfigError("An ensemble needs at least one network, but none was given; train a fold first.")
        apart = members and count > 1
        result = scratch.array((1 + count if apart else 1, self.targets.channels, *image.shape[1:]))
        patch = window_patch(self.window, self.plan, image.shape[1:])
        at_once = self.window.windows_at_once(patch)
        window = self.window.model_copy(update={"batch": min(at_once, use.batch or at_once)})
        together = use.networks or count
        heap = kept_heap() if self.device == "cpu" and not use.sparing else nullcontext()
        with heap:
            for first in range(0, count, together):
                group = [self.networks[i] for i in range(first, min(first + together, count))]
                outside = self.targets.background(logits=window.average == "logits") * (1 + len(group) if apart else 1)
                names = [f"Network {first + i + 1} of {count}" for i in range(len(group))]
                answer = _answers(group, names if count > 1 else ["The network"], window, self.targets, apart=apart)
                covered = windowed_planes(
                    answer, image, patch=patch, outside=outside, config=window, device=self.device
                )
                for start, planes in covered:
                    self._add(result, start, planes, first, len(group))
                    scratch.release(result)
                del group, answer, covered
        give_back()
        return result

    def _add(self, result: NDArray[np.float32], start: int, planes: Tensor, first: int, group: int) -> None:
        """Add to the mean what ``group`` networks, from the ``first`` on, say of some planes; keep each one's own."""
        count = len(self.networks)
        found = planes.reshape(-1, self.targets.channels, *planes.shape[1:])
        place = slice(start, start + planes.shape[1])
        mean = found[0] * (group / count)
        if first:
            mean += torch.from_numpy(np.array(result[0, :, place])).to(mean.device)
        result[0, :, place] = self._probabilities(mean) if first + group == count else mean.cpu().numpy()
        for i in range(len(found) - 1):
            result[1 + first + i, :, place] = self._probabilities(found[1 + i])

    def _probabilities(self, values: Tensor) -> NDArray[np.float32]:
        found = self.targets.probabilities(values, 0) if self.window.average == "logits" else values
        return np.asarray(found.cpu().numpy())


def _answers(
    networks: Sequence[Call], names: Sequence[str], window: WindowConfig, targets: Targets, *, apart: bool
) -> Answer:
    """Return the mean of the networks' answers, followed along the channels by each of them when they stand apart."""
    answers = [answer_of(network, window, targets, name=name) for network, name in zip(networks, names, strict=True)]

    def together(batch: Tensor) -> Tensor:
        each: list[Tensor] = []
        total: Tensor | None = None
        for answer in answers:
            found = answer(batch)
            total = found.clone() if total is None else total.add_(found)
            each += [found] if apart else []
        assert total is not None
        return torch.cat([total.div_(len(answers)), *each], dim=1)

    return together


def window_patch(window: WindowConfig, plan: Plan, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the voxels of a window along each axis of a prepared volume, for the network of a plan."""
    return window.patch_for(shape, plan.patch, required_multiple(plan.network), plan.network.lowest_voxels)
