"""Weights between the authors' checkpoint files and folders of ours, both ways."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, InputError
from ..workspace import Run
from .made_with import config_of, plan_of

if TYPE_CHECKING:
    from ..networks.unetr_pp import UnetrPP

__all__ = ["convert_weights"]


def convert_weights(
    source: Path, target: Path, *, variant: str | None = None, native_orientation: str | None = None
) -> dict[str, Any]:
    """Convert a checkpoint file of the authors' code to a folder of ours, or a folder of ours to such a file.

    Args:
        source: a file; or a folder that this function wrote, or ``fold0/best`` of a run.
        target: a folder, or a file.
        variant: of a file, where it cannot be told from the weights.
        native_orientation: where the axes of the file's weights lead, such as "SPL"; noted in the folder.

    Returns:
        What was written: file, parameters, variant.

    Raises:
        InputError: the source is neither, or cannot be read.
        ConfigError: the network has no place in the authors' code, or the orientation or variant is not one.
    """
    if source.is_dir():
        from ..networks.published_file import write_checkpoint_file

        for option, given in (("--variant", variant), ("--native-orientation", native_orientation)):
            if given is not None:
                raise ConfigError(
                    f"{option} {given}: {source} is a folder of ours, which says that itself; leave out {option}."
                )
        if target.is_dir():
            raise InputError(f"{target}: {source} is a folder of ours, so a file is written; give a file's name.")
        if target.exists():
            raise InputError(f"{target}: there is such a file already, and it is not replaced; give another name.")
        network = _network_in(source)
        write_checkpoint_file(network, target)
        return {"written": str(target), "parameters": _count(network), "variant": None}
    from ..networks.configs import PUBLISHED, check_orientation
    from ..networks.published_file import MODEL, NETWORK, network_of, read_checkpoint_file, write_folder
    from ..networks.weights import variant_of

    if native_orientation is not None:
        check_orientation(native_orientation)
    if target.is_file():
        raise InputError(f"{target}: {source} is a checkpoint file, so a folder is written; give a folder's name.")
    if target.is_dir() and {file.name for file in target.iterdir()} - {MODEL, NETWORK}:
        raise InputError(f"{target}: this folder holds other things, which would be lost; give a new folder.")
    weights = read_checkpoint_file(source).weights
    if broken := next((name for name, tensor in weights.items() if not tensor.isfinite().all()), None):
        raise InputError(
            f"{source}: the weight {broken!r} holds NaN or infinite numbers, and nothing can be predicted with them; "
            "give a checkpoint of a training that went well."
        )
    try:
        network = network_of(weights, variant=variant)
    except (ConfigError, InputError) as error:
        raise type(error)(f"{source}: {error}") from error
    name = variant or variant_of(weights)
    known = PUBLISHED[name].native_orientation if name is not None else None
    write_folder(network, target, variant=name, native_orientation=native_orientation or known)
    return {"written": str(target), "parameters": _count(network), "variant": name}


def _network_in(folder: Path) -> UnetrPP:
    """Return the network of a folder of ours, in the order of axes of its weights."""
    if (folder / "network.json").is_file():
        from ..networks.published_file import read_folder

        return read_folder(folder, as_stored=True)
    from safetensors import SafetensorError, safe_open

    from ..networks.build import build_network
    from ..networks.configs import UnetrPPConfig
    from ..networks.unetr_pp import UnetrPP
    from ..training.checkpoint import read_weights

    run, model = Run(folder.parent.parent), folder / "model.safetensors"
    if not run.plan.is_file() or not model.is_file():
        raise InputError(
            f"{folder}: neither a folder of converted weights, with network.json, nor fold0/best of a run; give one."
        )
    plan = plan_of(run)
    if config_of(run).targets.overlapping:
        raise ConfigError(
            f"{folder}: this run learned regions that may overlap, and the authors' code takes the most probable of "
            "classes, so that it would compute something else with these weights; only classes can be written for it."
        )
    if not isinstance(plan.network, UnetrPPConfig):
        raise ConfigError(
            f"{folder}: the network of this run is {plan.network.kind}; only unetr_pp of layout legacy has such a file."
        )
    try:
        with safe_open(model, framework="pt") as file:
            classes = file.get_slice("heads.0.weight").get_shape()[0]
    except (OSError, SafetensorError) as error:
        raise InputError(f"{model}: these weights cannot be read ({error}); restore the file.") from error
    network = build_network(plan.network, in_channels=len(plan.channels), classes=classes, patch=plan.patch)
    read_weights(folder, network)
    assert isinstance(network, UnetrPP)
    return network


def _count(network: UnetrPP) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
