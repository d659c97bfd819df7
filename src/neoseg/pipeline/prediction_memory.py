"""Which way of working keeps a prediction within the memory allowed, found before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..data.cases import Case
from ..data.field_of_view import unlikely_size
from ..errors import ConfigError, NeosegError
from ..inference.activations import activation_bytes
from ..inference.configs import bytes_of, shown_bytes
from ..inference.ensemble import window_patch
from ..inference.heap import give_back
from ..inference.memory import Demand, MemoryUse, fitting, resident_bytes
from ..inference.predictor import Predictor, Wanted
from ..io import read_grid
from ..plan.plan import Plan
from ..prepare.configs import ZADC, PrepareConfig
from ..volume import Grid
from .networks import load_networks
from .prepared import PreparedCase
from .session import Session

if TYPE_CHECKING:
    from torch import nn

__all__ = ["case_uses", "prepared_shape", "scan_uses"]

CHOOSING = 24
"""Bytes a voxel of a case's box while its post-processing is chosen: masks, components, and what counts them."""

READ = 24
"""Bytes a voxel and channel while a scan is read, cropped, normalised and resampled; measured were up to 21."""

CORRECTED = 90
"""Bytes a voxel more while the bias field is corrected."""

CHILD = 400 * 2**20
"""A process that prepares scans ahead, without them."""

REGISTERED = 200
"""Bytes a voxel more while a scan is registered to an atlas or template, or brought into its space."""


def case_uses(session: Session, members: Mapping[str, int], device: str) -> dict[str, MemoryUse]:
    """Return how each prepared case is predicted within ``window.max_memory``.

    Args:
        session: the run.
        members: case to the number of networks that predict it.
        device: where they work.

    Raises:
        ConfigError: a case does not fit in any way.
    """
    window = session.config.window
    if window.max_memory is None or not members:
        return dict.fromkeys(members, MemoryUse())
    plan, targets = session.run_plan, session.targets
    network, one_pass = _network_bytes(load_networks(session.run, plan, targets, [0], device)[0], plan, device)
    program, demands = resident_bytes(), {}
    for name, count in members.items():
        case = PreparedCase(session.store, name)
        box = math.prod(case.box.shape)
        patch = window_patch(window, plan, case.grid.shape)
        demands[name] = Demand(
            program=program,
            network=network,
            networks=count,
            window=one_pass * math.prod(patch) // math.prod(plan.patch),
            batch=window.windows_at_once(patch),
            patch=patch,
            native=box,
            prepared=case.grid.shape,
            channels=len(plan.channels),
            classes=targets.channels,
            preparation=CHOOSING * box,
            # the network's input, and the probabilities as they are written
            held=math.prod(case.grid.shape) * len(plan.channels) * 4 + len(targets.names) * box * 2,
        )
    return _fitting(demands, window.max_memory, "--set window.max_memory")


def scan_uses(
    predictor: Predictor, scans: Sequence[Case], wanted: Wanted, max_memory: str | None, jobs: int = 0
) -> list[MemoryUse]:
    """Return how each new scan is predicted within the memory allowed, from the headers of the files.

    A scan whose header cannot be read, or gives a size that no scan has, is left to the prediction, which says what is
    wrong.

    Args:
        predictor: the run; its first network is loaded to see what it takes.
        scans: what is predicted.
        wanted: maps that are made too.
        max_memory: such as "4G"; ``None``: no limit.
        jobs: processes that prepare ahead; what they take counts too.

    Raises:
        ConfigError: a scan does not fit in any way.
    """
    if max_memory is None:
        return [MemoryUse()] * len(scans)
    ensemble = predictor.ensemble
    plan, folds = ensemble.plan, len(ensemble.networks)
    network, one_pass = _network_bytes(ensemble.networks[0], plan, ensemble.device)
    program, demands = resident_bytes() - network, {}
    maps = (len(ensemble.targets.names) if wanted.probabilities else 0) + (2 if wanted.uncertainty else 0)
    for scan in scans:
        grid = _grid_of(scan)
        if grid is None or grid.ndim != len(plan.spacing_mm):
            continue
        native, prepared = math.prod(grid.shape), prepared_shape(predictor, grid)
        patch = window_patch(ensemble.window, plan, prepared)
        channels = max(len(plan.channels), len(scan.images))
        preparation = _preparation(predictor, channels, native, math.prod(prepared))
        # images as read and as corrected, the mask, and the network's input
        held = native * (8 * channels + 1) + math.prod(prepared) * channels * 4
        demands[scan.case] = Demand(
            program=program + jobs * (CHILD + preparation + held),
            network=network,
            networks=folds,
            window=one_pass * math.prod(patch) // math.prod(plan.patch),
            batch=ensemble.window.windows_at_once(patch),
            patch=patch,
            native=native,
            prepared=prepared,
            channels=channels,
            classes=ensemble.targets.channels,
            preparation=preparation,
            held=held,
            apart=wanted.uncertainty and folds > 1,
            maps=maps,
        )
    found = _fitting(demands, max_memory, "--max-memory")
    return [found.get(scan.case, MemoryUse()) for scan in scans]


def prepared_shape(predictor: Predictor, grid: Grid) -> tuple[int, ...]:
    """Return the largest grid that the network may see of a scan: that of a scan without an empty border."""
    spacing = predictor.ensemble.plan.spacing_mm
    if predictor.template is not None:
        return predictor.template.grid(spacing).shape
    return grid.with_spacing(spacing).shape


def _fitting(demands: Mapping[str, Demand], given: str, option: str) -> dict[str, MemoryUse]:
    allowed, found = bytes_of(given), {}
    for name, demand in demands.items():
        use = fitting(demand, allowed)
        if use is None:
            most = max(demands, key=lambda n: demands[n].least)
            raise ConfigError(
                f"{option} {given}: {most} needs about {shown_bytes(demands[most].least)} even window by window, one "
                f"network at a time and with its volumes on the disk ({demands[most].words}); allow "
                f"{shown_bytes(demands[most].least)} or more."
            )
        found[name] = use
    return found


def _network_bytes(network: nn.Module, plan: Plan, device: str) -> tuple[int, int]:
    """Return the bytes of main memory of the weights, and of a pass of one window."""
    if device != "cpu":
        return 0, 0
    weights = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    one_pass = activation_bytes(network, (1, len(plan.channels), *plan.patch))
    give_back()
    return weights, one_pass


def _preparation(predictor: Predictor, channels: int, native: int, prepared: int) -> int:
    config: PrepareConfig = predictor.prepare
    registers = predictor.template is not None or (
        predictor.atlas is not None and ZADC in predictor.ensemble.plan.channels
    )
    size = READ * channels * native + 12 * channels * prepared
    size += CORRECTED * native if config.bias_field is not None else 0
    return size + (REGISTERED * max(native, prepared) if registers else 0)


def _grid_of(scan: Case) -> Grid | None:
    try:
        grid = read_grid(next(iter(scan.images.values())))
    except NeosegError:
        return None
    return grid if unlikely_size(grid) is None else None
