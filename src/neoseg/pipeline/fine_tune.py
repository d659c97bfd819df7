"""A training that starts from the weights of another run, or from published ones, and what that means for its scores.

Tensors are taken by name. Those that read the image (the stem) are taken only where both runs have the same channels in
the same order, those that write the classes (the heads) only where both have the same classes or the same regions;
otherwise they start anew, and it is said. All others have to fit.

A case that the other run has seen is no unseen case any more. Every cross-validated or held-out case is compared with
those that the weights were trained with, by the bytes of the images and by the names of case and subject.

Published weights, in a folder that ``neoseg weights convert`` wrote, name neither channels, classes nor cases: channels
and classes are compared by their number, and that no case could be compared is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import read_json, read_record
from ..config import RunConfig, load_resolved
from ..data.cases import Case
from ..data.folds import Fold
from ..data.store import digest, file_digest
from ..errors import ConfigError, InputError, StateError
from ..networks.configs import UnetrPPConfig
from ..plan.plan import Plan, read_plan
from ..targets import Targets
from ..workspace import Run
from .manifest import case_facts
from .published_start import MODEL, Converted, Differences, differences_by_number, read_converted, require_network
from .session import Session

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "FoldStart",
    "Transfer",
    "fold_starts",
    "load_start",
    "read_fold_rows",
    "record_of",
    "start_key",
    "told_start",
    "transfer",
]

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

WEIGHTS = Path("best") / MODEL


@dataclass(frozen=True)
class FoldStart:
    """What one fold starts from.

    Attributes:
        source: folder of the other run, or of converted weights.
        fold: index of its fold; None for converted weights.
        weights: hash of the weights file.
        seen: cases scored here that those weights were trained with, told by the bytes of an image.
        named: further ones whose case or subject has the name of one that they were trained with.
        compared: "bytes" when the other run keeps hashes of its images, else "names"; "nothing" for converted weights.
    """

    source: str
    fold: int | None
    weights: str
    seen: tuple[str, ...]
    named: tuple[str, ...]
    compared: str

    @property
    def file(self) -> Path:
        """The weights."""
        return Path(self.source) / MODEL if self.fold is None else Path(self.source) / f"fold{self.fold}" / WEIGHTS

    @property
    def place(self) -> str:
        """Where the weights are, in words."""
        return self.source if self.fold is None else f"fold {self.fold} of {self.source}"

    @property
    def warnings(self) -> list[str]:
        """The sentences that a reader of the scores needs."""
        if self.compared == "nothing":
            return [
                f"Which cases the published weights in {Path(self.source).name} that this run started from were "
                "trained with is not known: if a case that is scored here was among them, its score is not that of an "
                "unseen case."
            ]
        told = [] if self.caution is None else [self.caution]
        if self.compared == "names":
            told.append(
                f"{Path(self.source).name}, whose weights this run started from, keeps no hashes of its images: "
                "whether they were trained with cases that are scored here was compared by name only."
            )
        return told

    @property
    def caution(self) -> str | None:
        """The sentence about scored cases that the weights were trained with; ``None`` when none is known."""
        found = []
        if self.seen:
            found.append(f"the images of {_listed(self.seen)}")
        if self.named:
            found.append(f"cases or subjects with the names of {_listed(self.named)}")
        if not found:
            return None
        count = len(self.seen) + len(self.named)
        return (
            f"The weights of fold {self.fold} of {Path(self.source).name} that this run started from were trained with "
            f"{' and '.join(found)}: the scores of {'this case are' if count == 1 else f'these {count} cases are'} not "
            "those of unseen cases."
        )


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
                f"{len(self.taken)} of {len(self.taken) + len(self.new)} tensors are taken; {_listed(self.new, 8)} "
                f"start anew, because {' and '.join(self.reasons)}."
            )
        return " ".join((first, *self.notes))


@dataclass(frozen=True)
class _Source:
    """A finished run to start from.

    Attributes:
        run: its folder.
        config, plan: what it was trained with.
        weights: hash by fold.
        folds: who was in which fold.
        cases: facts of its cases by name, as its manifest has them; empty when it has none.
    """

    run: Run
    config: RunConfig
    plan: Plan
    weights: dict[int, str]
    folds: list[Fold]
    cases: dict[str, dict[str, Any]]


def fold_starts(session: Session) -> dict[int, FoldStart]:
    """Return what each fold starts from, by its index; nothing when the configuration names no other run.

    A fold starts from the fold of the same index, or, where that one was trained with cases that are scored here, from
    the one that was trained with the fewest of them. From converted weights all folds start alike. What a fold that
    has begun was started from stands in the run folder; the other folder is not needed once all folds are finished.

    Raises:
        StateError: the other folder is not a finished run, or this run has begun from other weights.
        InputError: it is a file, or holds converted weights that cannot be read.
    """
    run, given = session.run, session.config.init_from
    before = _recorded(run)
    begun = [i for i in range(len(session.folds)) if (run.fold(i) / "training.json").is_file()]
    if given is None:
        if before and begun:
            raise StateError(
                f"{run.folder}: this run was started from the weights of {next(iter(before.values())).source}; name "
                "that folder as `init_from` in the configuration (or by --init-from, --set init_from=...) to go on "
                "with it, or choose another `name`."
            )
        return {}
    finished = [i for i in begun if (run.fold(i) / "finished.json").is_file()]
    if len(finished) == len(session.folds) and all(i in before and before[i].source == str(given) for i in finished):
        return before
    source = _read_source(given, run)
    if isinstance(source, Converted):
        start = FoldStart(str(source.folder), None, source.weights, (), (), "nothing")
        starts = dict.fromkeys(range(len(session.folds)), start)
    else:
        starts = {i: _start(session, source, i, fold) for i, fold in enumerate(session.folds)}
    for index in begun:
        there = before.get(index)
        if there is None:
            raise StateError(
                f"{run.fold(index)}: this training was begun from first values of its own, not from the weights of "
                f"{given}; leave out `init_from`, or choose another `name` in the configuration."
            )
        if there.weights != starts[index].weights:
            raise StateError(
                f"{run.fold(index)}: this training was begun from the weights {there.weights} of {there.place}, but "
                f"{given} has {starts[index].weights}; give those of then, or choose another `name` in the "
                "configuration."
            )
        starts[index] = there
    return starts


def start_key(starts: Mapping[int, FoldStart]) -> str | None:
    """Hash of the weights that the folds start from; ``None`` when they start from nothing."""
    return digest({str(index): start.weights for index, start in starts.items()}) if starts else None


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
    source, plan, targets = _read_source(session.config.init_from, session.run), session.plan, session.targets
    if isinstance(source, Converted):
        require_network(source, plan, session.config)
        folder, path = source.folder, source.folder / MODEL
        differences = differences_by_number(source.network, plan, targets)
        remedy = f"{source.folder / 'network.json'} describes another network, so convert the checkpoint again"
    else:
        folder, path = source.run.folder, source.run.fold(min(source.weights)) / WEIGHTS
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


def load_start(network: nn.Module, start: FoldStart, taken: Sequence[str]) -> None:
    """Copy the tensors that are taken into a network.

    Raises:
        StateError: the file is not there, damaged, or was changed since.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = start.file
    try:
        if file_digest(path) != start.weights:
            raise StateError(f"{path}: these weights have changed since the training was begun; restore the file.")
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path}: these weights cannot be read ({error}); restore the file.") from error
    own = network.state_dict()
    with torch.no_grad():
        for name in taken:
            own[name].copy_(found[name])


def told_start(folder: Path, starts: Mapping[int, FoldStart], fresh: Sequence[int], moved: Transfer) -> str:
    """Return the sentence for the screen about the folds that start now."""
    pairs = [f"fold {i}" + ("" if starts[i].fold is None else f" from its fold {starts[i].fold}") for i in fresh]
    return f"Starting from the weights of {folder}, {', '.join(pairs)}: {moved.told}"


def record_of(starts: Mapping[int, FoldStart], moved: Transfer) -> dict[str, Any]:
    """Return what ``init_from.json`` of a run holds."""
    return {"folds": {str(index): asdict(start) for index, start in starts.items()}, "tensors": asdict(moved)}


def read_fold_rows(run: Run) -> list[dict[str, list[str]]]:
    """Return the folds that a run was trained with, as its ``folds.json`` has them.

    Raises:
        StateError: the file is not there or is damaged.
    """
    path = run.folder / "folds.json"
    try:
        rows = read_json(path)
        if not all(isinstance(row[side], list) for row in rows for side in ("train", "inner", "validation")):
            raise ValueError("a list of folds is wanted")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StateError(f"{path}: the folds of this run cannot be read ({error}); restore the file.") from error
    return list(rows)


def _recorded(run: Run) -> dict[int, FoldStart]:
    if not run.start.is_file():
        return {}
    found = read_record(run.start, "restore it, or delete the run's folder to train anew")
    rows = {int(index): dict(row) for index, row in found["folds"].items()}
    return {i: FoldStart(**row | {k: tuple(row[k]) for k in ("seen", "named")}) for i, row in rows.items()}


def _read_source(folder: Path, own: Run) -> _Source | Converted:
    run = Run(folder)
    if folder.is_file():
        raise InputError(
            f"{folder}: this is a file, and a folder is wanted to start from; `neoseg weights convert {folder} FOLDER` "
            "makes one of a checkpoint of the authors' code, or give the folder of a run."
        )
    if (folder / "network.json").is_file():
        return read_converted(folder)
    if folder.resolve() == own.folder.resolve():
        raise ConfigError(f"{folder}: a run cannot start from its own weights; name another run.")
    finished = sorted(int(p.parent.name.removeprefix("fold")) for p in folder.glob("fold*/finished.json"))
    weights = {i: file_digest(run.fold(i) / WEIGHTS) for i in finished if (run.fold(i) / WEIGHTS).is_file()}
    if not weights or not run.config.is_file() or not run.plan.is_file():
        raise StateError(
            f"{folder}: this is not the folder of a run with a finished fold (runs/<name> of a workspace), nor one "
            "that `neoseg weights convert` wrote, so there are no weights to start from; give one of them."
        )
    folds = [Fold(*(tuple(row[side]) for side in ("train", "inner", "validation"))) for row in read_fold_rows(run)]
    cases = read_record(run.manifest, "train that run again").get("cases", {}) if run.manifest.is_file() else {}
    return _Source(run, load_resolved(run.config), read_plan(run.plan), weights, folds, cases)


def _start(session: Session, source: _Source, index: int, fold: Fold) -> FoldStart:
    """Choose the fold of the other run that a fold starts from."""
    scored = [c for c in session.used if c.case in fold.validation or c in session.held_out]
    order = sorted(source.weights, key=lambda i: (i != index % len(source.weights), i))
    starts = []
    for there in order:
        seen, named = _seen(session, scored, source, there)
        compared = "bytes" if source.cases else "names"
        starts.append(FoldStart(str(source.run.folder), there, source.weights[there], seen, named, compared))
    return min(starts, key=lambda start: len(start.seen) + len(start.named))


def _seen(
    session: Session, scored: Sequence[Case], source: _Source, index: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the scored cases that a fold of the other run was trained with: by bytes, and further ones by name."""
    trained = {*source.folds[index].train, *source.folds[index].inner} if index < len(source.folds) else set()
    facts = [source.cases[name] for name in trained if name in source.cases]
    images = {value for one in facts for value in _image_hashes(one)}
    names = trained | {one["subject"] for one in facts}
    seen = [c.case for c in scored if images & set(_image_hashes(case_facts(session, c)))]
    named = [c.case for c in scored if c.case not in seen and {c.case, c.subject} & names]
    return tuple(seen), tuple(named)


def _image_hashes(facts: Mapping[str, Any]) -> list[str]:
    return [value for name, value in facts["files"].items() if name not in ("label", "mask")]


def _differences(source: _Source, plan: Plan, targets: Targets) -> Differences:
    before, channels, classes = source.config.targets, None, None
    if source.plan.channels != plan.channels:
        channels = f"the channels are {_listed(plan.channels)} and were {_listed(source.plan.channels)}"
    if before.told != targets.told:
        classes = f"the classes are {_listed(targets.classes)} and were {_listed(before.classes)}"
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


def _listed(names: Sequence[str], most: int = 5) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
