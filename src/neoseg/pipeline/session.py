"""What every stage of a run needs: the configuration, the cases by their part in the run, the paths, the listener."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

from .. import __version__
from ..atomic import read_record
from ..cluster.main_guard import require_main_guard
from ..config import RunConfig
from ..data.cases import Case, channels_of, read_cases
from ..data.folds import Fold, read_folds
from ..data.store import CaseStore, digest, files_digest
from ..data.units import channel_kind
from ..errors import ConfigError, InputError, StateError, nearest
from ..io import detached_files
from ..labels import LabelSet
from ..methods.configs import RuleConfig
from ..plan.plan import Plan, read_plan
from ..prepare.configs import ADC, ZADC, PrepareSettings, channels_read, reference_channel
from ..progress import Progress, Silent
from ..targets import Targets
from ..workspace import Run, Workspace, write_if_changed
from .made_with import plan_of

__all__ = ["CV", "HELD_OUT", "Pinned", "Session", "open_session"]

CV, HELD_OUT = "cv", "held_out"


@dataclass(frozen=True)
class Pinned:
    """A plan and its folds, as they were when a stage began."""

    plan: Plan
    folds: tuple[Fold, ...]


@dataclass(frozen=True, eq=False)
class Session:
    """A configuration at work on its cases.

    Attributes:
        config: the resolved configuration.
        cases: every case of the table.
        progress: the listener.
        pinned: plan and folds in place of those in the workspace, which may be written anew during a stage.
    """

    config: RunConfig
    cases: tuple[Case, ...]
    progress: Progress = field(default_factory=Silent)
    pinned: Pinned | None = None

    def with_plan_of_now(self) -> Session:
        """Return a session that keeps the plan and the folds that lie in the workspace now.

        Raises:
            StateError: there are none yet.
        """
        return self if self.pinned else replace(self, pinned=Pinned(self.plan, tuple(self.folds)))

    @cached_property
    def workspace(self) -> Workspace:
        """Paths of the workspace."""
        return Workspace(self.config.workspace)

    @cached_property
    def run(self) -> Run:
        """Paths of this run."""
        return self.workspace.run(self.config.name)

    @cached_property
    def labels(self) -> LabelSet:
        """The classes."""
        return self.config.label_set

    @cached_property
    def targets(self) -> Targets:
        """What the network learns: the classes, or regions made of them."""
        return self.config.targets

    @cached_property
    def trainable(self) -> tuple[Case, ...]:
        """Patients of the training split that have a label: the cross-validated cases."""
        return tuple(c for c in self.cases if c.group == "patient" and c.split == "train" and c.label is not None)

    @cached_property
    def held_out(self) -> tuple[Case, ...]:
        """Patients of the test split, with or without a label."""
        return tuple(c for c in self.cases if c.group == "patient" and c.split == "test")

    @cached_property
    def healthy(self) -> tuple[Case, ...]:
        """The healthy group: material for the atlas only."""
        return tuple(c for c in self.cases if c.group == "healthy")

    @cached_property
    def used(self) -> tuple[Case, ...]:
        """Every patient that the run prepares."""
        return (*self.trainable, *self.held_out)

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Channels of the network, in order.

        Raises:
            ConfigError: a configured channel is neither in the table of cases nor made by a step.
        """
        found = channels_of(self.used)
        made = (ZADC,) if self.config.prepare.zmap is not None else ()
        known = (*found, *(c for c in made if c not in found))
        if self.config.channels is None:
            return known
        for channel in self.config.channels:
            if channel not in known:
                raise ConfigError(f"channels: {channel!r} is not a channel of the cases{nearest(channel, known)}.")
        return self.config.channels

    @cached_property
    def makes_zmap(self) -> bool:
        """Whether a Z map has to be made for at least one case."""
        return ZADC in self.channels and any(ZADC not in c.images for c in self.used)

    @cached_property
    def channels_read(self) -> tuple[str, ...]:
        """Channels that are read of a case where it has them; see :func:`neoseg.prepare.configs.channels_read`."""
        return channels_read(self.config.prepare, self.channels, makes_zmap=self.makes_zmap)

    @property
    def builds_atlas(self) -> bool:
        """Whether an atlas is built of the healthy group, for Z maps or as the template."""
        return self.config.template is None and (self.makes_zmap or self.config.prepare.space == "template")

    def read_of(self, case: Case) -> tuple[str, ...]:
        """Return the channels that are read of a case: ADC of the healthy group, where an atlas is built of it."""
        if case.group == "healthy":
            return (ADC,) if self.builds_atlas else ()
        return self.channels_read

    def grid_image(self, case: Case) -> Path:
        """Return the image whose grid a case and its masks have: the first one that is read."""
        return next(case.images[channel] for channel in self.read_of(case) if channel in case.images)

    @property
    def plan(self) -> Plan:
        """The plan of the workspace.

        Raises:
            StateError: there is none yet.
        """
        if self.pinned:
            return self.pinned.plan
        if not self.workspace.plan.is_file():
            raise StateError(f"{self.workspace.plan}: there is no plan yet; run `neoseg plan` or `neoseg run` first.")
        return read_plan(self.workspace.plan)

    @property
    def run_plan(self) -> Plan:
        """The plan that the run was trained with.

        Raises:
            StateError: the run is not trained, or the workspace has another plan by now, so that its prepared cases
                do not fit the weights.
        """
        if not self.run.plan.is_file():
            raise StateError(f"{self.run.folder}: this run is not trained; run `neoseg train` or `neoseg run` first.")
        mine, theirs = plan_of(self.run), self.plan
        if mine.decisions() != theirs.decisions():
            raise StateError(
                f"{self.workspace.plan}: this plan is not the one that {self.run.folder} was trained with; give each "
                "configuration its own workspace, or train again under another `name`."
            )
        return mine

    @cached_property
    def table_key(self) -> str:
        """Hash of who belongs where: subjects, sites, groups and splits."""
        return digest([[c.case, c.subject, c.site, c.group, c.split] for c in self.cases])

    def require_unique(self) -> None:
        """Refuse a table in which one case name stands twice.

        Raises:
            InputError: naming it.
        """
        seen: set[str] = set()
        for case in self.cases:
            if case.case.lower() in seen:
                raise InputError(
                    f"{self.config.cases}: the case {case.case!r} stands twice; give each row its own name."
                )
            seen.add(case.case.lower())

    @property
    def folds(self) -> list[Fold]:
        """The folds of the workspace.

        Raises:
            StateError: there are none yet.
            InputError: the file was edited into something that leaks (a subject on two sides).
        """
        if self.pinned:
            return list(self.pinned.folds)
        if not self.workspace.folds.is_file():
            raise StateError(f"{self.workspace.folds}: there are no folds yet; run `neoseg plan` first.")
        return read_folds(self.workspace.folds, {c.case: c.subject for c in self.trainable})

    @property
    def settings(self) -> PrepareSettings:
        """What preparation takes from the plan."""
        plan = self.plan
        return PrepareSettings(
            channels=plan.channels,
            spacing_mm=plan.spacing_mm,
            unit=plan.unit,
            rules=plan.rules,
            statistics=plan.statistics,
        )

    @property
    def store(self) -> CaseStore:
        """The prepared cases that belong to the plan and configuration of now.

        Raises:
            StateError: there is no plan yet.
        """
        path = self.workspace.plan
        plan = path.read_bytes() if path.is_file() and not self.pinned else b""
        if plan not in self._stores:  # the hash takes longer than a look at the file, and loops over cases ask for it
            self._stores[plan] = CaseStore(self.workspace.prepared(self._store_key))
        return self._stores[plan]

    @cached_property
    def _stores(self) -> dict[bytes, CaseStore]:
        return {}

    @property
    def _store_key(self) -> str:
        """Hash of what all prepared cases depend on."""
        return digest(
            [
                self.config.prepare.model_dump(mode="json"),
                self.config.atlas.model_dump(mode="json") if self.makes_zmap else None,
                self.settings.model_dump(mode="json"),
                # in their order, which numbers the classes
                list(self.config.labels.items()),
                self.config.label_key,
                self.atlas_key,
                __version__,
            ]
        )

    @cached_property
    def atlas_key(self) -> str | None:
        """Hash of what the atlas or template is made from; None when neither is used.

        Raises:
            InputError: there is no such template.
        """
        config = self.config
        if not self.makes_zmap and config.prepare.space == "native":
            return None
        if (given := config.template) is not None:
            if not given.exists():
                raise InputError(f"{given}: there is no such file or folder; correct `template` in the configuration.")
            return digest([self._digest(p) for p in (sorted(given.glob("atlas.*")) if given.is_dir() else [given])])
        return digest(
            [
                __version__,
                [self.digests(c) for c in self.healthy],
                config.atlas.model_dump(mode="json"),
                config.prepare.bias_field.model_dump(mode="json") if config.prepare.bias_field else None,
            ]
        )

    def digests(self, case: Case) -> dict[str, Any]:
        """Return hashes of a case's files; a file is read again only when its size or time changed."""
        files = dict(case.images) | ({"label": case.label} if case.label else {})
        files |= {"mask": case.mask} if case.mask else {}
        hashes = {name: self._digest(path) for name, path in files.items()}
        return {"case": case.case, "files": hashes, "index": case.channel_index, "units": case.units}

    @cached_property
    def _known_digests(self) -> dict[str, list[Any]]:
        path = self.workspace.root / "digests.json"
        try:
            known = read_record(path, "") if path.is_file() else {}
        except StateError:
            return {}  # it only saves reading files again
        return {name: entry for name, entry in known.items() if isinstance(entry, list)}

    def _digest(self, path: Path) -> str:
        """Hash of a file together with the files that hold its voxels, where it is a header only."""
        files: list[Path] = []
        stamp: list[int] = []
        for file in chain([path], detached_files(path)):
            try:
                status = file.stat()
            except OSError as error:
                told = "correct cases.csv" if file == path else f"{path.name} names it; copy it too"
                raise InputError(f"{file}: this file cannot be read ({error.strerror}); {told}.") from error
            files.append(file)
            stamp += [status.st_size, status.st_mtime_ns]
        known = self._known_digests.get(str(path))
        if known is None or known[:-1] != stamp:
            known = [*stamp, files_digest(files)]
            self._known_digests[str(path)] = known
        return str(known[-1])

    def keep_digests(self) -> None:
        """Remember the hashes for the next command."""
        write_if_changed(self.workspace.root / "digests.json", self._known_digests)


def open_session(config: RunConfig, progress: Progress | None = None) -> Session:
    """Read the table of cases and return a session.

    Raises:
        InputError: the table is missing, wrong or empty.
        ConfigError: a rule names a channel that the network has not, or there are several classes for it; or another
            channel than ADC would be deformed to fit an atlas of ADC.
    """
    require_main_guard()
    cases = read_cases(config.cases)
    if not cases:
        raise InputError(f"{config.cases}: the table holds no case; add rows or run `neoseg import DIR`.")
    session = Session(config, tuple(cases), progress or Silent())
    if config.rules and session.used:
        _require_rules(config.rules, session.channels, session.labels.count)
    _require_contrast(session)
    return session


def _require_rules(rules: Sequence[RuleConfig], channels: Sequence[str], classes: int) -> None:
    """Refuse rules that cannot be scored beside the network, before the network is trained.

    Raises:
        ConfigError: a rule names a channel that does not exist, or the data set has several classes.
    """
    for rule in rules:
        if rule.channel not in channels:
            raise ConfigError(
                f"rules: the channel {rule.channel!r} is not among the channels{nearest(rule.channel, channels)}."
            )
    if classes > 2:
        raise ConfigError(f"rules: a threshold finds one class, but {classes - 1} are declared; remove [[rules]].")


def _require_contrast(session: Session) -> None:
    """Refuse a free-form registration of another channel than ADC to an atlas, which is one of ADC.

    Raises:
        ConfigError: naming the channel.
    """
    prepare, given = session.config.prepare, session.config.template
    has_atlas = bool(session.healthy) if given is None else given.is_dir()
    if prepare.ffd is None or not has_atlas or not session.used:
        return
    if prepare.space == "native" and not (prepare.zmap is not None and session.makes_zmap):
        return
    reference = reference_channel(prepare, session.channels)
    if channel_kind(reference) != "adc":
        other = "" if session.makes_zmap else f", or name an image of {reference} as `template`"
        raise ConfigError(
            f"prepare.reference: the channel {reference!r} would be registered to an atlas of ADC, but the free-form "
            f'step needs one contrast; set prepare.reference = "{ADC}" where there is ADC, or prepare.ffd = '
            f"false{other}."
        )
