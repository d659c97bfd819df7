"""What torchrun says about the processes that it started; no torch here, so that the command line can ask early.

torchrun passes it in environment variables: the one place where neoseg reads any.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import ConfigError

__all__ = ["Launch", "launched"]

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Launch:
    """Which process of how many this one is.

    Attributes:
        rank: counted from 0, over all machines.
        world: processes on all machines.
        local_rank: counted from 0 on this machine; the number of its GPU.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0


def launched() -> Launch:
    """Return what torchrun set, or one process when it was not used.

    Raises:
        ConfigError: the variables contradict each other.
    """
    given = {name: os.environ[name] for name in NAMES if name in os.environ}
    if "WORLD_SIZE" not in given:
        return Launch()
    try:
        rank, world, local = (int(given[name]) for name in NAMES)
        if not 0 <= local <= rank < world:
            raise ValueError
    except (KeyError, ValueError):
        told = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ConfigError(
            f"{told}: these environment variables are not what torchrun sets (RANK from 0 to WORLD_SIZE - 1, and "
            "LOCAL_RANK not above it); unset them, or start with `torchrun --nproc-per-node N -m neoseg train ...`."
        ) from None
    return Launch(rank, world, local)
