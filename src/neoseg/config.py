"""RunConfig: the tree of the components' configs. TOML in, resolved JSON out."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError, model_validator

from .atlas.configs import AtlasConfig
from .augment.configs import AugmentConfig
from .config_problems import first_problem
from .data.folds import FoldsConfig
from .errors import ConfigError, InputError, nearest
from .inference.configs import PostprocessSearch, WindowConfig
from .labels import LabelSet
from .losses.configs import LossConfig
from .methods.configs import RuleConfig
from .networks.configs import NetworkConfig, UnetrPPConfig
from .plan.plan import PlanConfig
from .prepare.configs import PrepareConfig
from .targets import Targets
from .training.configs import TrainingConfig

__all__ = [
    "DEVICES",
    "LENGTHS",
    "EvaluateConfig",
    "RunConfig",
    "config_from",
    "load_config",
    "load_resolved",
    "recipe_text",
    "recipes",
]

LENGTHS = {"epochs": "--epochs", "steps": "--steps", "time_budget_s": "--time"}
"""Fields of [training] that set its length, the weakest first, each with its option on the command line."""

DEVICES = r"auto|cpu|cuda(:\d+)?"
"""A pattern of the names that `device` takes."""


class EvaluateConfig(BaseModel, frozen=True, extra="forbid", allow_inf_nan=False):
    """How masks are scored.

    Attributes:
        tolerance_mm: tolerance of the normalised surface distance.
        resamples: bootstrap resamples of each interval.
    """

    tolerance_mm: float = Field(2.0, gt=0)
    resamples: int = Field(2000, ge=100)


class RunConfig(BaseModel, frozen=True, extra="forbid"):
    """Everything that a run depends on besides the files.

    Attributes:
        name: folder of the run below ``runs``.
        cases: the table of cases, relative to the configuration file.
        workspace: where results go, relative to the configuration file.
        template: a skull-stripped image, or the folder of an atlas, that stands for the healthy group of the table: as
            the template of ``prepare.space = "template"`` and, an atlas only, for Z maps. Relative to the configuration
            file; omitted: the atlas is built.
        init_from: the folder of another run, or of weights that ``neoseg weights convert`` wrote, that the training
            starts from, relative to the configuration file; omitted: from random values.
        seed: seed of the folds, the training and the intervals.
        jobs: worker processes for the work on single cases; 0 starts none.
        fold_jobs: folds that are trained side by side, each in a process of its own: on GPUs one device each where
            there are several, on a CPU each with its share of the threads.
        threads: CPU threads of each training; omitted: those of this process divided by ``fold_jobs``. Sums are
            rounded in another order with another number, so the last bits of the weights depend on it.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        labels: class name to stored value, or to several values that mean it.
        regions: region name to the classes in it, from the largest to the innermost: the network then learns these
            regions, which may overlap, and masks still hold the classes. A region is painted over those before it, as
            the one class that stands in it and in no later region; each class has to follow from them in this way.
            Omitted: the network learns the classes.
        label_tolerance: how far a stored value may lie from a declared one.
        label_instances: the values of the labels number the instances of one class: each above 0 is that class.
        channels: channels that the network sees, in this order; omitted: those of the table of cases, and "zadc" when
            [prepare.zmap] makes it.
        folds, plan, prepare, atlas, network, loss, augment, training, window, postprocess, rules, evaluate: see each.
    """

    name: str = Field("default", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    cases: Path = Path("cases.csv")
    workspace: Path = Path()
    template: Path | None = None
    init_from: Path | None = None
    seed: int = Field(0, ge=0, lt=2**53)
    jobs: int = Field(0, ge=0)
    fold_jobs: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    device: str = Field("auto", pattern=rf"^({DEVICES})$")
    labels: dict[str, int | list[float]]
    regions: dict[str, tuple[str, ...]] | None = None
    label_tolerance: float = Field(0.0, ge=0, lt=0.5)
    label_instances: bool = False
    channels: tuple[str, ...] | None = None
    folds: FoldsConfig = FoldsConfig()
    plan: PlanConfig = PlanConfig()
    prepare: PrepareConfig = PrepareConfig()
    atlas: AtlasConfig = AtlasConfig()
    network: NetworkConfig = UnetrPPConfig()
    loss: LossConfig = LossConfig()
    augment: AugmentConfig = AugmentConfig()
    training: TrainingConfig = TrainingConfig()
    window: WindowConfig = WindowConfig()
    postprocess: PostprocessSearch = PostprocessSearch()
    rules: tuple[RuleConfig, ...] = ()
    evaluate: EvaluateConfig = EvaluateConfig()

    @model_validator(mode="after")
    def _channels_are_named_once(self) -> RunConfig:
        given = self.channels
        if given is not None and (not given or len(set(given)) < len(given)):
            raise ValueError(f"channels = {list(given)}: name at least one channel, and each once, or leave it out")
        return self

    @model_validator(mode="after")
    def _rules_have_names_of_their_own(self) -> RunConfig:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"the rules are named {names}; give each its own name")
        return self

    @model_validator(mode="after")
    def _labels_make_classes(self) -> RunConfig:
        try:
            _ = self.targets
        except ConfigError as error:
            raise ValueError(str(error).removesuffix(".")) from error
        return self

    @model_validator(mode="after")
    def _nothing_is_chosen_for_regions(self) -> RunConfig:
        set_ones = [
            name for name in PostprocessSearch.model_fields
            if getattr(self.postprocess, name) != PostprocessSearch.model_fields[name].default
        ]  # fmt: skip
        if self.regions is not None and set_ones:
            raise ValueError(
                f"postprocess.{set_ones[0]} has no use with [regions]: they are painted where their probability is at "
                "least 0.5, and a component taken from one of the classes would leave a hole in the regions around it; "
                f"remove postprocess.{set_ones[0]}, or [regions]"
            )
        return self

    @model_validator(mode="after")
    def _several_classes_have_no_threshold(self) -> RunConfig:
        search, fields, classes = self.postprocess, PostprocessSearch.model_fields, len(self.labels)
        if classes < 2 or self.regions is not None:
            return self
        for name in ("thresholds", "minimum_lesion_mm3"):
            if getattr(search, name) != fields[name].default:
                raise ValueError(
                    f"postprocess.{name} has no use with {classes} classes: the most probable one is taken, and what "
                    "can be chosen is how many of the largest components of each stay (postprocess.keep_largest); "
                    f"remove postprocess.{name}"
                )
        if search.criterion != fields["criterion"].default and len(search.keep_largest) == 1:
            raise ValueError(
                f"postprocess.criterion has no use with {classes} classes while postprocess.keep_largest is "
                f"{list(search.keep_largest)}, since there is nothing to choose; remove it, or name several numbers in "
                "postprocess.keep_largest"
            )
        return self

    @model_validator(mode="after")
    def _something_is_validated(self) -> RunConfig:
        plateau = self.training.decided_schedule == "plateau"
        if self.folds.inner_share == 0 and (plateau or self.training.early_stop_patience is not None):
            setting = 'training.schedule = "plateau"' if plateau else "training.early_stop_patience"
            raise ValueError(
                f"{setting} looks at validation cases, and folds.inner_share = 0 sets none aside; set "
                f"folds.inner_share to 0.2, or remove {setting.split()[0]}"
            )
        return self

    @model_validator(mode="after")
    def _sizes_suit_the_network(self) -> RunConfig:
        wanted = {
            "window.whole needs a network that takes volumes": (self.window.whole, "window.whole to false"),
            "training.validate_whole needs a network that takes volumes": (
                self.training.validate_whole,
                "training.validate_whole to false",
            ),
            "training.patch_scales needs a network that takes patches": (self.training.patch_scales, "leave it out"),
        }
        for what, (used, otherwise) in wanted.items():
            if used and not self.network.any_size:
                remedy = "choose another one"
                if self.network.kind == "unetr_pp":
                    remedy = 'set network.size to "flex" or "free"'
                raise ValueError(f"{what} of any size; {remedy}, or {otherwise}")
        return self

    @property
    def label_set(self) -> LabelSet:
        """The classes with their stored values."""
        return LabelSet.of(self.labels, self.label_tolerance, instances=self.label_instances)

    @property
    def targets(self) -> Targets:
        """What the network learns."""
        return Targets.of(self.label_set, self.regions)

    @property
    def regions_key(self) -> list[Any]:
        """The regions in their order, for hashes of what depends on them; empty where there are none."""
        return [[[name, list(members)] for name, members in self.regions.items()]] if self.regions else []

    @property
    def label_key(self) -> float | str:
        """How stored values are told to be those of a class, for hashes."""
        return "instances" if self.label_instances else self.label_tolerance


def load_config(
    path: Path | str,
    changes: Sequence[str] = (),
    workspace: Path | str | None = None,
    *,
    length: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Read a configuration file and apply changes such as ``"network.fusion=sum"``.

    Relative paths in the file are relative to its folder; the result holds absolute ones.

    Args:
        path: the file.
        changes: ``key=value`` each.
        workspace: folder of the results, in place of the file's.
        length: one field of :data:`LENGTHS` with its value; it wins over every other length in the file.

    Raises:
        InputError: there is no such file.
        ConfigError: not TOML, an unknown key (the nearest valid one is named) or a wrong value.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(_no_configuration(path))
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: this is not valid TOML ({error}); correct it.") from error
    for change in changes:
        _apply(tree, change)
    if length:
        _set_length(tree, length, changes)
    config = config_from(tree, str(path))
    base = path.resolve().parent
    place = (base / config.workspace) if workspace is None else Path(workspace).resolve()
    update = {"cases": base / config.cases, "workspace": place}
    update |= {n: base / path for n in ("template", "init_from") if (path := getattr(config, n)) is not None}
    return config.model_copy(update=update)


def config_from(tree: Mapping[str, Any], source: str, *, remedy: str | None = None) -> RunConfig:
    """Validate a tree of values.

    Args:
        tree: the values.
        source: where they come from, for the error.
        remedy: what to do when they are wrong; by default it follows from the mistake.

    Raises:
        ConfigError: the first wrong key or value, by its full path.
    """
    try:
        config = RunConfig.model_validate(tree)
        _ = config.targets
    except ValidationError as error:
        problem, correction = first_problem(error, RunConfig)
        raise ConfigError(f"{source}: {problem}; {remedy or correction}.") from error
    except ConfigError as error:
        raise ConfigError(f"{source}: {error}") from error
    return config


def load_resolved(path: Path, *, remedy: str = "restore the file") -> RunConfig:
    """Read the resolved ``config.json`` of a run.

    Args:
        path: the file.
        remedy: what to do when it cannot be read.

    Raises:
        ConfigError: it was damaged or written by another version.
    """
    try:
        config = RunConfig.model_validate_json(path.read_text(encoding="utf-8"))
        _ = config.targets
    except (OSError, UnicodeDecodeError, ValidationError, ConfigError) as error:
        reason = first_problem(error, RunConfig)[0] if isinstance(error, ValidationError) else str(error).rstrip(".")
        raise ConfigError(
            f"{path}: this is not the configuration of a run of this version: {reason}; {remedy}."
        ) from error
    return config


def recipes() -> list[str]:
    """Return the names of the shipped recipes."""
    folder = resources.files("neoseg").joinpath("recipes")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def recipe_text(name: str) -> str:
    """Return the text of a shipped recipe.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in recipes():
        raise ConfigError(f"The recipe {name!r} is not known{nearest(name, recipes())}.")
    return resources.files("neoseg").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8")


def _no_configuration(path: Path) -> str:
    """Return why a path is no configuration, and what to give."""
    if not path.is_dir():
        return f"{path}: there is no such configuration; `neoseg import DIR` writes one."
    if (path / "neoseg.toml").is_file():
        return (
            f"{path}: this is a folder, and a configuration is wanted; give {path / 'neoseg.toml'} or --workspace "
            f"{path}."
        )
    if (path / "config.json").is_file():
        return (
            f"{path}: this is a run, and a configuration is wanted; add --input SCANS --output DIR to `neoseg predict` "
            "to predict new scans, or give the neoseg.toml that the run was made with."
        )
    return f"{path}: this folder holds no neoseg.toml; `neoseg import DIR --workspace {path}` writes one."


def _apply(tree: dict[str, Any], change: str) -> None:
    key, mark, text = change.partition("=")
    if not mark or not key.strip():
        raise ConfigError(f"--set {change}: a change is written as key=value, such as network.fusion=sum.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.lstrip().startswith(("[", "{")):
            raise ConfigError(
                f"--set {change}: the value is not valid TOML ({error}); put the texts in it in double quotes, and the "
                "whole change in single ones."
            ) from error
        value = text
    *parents, last = key.strip().split(".")
    node: Any = tree
    for place, parent in enumerate(parents, start=1):
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise ConfigError(
                f"--set {change}: {parent!r} is a value ({node!r}), not a table, so it has no {last!r}; give --set "
                f"{'.'.join(parents[:place])}=VALUE."
            )
    node[last] = value


def _set_length(tree: dict[str, Any], length: Mapping[str, Any], changes: Sequence[str]) -> None:
    (field, value), order = next(iter(length.items())), list(LENGTHS)
    for change in changes:
        key = change.partition("=")[0].strip().removeprefix("training.")
        if key in LENGTHS and change.strip().startswith("training."):
            raise ConfigError(
                f"{LENGTHS[field]} and --set {change} both set the length of the training; give one of them."
            )
    training = tree.setdefault("training", {})
    if isinstance(training, dict):  # else the validation says what is wrong
        for stronger in order[order.index(field) + 1 :]:
            training.pop(stronger, None)
        if field == "time_budget_s":
            training.pop("steps", None)
        training[field] = value
