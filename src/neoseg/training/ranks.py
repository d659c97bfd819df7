"""Several processes that train one network, each on its share of every batch.

All of them go through the same steps with the same numbers: a rank makes its rows of the batch that one process would
draw, the logits of all rows are gathered so that the loss sees the whole batch, and the gradients are added up. Every
wait for the others has a limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib import import_module

import torch
from torch import Tensor, distributed, nn

from ..errors import ConfigError, NeosegError
from .launch import Launch

__all__ = ["ALONE", "Ranks", "joined"]

LIMIT = timedelta(minutes=20)
"""Longest wait for another process: longer than a validation case or a checkpoint takes."""

BUCKET = 2**23
"""Gradient values that are added up in one message (32 MiB of float32)."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together; one process alone needs no other and exchanges nothing.

    Attributes:
        rank: of this process, counted from 0. Rank 0 writes the files and speaks.
        world: processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks."""
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """Return the samples of a batch that are this rank's.

        Raises:
            ConfigError: the batch cannot be shared evenly.
        """
        if batch % self.world:
            raise ConfigError(
                f"training.batch_size = {batch}: {self.world} processes cannot share a batch of that size; start so "
                "many processes that it can be divided by them, or plan another batch."
            )
        each = batch // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def gather(self, own: Tensor) -> list[Tensor]:
        """Return the tensor of every rank, all of one shape, in the order of the ranks and without gradient."""
        own = own.detach().contiguous()
        if self.world == 1:
            return [own]
        found = [torch.empty_like(own) for _ in range(self.world)]
        with _limited("exchanging a batch"):
            distributed.all_gather(found, own)
        return found

    def whole(self, own: Tensor) -> Tensor:
        """Return the rows of all ranks along the first axis; those of this rank keep their gradient."""
        if self.world == 1:
            return own
        found = self.gather(own)
        found[self.rank] = own
        return torch.cat(found)

    def total(self, own: Tensor) -> Tensor:
        """Return the sum over the ranks, without gradient."""
        result = own.detach().clone(memory_format=torch.contiguous_format)
        if self.world > 1:
            with _limited("adding up sums"):
                distributed.all_reduce(result)
        return result

    def add_gradients(self, network: nn.Module) -> None:
        """Replace every gradient by its sum over the ranks.

        Sums and not means: each rank's backward pass started from the loss of the whole batch.
        """
        if self.world == 1:
            return
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        while gradients:
            bucket: list[Tensor] = []
            while gradients and (not bucket or sum(g.numel() for g in bucket) + gradients[0].numel() <= BUCKET):
                bucket.append(gradients.pop(0))
            flat = torch.cat([gradient.reshape(-1) for gradient in bucket])
            with _limited("adding up gradients"):
                distributed.all_reduce(flat)
            for gradient, part in zip(bucket, torch.split(flat, [g.numel() for g in bucket]), strict=True):
                gradient.copy_(part.view(gradient.shape))

    def agreed(self, numbers: Sequence[float]) -> list[float]:
        """Return the numbers of rank 0, on every rank; what depends on clocks and files must not differ."""
        if self.world == 1:
            return list(numbers)
        message = torch.tensor(numbers, dtype=torch.float64)
        with _limited("waiting for the first process"):
            distributed.broadcast(message, src=0)
        return [float(number) for number in message.tolist()]

    def largest(self, number: float) -> float:
        """Return the largest of the ranks' numbers; also the point at which all of them meet."""
        if self.world == 1:
            return number
        message = torch.tensor(number, dtype=torch.float64)
        with _limited("waiting for the others"):
            distributed.all_reduce(message, op=distributed.ReduceOp.MAX)
        return float(message)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let rank 0 go through a block first, since it may put files right, and the others together after it."""
        if not self.leads:
            self.largest(0)
        yield
        if self.leads:
            self.largest(0)

    def require_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """Compare the bits of all tensors over the ranks.

        Raises:
            NeosegError: they differ, so that the training has fallen apart.
        """
        if self.world == 1:
            return
        digest = hashlib.blake2b(digest_size=6)
        for value in tensors.values():
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        number = float(int.from_bytes(digest.digest(), "big"))
        if self.largest(number) != number or self.largest(-number) != -number:
            raise NeosegError(
                f"The weights of the {self.world} processes are no longer equal, so the training was ended; the last "
                "checkpoint is whole: start the same command again, with one process if it comes back."
            )


ALONE = Ranks()


@contextmanager
def joined(launch: Launch, device: str) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started, and part from them at the end.

    Tensors in main memory go by gloo, those on GPUs by NCCL.

    Raises:
        NeosegError: the others did not come within the limit.
    """
    if launch.world == 1:
        yield ALONE
        return
    # Its functions take the group that exists at their import for a default. Imported later, by what a training needs,
    # it would keep that group after its end, and threads of gloo that outlive the interpreter can abort the process.
    import_module("torch.distributed.nn.functional")
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    with _limited("meeting the others"):
        backend = "cpu:gloo,cuda:nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, rank=launch.rank, world_size=launch.world, timeout=LIMIT)
    try:
        yield Ranks(launch.rank, launch.world)
    finally:
        distributed.destroy_process_group()


@contextmanager
def _limited(doing: str) -> Iterator[None]:
    """Turn the failure of an exchange into a sentence."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise NeosegError(
            f"The processes of this training lost each other while {doing} ({reason}); if another one ended, its own "
            "message says why; the last checkpoint is kept, and the same command goes on from there."
        ) from error
