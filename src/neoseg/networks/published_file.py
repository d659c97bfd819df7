"""Checkpoint files of the authors' code: read without running anything in them, and written so that it can load them.

Such a file is a pickled dict {epoch, state_dict, optimizer_state_dict, lr_scheduler_state_dict, plot_stuff,
best_stuff}. A pickle can run code while it is read. torch reads these with a list of what may be made, which holds
tensors and containers; numbers of numpy are added here, since losses and scores are stored as such, and no more.
Where an array of numpy stands beside the weights, nothing is made of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZIP_STORED, BadZipFile, ZipFile, is_zipfile

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from ..atomic import read_json, replacing, replacing_folder, write_json
from ..errors import ConfigError, InputError, nearest
from .build import build_network
from .configs import PUBLISHED, UnetrPPConfig, check_orientation
from .orientation import Turn
from .unetr_pp import UnetrPP
from .weights import load_published, published_state, require_tensors, same_tensor, variant_of, without_prefix

__all__ = ["MODEL", "NETWORK", "Checkpoint", "Description", "describe", "network_of", "read_checkpoint_file",
           "read_description", "read_folder", "write_checkpoint_file", "write_folder"]  # fmt: skip

MODEL, NETWORK = "model.safetensors", "network.json"
"""The files of a folder of converted weights."""

SCALAR: Callable[..., Any] = np.float64(0).__reduce__()[0]  # type: ignore[assignment]
"""The function of numpy that a stored number names."""


class _NotMade:
    """Stands where the file has an array of numpy, whose bytes may say anything about its type and size."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


NUMPY_NUMBERS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    *((_NotMade, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (_NotMade, "numpy.ndarray"),
    (_NotMade, "builtins.bytes"),  # of an empty array
    (SCALAR, "numpy.core.multiarray.scalar"),
    (SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(kind)) for kind in "?bhilqBHILQefd"},
]
"""What may be made besides what torch allows: numbers of numpy, under the old and the new name of its module.

torch runs ``__setstate__`` of what is made by these names alone.
"""


class Checkpoint(NamedTuple):
    """What a checkpoint file holds.

    Attributes:
        weights: tensors by the authors' names, without the prefix of several GPUs.
        epoch: epochs done, None where the file does not say.
        prefixed: whether names had that prefix.
    """

    weights: dict[str, Tensor]
    epoch: int | None
    prefixed: bool


class Description(NamedTuple):
    """What the ``network.json`` of a folder of converted weights says.

    Attributes:
        variant: its published name, None where it has none.
        in_channels: channels of the input.
        classes: channels of each output, background included.
        patch: voxels on each axis, in the order of axes of the weights.
        native_orientation: where those axes lead, None where it is not known.
        config: the network; its stem has the order of axes of the weights.
    """

    variant: str | None
    in_channels: int
    classes: int
    patch: tuple[int, ...]
    native_orientation: str | None
    config: UnetrPPConfig

    def turned(self, orientation: str | None) -> tuple[UnetrPPConfig, tuple[int, ...]]:
        """Return config and patch with axes (x, y, z) in RAS+, which the same weights fit.

        Args:
            orientation: where the axes of the weights lead, where the description does not say.

        Raises:
            ConfigError: it is not known where the axes of the weights lead, or it is no orientation.
        """
        orientation = orientation or self.native_orientation
        if orientation is None:
            preset = PUBLISHED.get(self.variant or "")
            source = preset.orientation_source if preset is not None else "not stated"
            raise ConfigError(
                f"network.native_orientation is not known for these weights ({source}); give where each axis of the "
                'arrays that they were trained on leads, the first one first, such as "SPL".'
            )
        check_orientation(orientation)
        try:
            turned = UnetrPPConfig.model_validate({**self.config.model_dump(), "native_orientation": orientation})
        except ValidationError as error:
            raise ConfigError(
                f"network.native_orientation = {orientation!r} does not suit this network "
                f"({error.errors()[0]['msg']}); give it for the network that the weights are of."
            ) from error
        place = Turn(orientation).places
        stem = turned.stem
        assert stem is not None
        return turned.model_copy(update={"stem": tuple(stem[i] for i in place)}), tuple(self.patch[i] for i in place)


def read_checkpoint_file(path: Path) -> Checkpoint:
    """Read a checkpoint file of the authors' code, or a bare dict of tensors.

    Nothing in the file is run: tensors, containers and numbers are made, anything else is refused.

    Raises:
        InputError: the file is missing, damaged, holds something else, or holds what would run code.
    """
    if not path.is_file():
        found = "this is a folder" if path.is_dir() else "there is no such file"
        raise InputError(f"{path}: {found}; give a checkpoint file such as model_final_checkpoint.model.")
    _refuse_packed(path)
    try:
        with torch.serialization.safe_globals(NUMPY_NUMBERS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(_why_not(path, error)) from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if (
        not isinstance(state, Mapping)
        or not state
        or not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items())
    ):
        raise InputError(
            f"{path}: the file holds {_held(content)}, but a dict with 'state_dict', tensors by name, is wanted; give "
            "a checkpoint of the authors' code."
        )
    for name, value in state.items():
        if not _has_its_values(value):
            raise InputError(
                f"{path}: the tensor {name!r} of shape {tuple(value.shape)} has fewer values in the file than its "
                "shape says; dense tensors are wanted: get the file from its authors again."
            )
    epoch = content.get("epoch") if state is not content else None
    weights = without_prefix(state)
    return Checkpoint(weights, int(epoch) if isinstance(epoch, (int, np.integer)) else None, set(weights) != set(state))


def write_checkpoint_file(network: UnetrPP, path: Path) -> None:
    """Write a network's weights as a checkpoint file that the authors' code can load.

    Optimiser, schedule and curves are not in it, so that it serves for prediction, not to go on with a training.

    Raises:
        ConfigError: a network that the authors' code would compute something else with.
    """
    content = {
        "epoch": 0,
        "state_dict": published_state(network),
        "optimizer_state_dict": None,
        "lr_scheduler_state_dict": None,
        "plot_stuff": ([], [], [], []),
        "best_stuff": (None, None, None),
    }
    with replacing(path) as temporary:
        torch.save(content, temporary)


def network_of(weights: Mapping[str, Tensor], *, variant: str | None = None) -> UnetrPP:
    """Return the published network that fits weights, filled with them; channels and classes follow from the weights.

    Args:
        weights: tensors by the authors' names.
        variant: its name; None takes the one that the weights look like.

    Raises:
        ConfigError: there is no such variant.
        InputError: the weights look like no published variant, or do not fit the one that is named.
    """
    require_tensors(weights)
    if variant is not None and variant not in PUBLISHED:
        raise ConfigError(f"There is no published variant {variant!r} of UNETR++{nearest(variant, PUBLISHED)}.")
    name = variant or variant_of(weights)
    if name is None:
        shared = variant_of({n: tensor for n, tensor in weights.items() if ".epa_block.F." not in n})
        if shared is not None:
            raise InputError(
                f"The weights look like the published variant {shared!r}, but F differs from E in them, where that "
                "variant has one projection for both; get the file from its authors again."
            )
        raise InputError(
            f"The weights look like none of the published variants {', '.join(PUBLISHED)}, whose sizes of patch and "
            "parts are known; name the variant, or build the network of these weights in Python and load them with "
            "neoseg.networks.weights.load_published."
        )
    preset = PUBLISHED[name]
    channels, classes = _channels_and_classes(without_prefix(weights))
    network = UnetrPP(
        preset.config,
        in_channels=preset.in_channels if channels is None else channels,
        classes=preset.classes if classes is None else classes,
        patch=preset.patch,
    )
    load_published(network, weights)
    return network


def write_folder(network: UnetrPP, folder: Path, *, variant: str | None, native_orientation: str | None) -> None:
    """Write a network as a folder with ``model.safetensors`` and ``network.json``.

    Args:
        network: as `network_of` gives it.
        folder: made or replaced.
        variant: noted in the folder.
        native_orientation: where the axes of the weights lead, None where it is not known.
    """
    from safetensors.torch import save_file

    facts = {
        "variant": variant,
        "in_channels": network.in_channels,
        "classes": network.classes,
        "patch": list(network.patch),
        "native_orientation": native_orientation,
        "network": network.config.model_dump(mode="json"),
    }
    with replacing_folder(folder) as temporary:
        state = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                 for name, tensor in network.state_dict().items()}  # fmt: skip
        save_file(state, temporary / MODEL)
        write_json(temporary / NETWORK, facts)


def read_folder(folder: Path, *, native_orientation: str | None = None, as_stored: bool = False) -> UnetrPP:
    """Return the network of a folder that `write_folder` wrote, which takes patches (x, y, z) in RAS+.

    Args:
        folder: with ``model.safetensors`` and ``network.json``.
        native_orientation: where the axes of the weights lead, where the folder does not say.
        as_stored: return the network without turns, for patches in the order of axes of its weights.

    Raises:
        ConfigError: it is not known where the axes of the weights lead.
        InputError: a file is missing or damaged, or the weights do not fit.
    """
    from safetensors import SafetensorError, safe_open
    from safetensors.torch import load_file

    found = read_description(folder)
    config, patch = (found.config, found.patch) if as_stored else found.turned(native_orientation)
    build = partial(build_network, config, in_channels=found.in_channels, classes=found.classes, patch=patch)
    try:
        with torch.device("meta"):  # where a size in the description that is far too large takes no memory
            wanted = build().state_dict()
    except (RuntimeError, TypeError, OverflowError) as error:
        raise InputError(
            f"{folder / NETWORK}: no network can be made of this description ({str(error).splitlines()[0]}); convert "
            "the checkpoint again."
        ) from error
    try:
        with safe_open(folder / MODEL, framework="pt") as file:
            there = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        if name := next((n for n, tensor in wanted.items() if there.get(n) != tuple(tensor.shape)), None):
            raise RuntimeError(f"{name} has shape {there.get(name)}, where {NETWORK} wants {tuple(wanted[name].shape)}")
        network = build()
        assert isinstance(network, UnetrPP)
        network.load_state_dict(load_file(folder / MODEL))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(
            f"{folder / MODEL}: the weights cannot be loaded ({str(error).splitlines()[0]}); convert the checkpoint "
            "again."
        ) from error
    return network


def read_description(folder: Path) -> Description:
    """Return what a folder that `write_folder` wrote says of its network; the weights are not read.

    Raises:
        InputError: the description is missing or damaged.
    """
    try:
        facts = read_json(folder / NETWORK)
        config = UnetrPPConfig.model_validate(facts["network"])
        orientation = UnetrPPConfig.model_validate({"native_orientation": facts["native_orientation"]})
        if config.stem is None or len(facts["patch"]) != len(config.stem):
            raise ValueError("stem and patch with as many axes are wanted")
        if not isinstance(variant := facts.get("variant"), str | None):
            raise ValueError(f"variant {variant!r} is no text")
        return Description(
            variant,
            int(facts["in_channels"]),
            int(facts["classes"]),
            tuple(int(size) for size in facts["patch"]),
            orientation.native_orientation,
            config,
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{folder / NETWORK}: the description of the network cannot be read ({str(error).splitlines()[0]}); "
            "convert the checkpoint again."
        ) from error


def describe(path: Path) -> dict[str, Any]:
    """Return what a checkpoint file holds, in words and numbers.

    Raises:
        InputError: the file cannot be read.
    """
    weights, epoch, prefixed = read_checkpoint_file(path)
    name = variant_of(weights)
    pairs = {n: weights.get(n.replace(".F.", ".E.")) for n in weights if ".epa_block.F." in n}
    aliases = [n for n, twin in pairs.items() if twin is not None and same_tensor(weights[n], twin)]
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    counted = [t.numel() for n, t in weights.items() if n not in aliases and not n.endswith(buffers)]
    preset = PUBLISHED[name] if name is not None else None
    channels, classes = _channels_and_classes(weights)
    return {
        "variant": name or "none of the published",
        "tensors": len(weights),
        "second_names": len(aliases),
        "parameters": sum(counted),
        "in_channels": channels,
        "classes": classes,
        "outputs": sum(f"out{i}.conv.conv.weight" in weights for i in (1, 2, 3)),
        "patch": list(preset.patch) if preset else None,
        "epoch": epoch,
        "module_prefix": prefixed,
        "native_orientation": preset.native_orientation if preset else None,
        "orientation_source": preset.orientation_source if preset else None,
    }


def _channels_and_classes(weights: Mapping[str, Tensor]) -> tuple[int | None, int | None]:
    """Return channels of the input and of the output; None where the weights do not say."""
    stem, head = (weights.get(f"{layer}.weight") for layer in ("unetr_pp_encoder.downsample_layers.0.0.conv",
                                                               "out1.conv.conv"))  # fmt: skip
    return (
        stem.shape[1] if stem is not None and stem.ndim == 5 else None,
        head.shape[0] if head is not None and head.ndim == 5 else None,
    )


def _has_its_values(tensor: Tensor) -> bool:
    """Tell whether a tensor is dense and stores as many values as it has, so that a small file stays small."""
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def _refuse_packed(path: Path) -> None:
    """Refuse an archive with compressed members, which torch never writes: a small file could become any size.

    Raises:
        InputError: there is one.
    """
    if not is_zipfile(path):
        return
    try:
        with ZipFile(path) as archive:
            packed = [member.filename for member in archive.infolist() if member.compress_type != ZIP_STORED]
    except (OSError, ValueError, NotImplementedError, BadZipFile) as error:
        raise InputError(f"{path}: this is no whole checkpoint file ({error}); get it again.") from error
    if packed:
        raise InputError(
            f"{path}: {packed[0]} in this file is compressed, as torch writes none, and could become any size; save "
            "the checkpoint with torch.save."
        )


def _held(content: Any) -> str:
    """Say what a file holds in place of tensors by name."""
    if not isinstance(content, dict):
        return type(content).__name__
    if "state_dict" not in content:
        return f"a dict with {sorted(map(str, content))[:5]}"
    state = content["state_dict"]
    if not isinstance(state, Mapping) or not state:
        return f"an empty or other 'state_dict' ({type(state).__name__})"
    kinds = {name: "array" if isinstance(value, _NotMade) else type(value).__name__ for name, value in state.items()}
    odd = [(name, kinds[name]) for name, value in state.items() if not isinstance(value, Tensor)]
    return f"{odd[0][0]!r} of the type {odd[0][1]} in its 'state_dict'" if odd else "a 'state_dict' with other names"


def _why_not(path: Path, error: Exception) -> str:
    text = str(error)
    if "Unsupported" in text or "weights_only" in text or "WeightsUnpickler" in text:
        import re

        named = re.search(r"(?:GLOBAL|global|class) ([\w.]+)", text)
        if named is None:
            return (
                f"{path}: the file asks for something to be run while it is read, is damaged, or was saved with "
                "another pickle_protocol than 2, torch's own; it was refused and nothing in it was run. Get it "
                "again, or save it by torch.save."
            )
        return (
            f"{path}: the file asks for something to be run while it is read ({named[1]}), or is damaged; it was "
            "refused and nothing in it was run. Tensors, containers and numbers alone are wanted: get it from its "
            "authors again."
        )
    reason = text.splitlines()[0].split(". ")[0][:120] if " " in text else type(error).__name__
    return f"{path}: this is no whole checkpoint file ({reason}); get it again."
