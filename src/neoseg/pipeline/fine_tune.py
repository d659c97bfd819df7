"""A training that starts from the weights of another run, or from published ones, and what that means for its scores.

A case that the other run has seen is no unseen case any more. Every cross-validated or held-out case is compared with
those that the weights were trained with, by the bytes of the images and by the names of case and subject. Published
weights, in a folder that ``neoseg weights convert`` wrote, name no cases: that none could be compared is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import read_record
from ..data.cases import Case
from ..data.folds import Fold
from ..data.store import digest, file_digest
from ..errors import StateError
from ..wording import listed
from ..workspace import Run
from .manifest import case_facts
from .published_start import MODEL, Converted
from .session import Session
from .start_source import WEIGHTS, RunSource, Trained, read_source, trained_with
from .transfer import Transfer

if TYPE_CHECKING:
    from torch import nn

__all__ = ["FoldStart", "fold_starts", "load_start", "record_of", "start_key", "told_start"]


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
        unknown: folders that the other run itself started from, before it, whose cases nobody can tell.
    """

    source: str
    fold: int | None
    weights: str
    seen: tuple[str, ...]
    named: tuple[str, ...]
    compared: str
    unknown: tuple[str, ...] = ()

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
        if self.unknown:
            told.append(
                f"{Path(self.source).name}, whose weights this run started from, goes back to {listed(self.unknown)}; "
                "which cases those were trained with is not known: if a case that is scored here was among them, its "
                "score is not that of an unseen case."
            )
        return told

    @property
    def caution(self) -> str | None:
        """The sentence about scored cases that the weights were trained with; ``None`` when none is known."""
        found = []
        if self.seen:
            found.append(f"the images of {listed(self.seen)}")
        if self.named:
            found.append(f"cases or subjects with the names of {listed(self.named)}")
        if not found:
            return None
        count = len(self.seen) + len(self.named)
        return (
            f"The weights of fold {self.fold} of {Path(self.source).name} that this run started from were trained with "
            f"{' and '.join(found)}: the scores of {'this case are' if count == 1 else f'these {count} cases are'} not "
            "those of unseen cases."
        )


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
    source = read_source(given, run)
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


def _recorded(run: Run) -> dict[int, FoldStart]:
    if not run.start.is_file():
        return {}
    found = read_record(run.start, "restore it, or delete the run's folder to train anew")
    rows = {int(index): dict(row) for index, row in found["folds"].items()}
    lists = ("seen", "named", "unknown")
    return {i: FoldStart(**row | {k: tuple(row.get(k, ())) for k in lists}) for i, row in rows.items()}


def _start(session: Session, source: RunSource, index: int, fold: Fold) -> FoldStart:
    """Choose the fold of the other run that a fold starts from."""
    scored = [c for c in session.used if c.case in fold.validation or c in session.held_out]
    order = sorted(source.weights, key=lambda i: (i != index % len(source.weights), i))
    starts = []
    for there in order:
        trained = trained_with(source.run, there)
        seen, named = _seen(session, scored, trained)
        compared = "bytes" if source.cases else "names"
        weights = source.weights[there]
        starts.append(FoldStart(str(source.run.folder), there, weights, seen, named, compared, trained.unknown))
    return min(starts, key=lambda start: len(start.seen) + len(start.named))


def _seen(session: Session, scored: Sequence[Case], trained: Trained) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the scored cases that weights were trained with: by bytes, and further ones by name."""
    images = {value for one in trained.facts for value in _image_hashes(one)}
    names = trained.names | {one["subject"] for one in trained.facts}
    seen = [c.case for c in scored if images & set(_image_hashes(case_facts(session, c)))]
    named = [c.case for c in scored if c.case not in seen and {c.case, c.subject} & names]
    return tuple(seen), tuple(named)


def _image_hashes(facts: Mapping[str, Any]) -> list[str]:
    return [value for name, value in facts["files"].items() if name not in ("label", "mask")]
