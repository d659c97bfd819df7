"""A training by several processes, each a call of its own as torchrun makes it; for tests."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from neoseg.augment.augmentation import Augmentation
from neoseg.augment.configs import AugmentConfig
from neoseg.errors import NeosegError
from neoseg.losses.build import build_loss
from neoseg.losses.configs import LossConfig
from neoseg.networks.blocks.normalisation import InstanceNorm
from neoseg.progress import Silent
from neoseg.training import loop
from neoseg.training.configs import TrainingConfig
from neoseg.training.launch import launched
from neoseg.training.loop import FoldRun, train_fold
from neoseg.training.ranks import ALONE, Ranks, joined
from test_training_loop import StopAfter, make_data


class Mixed(nn.Module):
    """Everything whose result depends on the whole batch: batch norm, three kinds of dropout, two heads.

    An instance norm beside them, whose result does not.

    The convolutions before the norms have no bias: its gradient there is only noise. Notes its weights' hash at each
    training pass.
    """

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.first = nn.Conv3d(1, 6, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm3d(6)
            self.beside = nn.Conv3d(1, 6, 3, padding=1, bias=False)
            self.each = InstanceNorm(6, affine=True)
            self.voxels = nn.Dropout(0.2)
            self.last = nn.Conv3d(6, 2, 1)
            self.second = nn.Conv3d(1, 4, 3, stride=2, padding=1, bias=False)
            self.plain = nn.BatchNorm3d(4, affine=False)
            self.channels = nn.Dropout3d(0.2)
            self.low = nn.Conv3d(4, 2, 1)
        self.noted: list[str] = []

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if self.training:
            values = b"".join(value.detach().contiguous().numpy().tobytes() for value in self.state_dict().values())
            self.noted.append(hashlib.sha256(values).hexdigest())
        low = self.channels(torch.relu(self.plain(self.second(x))))
        tokens = low.flatten(2).transpose(1, 2)
        share = 0.2 if self.training else 0.0
        low = low + functional.scaled_dot_product_attention(tokens, tokens, tokens, dropout_p=share).transpose(
            1, 2
        ).view_as(low)
        high = torch.relu(self.norm(self.first(x))) + torch.relu(self.each(self.beside(x)))
        return self.last(self.voxels(high)), self.low(low)


CONFIG = TrainingConfig(
    epochs=3, steps_per_epoch=4, learning_rate=0.003, precision="float32", batch_size=4, accumulate=2, ema_decay=0.9,
    optimiser="sgd",
)  # fmt: skip


def fit_mixed(folder: Path, ranks: Ranks = ALONE, config: TrainingConfig = CONFIG, progress: Any = None) -> list[str]:
    """Train and return the hash of the weights before each pass."""
    run = FoldRun(folder, seed=7, augmentation=Augmentation(AugmentConfig()), ranks=ranks)
    network, loss = Mixed(), build_loss(LossConfig())
    train_fold(network, loss, data=make_data(), config=config, run=run, progress=progress or Silent())
    return network.noted


class SendsAfter(StopAfter):
    """Sends this process a signal after some steps."""

    def __init__(self, steps: int, number: int) -> None:
        super().__init__(steps)
        self.number = number

    @contextmanager
    def track(self, title: str, total: int) -> Iterator[Any]:
        def advance(steps: int, text: str) -> None:
            self.left -= bool(text)
            if self.left == 0:
                os.kill(os.getpid(), self.number)

        yield advance


def as_rank(rank: int, port: int, folder: Path, signal_to: tuple[int, int, int] | None = None) -> None:
    """Train as one of two, and leave what this process has to say in ``rank<i>.json`` beside the fold's folder.

    Args:
        rank: of this process.
        port: where they meet.
        folder: of the fold.
        signal_to: a rank that sends itself a signal after some steps: (rank, steps, signal).
    """
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    progress = SendsAfter(*signal_to[1:]) if signal_to and signal_to[0] == rank else None
    said: Any
    with joined(launched(), "cpu") as ranks:
        try:
            if progress is not None and rank:
                # only rank 0 has a listener, so this one hears its own steps
                loop.Silent = lambda: progress  # type: ignore[assignment, misc]
            said = fit_mixed(folder, ranks, progress=progress)
        except NeosegError as error:
            said = str(error)
    left = sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm"))
    assert not [name for name in left if "gloo" in name], f"threads outlive the process group: {left}"
    (folder.parent / f"rank{rank}.json").write_text(json.dumps(said))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
