"""Which tensors of other weights a training takes over.

Tensors are taken by name. Those that read the image (the stem) are taken only where both runs have the same channels in
the same order, those that write the classes (the heads) only where both have the same classes or the same regions;
otherwise they start anew, and it is said. All others have to fit. Published weights name neither channels nor classes,
so these are compared by their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import ConfigError, StateError
from ..networks.configs import UnetrPPConfig
from ..plan.plan import Plan
from ..targets import Targets
from ..wording import listed
from .published_start import MODEL, Converted, Differences, differences_by_number, require_axes, require_network
from .session import Session
from .start_source import WEIGHTS, RunSource, read_source

__all__ = ["CLASS_PARTS", "IMAGE_PARTS", "Transfer", "transfer"]

U_SHAPED = ("unet", "wide_unet", "unet_plus_plus", "attention_unet")
IMAGE_PARTS: Mapping[str, tuple[str, ...]] = {
    "unetr_pp": ("stem.", "full_skip."),
    **dict.fromkeys(U_SHAPED, ("encoder.stages.0.0.", "encoder.stem.")),
    "unetr": ("embedding.", "full_skip."),
    "segresnet": ("network.convInit.",),
    "dynunet": ("network.input_block.",),
    "mednext": ("network.stem.",),
    "swin_unetr": ("network.swinViT.patch_embed.", "network.encoder1."),
}
CLASS_PARTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("unetr_pp", *U_SHAPED, "unetr"), ("heads.",)),
    "segresnet": ("network.conv_final.",),
    "dynunet": ("network.output_block.", "network.deep_supervision_heads."),
    "mednext": ("network.out_",),
    "swin_unetr": ("network.out.",),
}
"""By the kind of network: how the names of the tensors begin that read the image, and that write the classes."""


@dataclass(frozen=True)
class Transfer:
    """Which tensors come from the other run.

    Attributes:
        taken: names of those that do.
        new: names of those that start anew.
        reasons: why, one sentence each.
        notes: what a reader of the screen has to know of those that are taken, one sentence each.
    """

    taken: tuple[str, ...]
    new: tuple[str, ...]
    reasons: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The sentence for the screen."""
        first = f"All {len(self.taken)} tensors are taken."
        if self.new:
            first = (
                f"{len(self.taken)} of {len(self.taken) + len(self.new)} tensors are taken; {listed(self.new, 8)} "
                f"start anew, because {' and '.join(self.reasons)}."
            )
        return " ".join((first, *self.notes))


def transfer(session: Session) -> Transfer:
    """Decide which tensors of the other run are taken.

    Raises:
        StateError: the other folder is not a finished run.
        ConfigError: a tensor that has to be taken does not fit; the settings that differ are named.
        InputError: converted weights that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    from ..networks.build import build_network

    assert session.config.init_from is not None
    source, plan, targets = read_source(session.config.init_from, session.run), session.plan, session.targets
    if isinstance(source, Converted):
        require_network(source, plan, session.config)
        folder, path = source.folder, source.folder / MODEL
        differences = differences_by_number(source.network, plan, targets)
        remedy = f"{source.folder / 'network.json'} describes another network, so convert the checkpoint again"
    else:
        folder, path = source.run.folder, source.run.fold(min(source.weights)) / WEIGHTS
        require_axes(folder, source.plan.network.spatial_dims, plan.network.spatial_dims)
        remedy = _remedy(source.plan, plan)
        if source.plan.network.kind == plan.network.kind and _orientation(source.plan) != _orientation(plan):
            # no shape shows it where the patch has equal sides
            raise ConfigError(
                f"{folder}: the weights there see their axes in the orientation {_orientation(source.plan)}, but the "
                f"network of now sees them in {_orientation(plan)} (network.native_orientation); {remedy}."
            )
        differences = _differences(source, plan, targets)
    network = build_network(plan.network, in_channels=len(plan.channels), classes=targets.channels, patch=plan.patch)
    own = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            theirs = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path}: these weights cannot be read ({error}); restore the file.") from error
    kind = plan.network.kind
    anew = [(IMAGE_PARTS, differences.channels), (CLASS_PARTS, differences.classes)]
    new = [name for parts, why in anew if why is not None for name in _beginning(own, parts, kind)]
    taken = [name for name in own if name not in new]
    for name in taken:
        if theirs.get(name) != own[name]:
            shape = f"has the shape {theirs[name]}" if name in theirs else "does not exist"
            raise ConfigError(
                f"{folder}: the weights there do not fit the network of now: {name} {shape} there and has {own[name]} "
                f"here; {remedy}."
            )
    free = (*IMAGE_PARTS.get(kind, ()), *CLASS_PARTS.get(kind, ()))
    if lost := [name for name in theirs if name not in own and not name.startswith(free)]:
        raise ConfigError(
            f"{folder}: the weights there do not fit the network of now: {lost[0]} has no place here; {remedy}."
        )
    reasons = tuple(why for _, why in anew if why is not None)
    return Transfer(tuple(taken), tuple(name for name in own if name in new), reasons, differences.notes)


def _differences(source: RunSource, plan: Plan, targets: Targets) -> Differences:
    before, channels, classes = source.config.targets, None, None
    if source.plan.channels != plan.channels:
        channels = f"the channels are {listed(plan.channels)} and were {listed(source.plan.channels)}"
    if before.told != targets.told:
        classes = f"the classes are {listed(targets.classes)} and were {listed(before.classes)}"
        if before.overlapping or targets.overlapping:
            classes = f"the network learns {targets.told} and learned {before.told}"
    return Differences(channels, classes)


def _orientation(plan: Plan) -> str:
    return (plan.network.native_orientation if isinstance(plan.network, UnetrPPConfig) else None) or "RAS"


def _beginning(names: Mapping[str, Any], parts: Mapping[str, tuple[str, ...]], kind: str) -> list[str]:
    if kind not in parts:
        raise ConfigError(
            f"init_from: of a network of kind {kind!r} it is not known which tensors depend on channels and classes; "
            "start from a run with the same channels and classes."
        )
    return [name for name in names if name.startswith(parts[kind])]


def _remedy(there: Plan, here: Plan) -> str:
    """Return the settings that make a plan like another one, or that no such settings are known."""
    old, new = there.network.model_dump(mode="json"), here.network.model_dump(mode="json")
    if old["kind"] != new["kind"]:
        return f"network.kind is {old['kind']!r} there and {new['kind']!r} here; plan this run with that kind"
    changes = {f"network.{key}": value for key, value in old.items() if new.get(key) != value and value is not None}
    gone = [f"network.{key}" for key, value in old.items() if new.get(key) != value and value is None]
    if there.patch != here.patch:
        changes["plan.patch"] = list(there.patch)
    if not changes and not gone:
        return "no setting differs, so they were made by another version; train that run again"
    told = " ".join(f"--set {key}={str(value).replace(' ', '')}" for key, value in changes.items())
    told = " and ".join([*([f"with {told}"] if told else []), *([f"without {', '.join(gone)}"] if gone else [])])
    return f"plan this run like that one, in a workspace of its own or again, {told}"
