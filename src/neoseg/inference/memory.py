"""What a prediction takes of the main memory, and how it is made to fit into less.

A fixed model, so that the forecast stands before the start. Its parts are exact where they are arrays of known size;
what libraries take for themselves was measured once by hand and is rounded up; ``benchmarks/prediction.py`` holds
forecasts against what is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ..machine import peak_bytes

__all__ = ["Demand", "MemoryUse", "fitting", "resident_bytes"]

PASS = 3.0
"""Memory of a pass through a network on a CPU over the float32 tensors that live in it; measured were 0.7 to 3.0."""

PROGRAM = 96 * 2**20
"""What a process takes besides all that is counted: libraries loaded late, memory that an allocator keeps."""

SLAB = 48 * 2**20
"""Slabs of the way back to the scan's grid."""


@dataclass(frozen=True)
class MemoryUse:
    """How much is in memory at a time.

    Attributes:
        batch: windows in one pass; ``None``: as configured.
        networks: folds at a time; ``None``: all. With fewer each scan loads them again.
        on_disk: whether whole volumes of probabilities lie in a file.
        sparing: whether memory that a window frees goes back to the system at once; kept for the next window it saves
            time on a CPU, but the peak cannot be foretold as closely.
    """

    batch: int | None = None
    networks: int | None = None
    on_disk: bool = False
    sparing: bool = False


@dataclass(frozen=True)
class Demand:
    """What decides the memory that the prediction of one scan takes; sizes in bytes and voxels.

    Attributes:
        program: resident before the first scan, without networks.
        network: weights of one network in main memory; 0 on a GPU.
        networks: how many.
        window: a pass of one window, see :func:`neoseg.inference.activations.activation_bytes`; 0 on a GPU.
        batch: windows in one pass, as configured.
        patch: voxels along each axis.
        native: voxels of the scan.
        prepared: voxels of the network's grid along each axis.
        channels: of the network.
        classes: channels of the networks' answers: classes with the background, or regions.
        preparation: what other work on the scan takes at its peak: preparing it, or choosing its post-processing.
        held: images that are in memory besides, while windows are computed.
        apart: whether each network's probabilities are kept too.
        maps: float32 maps on the scan's grid that are kept until they are written.
    """

    program: int
    network: int
    networks: int
    window: int
    batch: int
    patch: tuple[int, ...]
    native: int
    prepared: tuple[int, ...]
    channels: int
    classes: int
    preparation: int = 0
    held: int = 0
    apart: bool = False
    maps: int = 0

    def peak(self, use: MemoryUse) -> int:
        """Return the forecast of the resident peak of the process."""
        together = min(use.networks or self.networks, self.networks)
        sets = 1 + together if self.apart else 1
        plane = math.prod(self.prepared[1:])
        # the sums, their copy that is given away, and the mean being made of it
        windows = 3 * (sets * self.classes + 1) * min(self.patch[0], self.prepared[0]) * plane * 4
        batch = min(self.batch, use.batch or self.batch)
        patch_voxels = math.prod(self.patch)
        windows += batch * int(PASS * self.window + (self.channels + 3 * sets * self.classes) * patch_voxels * 4)
        kept = (1 + self.networks if self.apart else 1) * self.classes * math.prod(self.prepared) * 4
        masks = self.native * ((2 + self.networks if self.apart else 2) + 6)
        maps = self.maps * self.native * 4
        writing = self.native * 4 * 3 if self.maps else self.native * 4
        volumes = 0 if use.on_disk else kept + maps
        sliding = self.held + windows + (0 if use.on_disk else kept)
        restoring = self.held + volumes + masks + writing
        phases = (self.preparation, sliding, restoring)
        return PROGRAM + SLAB + self.program + together * self.network + max(phases)

    @property
    def least(self) -> int:
        """The forecast of the most sparing way to work."""
        return min(self.peak(use) for use in self.ways)

    @property
    def words(self) -> str:
        """What the most sparing way consists of, in MiB."""
        rest = self.least - self.program - self.network
        parts = {"program": self.program, "network": self.network, "this scan": rest}
        return ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in parts.items() if size)

    @property
    def ways(self) -> Iterator[MemoryUse]:
        """The ways to work within a limit, fastest first."""
        yield MemoryUse()
        batch = self.batch
        while batch > 1:
            batch //= 2
            yield MemoryUse(batch=batch)
        yield MemoryUse(batch=1, on_disk=True)
        for networks in range(self.networks - 1, 0, -1):
            yield MemoryUse(batch=1, networks=networks, on_disk=True)


def fitting(demand: Demand, allowed: int | None) -> MemoryUse | None:
    """Return the fastest way to work whose forecast stays within the bytes allowed, ``None`` when there is none."""
    if allowed is None:
        return MemoryUse()
    return next((replace(use, sparing=True) for use in demand.ways if demand.peak(use) <= allowed), None)


def resident_bytes() -> int:
    """Return the memory that this process has resident now (where the system does not tell, its peak so far)."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_bytes() or 0
    import resource

    return pages * resource.getpagesize()
