"""The batch of a step: drawn, cut, augmented and on its device."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..augment.augmentation import Augmentation
from ..augment.pieces import Box
from ..augment.transform import BatchInfo
from ..data.patches import PatchSampler
from .configs import TrainingConfig
from .data import TrainingData, load_pieces
from .ranks import ALONE, Ranks
from .validation import Loss

__all__ = ["Batch", "StepParts", "make_batch", "next_batch"]


@dataclass(frozen=True)
class StepParts:
    """What every step of a fold uses alike.

    Attributes:
        loss: of the logits and the target.
        data: the fold.
        sampler: places the patches.
        augmentation: changes a batch; ``None`` leaves it as it is.
        config: the training.
        device: where the network is.
        dtype: number format of the network's arithmetic.
        seed: of the fold.
        ranks: the processes that share every batch.
    """

    loss: Loss
    data: TrainingData
    sampler: PatchSampler
    augmentation: Augmentation | None
    config: TrainingConfig
    device: torch.device
    dtype: torch.dtype
    seed: int
    ranks: Ranks = ALONE


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a batch.

    Attributes:
        images: ``(b, c, x, y, z)`` float32 on the device.
        labels: ``(b, x, y, z)`` uint8 on the device.
        seed: for torch's generator, from which the network draws.
        ready: on a GPU, when the batch is whole; ``None`` where it is already.
    """

    images: Tensor
    labels: Tensor
    seed: int
    ready: torch.cuda.Event | None = None

    def arrive(self) -> tuple[Tensor, Tensor]:
        """Let the computation wait for the batch, set torch's generator, and return images and labels."""
        if self.ready is not None:
            stream = torch.cuda.current_stream(self.images.device)
            stream.wait_event(self.ready)
            # the memory was taken on another stream and must not be given away before this one has read it
            self.images.record_stream(stream)
            self.labels.record_stream(stream)
        torch.manual_seed(self.seed)
        return self.images, self.labels


def make_batch(parts: StepParts, step: int, part: int = 0, stream: torch.cuda.Stream | None = None) -> Batch:
    """Make a batch of a step; changes no state, so that a thread may do it ahead of time.

    Everything random in a step follows from (seed, step, part) alone, so a resumed training repeats it. With several
    ranks the draws are those of the whole batch, of which this rank's rows are made.

    Args:
        parts: of the fold.
        step: counted from 0.
        part: which of the batches whose gradients the step adds up.
        stream: of a GPU, to work beside the step that is under way there.
    """
    data, size = parts.data, parts.config.batch_size
    generator = np.random.default_rng([parts.seed, step, part] if part else [parts.seed, step])
    seed, rows = int(generator.integers(2**62)), parts.ranks.rows(size)
    patch = data.patch_at(step, parts.seed)
    positions = parts.sampler.draw(generator, size, patch)[rows]
    info = BatchInfo(len(positions), data.channels, patch, data.spacing_mm, data.fill)
    boxes: list[Box | None] = [None] * len(positions)
    if parts.augmentation is not None:
        drawn = parts.augmentation.sample(generator, replace(info, batch=size))
        own = {name: {key: value[rows] for key, value in given.items()} for name, given in drawn.items()}
        # a turned patch needs what lies beside it, so the cut follows the draw
        boxes = parts.augmentation.boxes(own, info)
    pieces = load_pieces(data, positions, boxes, patch)
    with torch.cuda.stream(stream) if stream is not None else nullcontext():
        pieces = [piece.to(parts.device) for piece in pieces]
        if parts.augmentation is not None:
            images, labels = parts.augmentation.make(pieces, own, info)
        else:
            images, labels = (torch.stack(rest) for rest in zip(*[(p.image, p.label) for p in pieces], strict=True))
        if images.ndim == 5:
            images = images.to(memory_format=torch.channels_last_3d)
        return Batch(images, labels, seed, None if stream is None else stream.record_event())


def next_batch(parts: StepParts, step: int, part: int = 0) -> tuple[Tensor, Tensor]:
    """Make a batch of a step and set torch's generator for what the network draws."""
    return make_batch(parts, step, part).arrive()
