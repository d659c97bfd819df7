"""The list of checks, and running all of them on one reading of the files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from ...labels import LabelSet
from ...progress import Progress, Silent
from ..cases import Case
from ..folds import Fold
from .adc_units import adc_units
from .background import background
from .brain_masks import brain_masks
from .colours import colours
from .constant_images import constant_images
from .duplicate_content import duplicate_content
from .duplicate_ids import duplicate_ids
from .empty_labels import empty_labels
from .extreme_values import extreme_values
from .facts import DataFacts, gather
from .grids import grids
from .kinds_of_images import kinds_of_images
from .label_values import label_values
from .missing_channels import missing_channels
from .missing_files import missing_files
from .missing_images import missing_images
from .missing_labels import missing_labels
from .not_finite import not_finite
from .orientation import orientation
from .problem import Problem
from .shared_files import shared_files
from .single_slices import single_slices
from .site_shift import site_shift
from .sizes import sizes
from .split_subjects import split_subjects
from .units import units
from .unreadable_files import unreadable_files

__all__ = ["CHECKS", "Check", "run_checks"]


@dataclass(frozen=True)
class Check:
    """One check: its name, and the function from facts to problems."""

    name: str
    run: Callable[[DataFacts], list[Problem]]


CHECKS: tuple[Check, ...] = (
    Check("duplicate_ids", duplicate_ids),
    Check("missing_files", missing_files),
    Check("unreadable_files", unreadable_files),
    Check("missing_images", missing_images),
    Check("missing_labels", missing_labels),
    Check("missing_channels", missing_channels),
    Check("grids", grids),
    Check("kinds_of_images", kinds_of_images),
    Check("sizes", sizes),
    Check("single_slices", single_slices),
    Check("extreme_values", extreme_values),
    Check("not_finite", not_finite),
    Check("constant_images", constant_images),
    Check("colours", colours),
    Check("label_values", label_values),
    Check("empty_labels", empty_labels),
    Check("duplicate_content", duplicate_content),
    Check("shared_files", shared_files),
    Check("split_subjects", split_subjects),
    Check("adc_units", adc_units),
    Check("units", units),
    Check("orientation", orientation),
    Check("background", background),
    Check("brain_masks", brain_masks),
    Check("site_shift", site_shift),
)


def run_checks(
    cases: Sequence[Case],
    labels: LabelSet,
    channels: Sequence[str],
    progress: Progress | None = None,
    *,
    folds: Sequence[Fold] = (),
    read: Callable[[Case], Collection[str]] | None = None,
) -> list[Problem]:
    """Read every file once and return all problems, errors first; nothing is written and nothing is raised.

    Args:
        cases: the data set.
        labels: the declared classes.
        channels: the channels that every patient needs.
        progress: told of each case that was read.
        folds: the cross-validation, when it is made already (an edited folds.json may split a subject).
        read: the channels that are read of a case; of others only missing files are told. Omitted: all.
    """
    facts = DataFacts(gather(cases, progress or Silent(), read), labels, tuple(channels), tuple(folds))
    # one fault of a file that is several channels, such as a picture in colour, is one problem
    found = list(dict.fromkeys(problem for check in CHECKS for problem in check.run(facts)))
    return sorted(found, key=lambda problem: (problem.severity != "error", problem.case))
