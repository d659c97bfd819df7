"""The trained networks of a run, loaded when they are wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, overload

from ..errors import ConfigError, StateError
from ..networks.configs import UNetPlusPlusConfig
from ..plan.plan import Plan
from ..targets import Targets
from ..workspace import Run

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FoldNetworks", "load_networks", "load_pruned", "pruned_plan", "require_trained"]


def require_trained(run: Run, folds: Sequence[int]) -> None:
    """Refuse a run of which a fold is not trained to its end.

    Raises:
        StateError: naming the fold.
    """
    for index in folds:
        folder = run.fold(index)
        if not (folder / "finished.json").is_file():
            raise StateError(f"{folder}: this fold is not trained to its end; run `neoseg train --fold {index}` first.")


def load_networks(run: Run, plan: Plan, targets: Targets, folds: Sequence[int], device: str) -> list[nn.Module]:
    """Return the best networks of some folds, in evaluation mode.

    Raises:
        StateError: a fold has no finished training, or its weights do not fit the plan.
    """
    from ..training.checkpoint import read_weights

    require_trained(run, folds)
    networks = []
    for index in folds:
        network = _built(plan, targets)
        read_weights(run.fold(index) / "best", network)
        networks.append(network.to(device).eval())
    return networks


def pruned_plan(plan: Plan, level: int) -> Plan:
    """Return the plan of a run with its UNet++ cut down to so many levels of decoders, and the head of the last.

    Raises:
        ConfigError: the run has another network, one that was trained without the head of this level, or fewer levels.
    """
    network = plan.network
    if not isinstance(network, UNetPlusPlusConfig):
        raise ConfigError(f"--prune {level}: the network of this run is {network.kind}; only unet_plus_plus is pruned.")
    if not network.deep_supervision or network.prune is not None:
        raise ConfigError(
            f"--prune {level}: this UNet++ was trained with a single head; a run can be pruned whose network has "
            "deep_supervision = true and no prune of its own."
        )
    if not 1 <= level <= network.depth:
        raise ConfigError(f"--prune {level}: this UNet++ has the levels 1 to {network.depth}; give one of them.")
    return plan.model_copy(update={"network": network.model_copy(update={"prune": level, "deep_supervision": False})})


def load_pruned(
    run: Run, plan: Plan, targets: Targets, folds: Sequence[int], device: str, level: int
) -> list[nn.Module]:
    """Return the networks of :func:`load_networks` without what the head of a level of UNet++ does not need.

    Raises:
        ConfigError: the run cannot be pruned to this level.
        StateError: a fold has no finished training, or its weights do not fit the plan.
    """
    from ..networks.unet_plus_plus import UNetPlusPlus, load_unpruned

    small = pruned_plan(plan, level)
    networks: list[nn.Module] = []
    for whole in load_networks(run, plan, targets, folds, "cpu"):
        network = _built(small, targets)
        assert isinstance(network, UNetPlusPlus)
        load_unpruned(network, whole.state_dict())
        networks.append(network.to(device).eval())
    return networks


def _built(plan: Plan, targets: Targets) -> nn.Module:
    from ..networks.build import build_network

    return build_network(
        plan.network,
        in_channels=len(plan.channels),
        classes=targets.channels,
        patch=plan.patch,
        overlapping=targets.overlapping,
    )


class FoldNetworks(Sequence["nn.Module"]):
    """Networks by their fold, loaded when they are asked for, and no more of them in memory than is allowed.

    Attributes:
        folds: their numbers.
        resident: how many stay in memory; the one that was asked for longest ago goes first.
    """

    def __init__(self, load: Callable[[int], nn.Module], folds: Sequence[int], resident: int | None = None) -> None:
        self._load = load
        self._kept: dict[int, nn.Module] = {}
        self.folds = tuple(folds)
        self.resident = max(1, resident if resident is not None else len(folds))

    def keep(self, count: int) -> None:
        """Keep no more than so many in memory from now on."""
        self.resident = max(1, count)
        while len(self._kept) > self.resident:
            del self._kept[next(iter(self._kept))]

    def of(self, folds: Sequence[int]) -> Sequence[nn.Module]:
        """Return some of the folds, which share what is in memory."""
        return _Some(self, [self.folds.index(fold) for fold in folds])

    def __len__(self) -> int:
        """Return how many folds there are."""
        return len(self.folds)

    @overload
    def __getitem__(self, index: int) -> nn.Module: ...

    @overload
    def __getitem__(self, index: slice) -> list[nn.Module]: ...

    def __getitem__(self, index: int | slice) -> nn.Module | list[nn.Module]:
        """Return the network of the fold at a place in ``folds``."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        fold = self.folds[index]
        found = self._kept.pop(fold, None)
        if found is None:
            while len(self._kept) >= self.resident:
                del self._kept[next(iter(self._kept))]
            found = self._load(fold)
        self._kept[fold] = found
        return found


class _Some(Sequence["nn.Module"]):
    def __init__(self, networks: FoldNetworks, places: Sequence[int]) -> None:
        self._networks, self._places = networks, tuple(places)

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> nn.Module: ...

    @overload
    def __getitem__(self, index: slice) -> list[nn.Module]: ...

    def __getitem__(self, index: int | slice) -> nn.Module | list[nn.Module]:
        places = self._places[index]
        return self._networks[places] if isinstance(places, int) else [self._networks[i] for i in places]
