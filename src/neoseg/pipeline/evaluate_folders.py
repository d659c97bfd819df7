"""Scores of any program's masks: a folder of references against a folder of predictions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..data.layouts.files import FULL, refuse_unclear, two_codings
from ..data.layouts.imported import ImportOptions, Meaning
from ..data.layouts.subject_names import subjects_named
from ..errors import ConfigError, GeometryError, InputError
from ..io import endings, is_planar, read_label, stem_of
from ..metrics import (
    METRICS,
    Score,
    in_units_of,
    metric_named,
    preset_named,
    read_scores,
    score_case,
    worst_value,
    write_scores,
)
from ..progress import Progress, Silent
from ..report.summary import summarise
from ..volume import Grid, Volume, same_grid, to_stored
from ..wording import counted, listed

__all__ = ["evaluate_folders", "pair_masks"]

TOLERANCE_MM = 2.0

_ROLE = re.compile(r"[_-](lesion|labels?|seg|segmentation|masks?|gt|truth|pred|prediction)$", re.IGNORECASE)


def evaluate_folders(
    truth: Path | str,
    prediction: Path | str,
    *,
    preset: str | None = None,
    tolerance_mm: float | None = None,
    output: Path | str | None = None,
    options: ImportOptions | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score every pair of masks.

    Without a preset each value other than 0 that any mask holds is a class, scored in every case, also where that case
    lacks it, unless the values number instances; grids must be equal. With a preset, values, spacings and empty masks
    are treated as that official scorer treats them.

    Args:
        truth, prediction: folders of masks, paired by file name (without ending and a trailing "_lesion", "_seg"...).
        preset: a name in ``neoseg.metrics.PRESETS``.
        tolerance_mm: tolerance of NSD; by default 2 mm, or that of the preset, which takes no other.
        output: where to write the scores as CSV; earlier scores there are replaced.
        options: ``subject_pattern`` finds in the name of a case whose it is, and intervals draw subjects, each with all
            of its cases; by default each case is of another. Where ``masks`` are "instances", the one class is wherever
            a mask is not 0; by default values are classes, and more than 16 of them are refused.
        progress: the listener; default none.

    Returns:
        ``cases`` (a mapping of scores each), ``summary`` by metric, ``notes``. Where there are several classes a
        metric is called with the value of its class, as "dice.2". Where some references lack a class, what compares
        two masks has the same numbers ``where_held`` over the others, as the report of a run and comparisons have them.

    Raises:
        ConfigError: there is no such preset, it was given together with a tolerance, with ``masks`` or for pictures;
            the pattern finds no subject.
        InputError: a prediction is missing, a mask holds values that are not whole, references and predictions have no
            class in common, some references hold only 1 and the others only 255, or there are so many values, or so
            many more in the predictions than in the references, that they may number instances.
        InputError: another file than scores lies at ``output``, or it has the ending of an image.
        GeometryError: the grids of a pair differ, with a preset their shapes.
    """
    if output is not None:
        _require_free(Path(output))
    options = options or ImportOptions()
    chosen = preset_named(preset) if preset else None
    if chosen is not None and tolerance_mm is not None:
        raise ConfigError(
            f"--tolerance-mm {tolerance_mm:g}: a preset has its own tolerance; leave out --tolerance-mm, or --preset."
        )
    if chosen is not None and options.masks is not None:
        raise ConfigError(f"--masks {options.masks}: a preset knows what values mean; leave out --masks, or --preset.")
    pairs, notes = pair_masks(Path(truth), Path(prediction))
    pattern = options.subject_pattern
    subjects = dict(zip(pairs, [*pairs] if pattern is None else subjects_named([*pairs], pattern), strict=True))
    classes = _classes(pairs, notes, options.masks) if chosen is None else []
    rows: list[Score] = []
    held: set[tuple[str, str]] = set()
    worst: dict[tuple[str, str], float] = {}
    with (progress or Silent()).track("Scoring", len(pairs)) as advance:
        for name, (truth_file, prediction_file) in pairs.items():
            first, reference, found = len(rows), read_label(truth_file), read_label(prediction_file)
            if options.masks == "instances":
                reference, found = (replace(mask, array=mask.array != 0) for mask in (reference, found))
            if chosen is not None:
                if reference.grid.ndim == 2:
                    raise ConfigError(
                        f"--preset {preset}: {truth_file} is a picture, and presets score volumes; leave it out."
                    )
                _note_geometry(notes, name, reference, found)
                spacing = _stored_spacing(reference.grid)
                try:
                    scores = chosen.function(to_stored(reference)[0], to_stored(found)[0], spacing)
                except GeometryError as error:
                    raise GeometryError(f"{prediction_file}: {error}") from error
                rows += [Score(name, "", metric, value, chosen.units[metric]) for metric, value in scores.items()]
            else:
                tolerance = TOLERANCE_MM if tolerance_mm is None else tolerance_mm
                rows += _scores(name, reference, found, classes, prediction_file, tolerance)
                there = np.unique(reference.array)
                held |= {(name, f"{value:g}") for value in classes if value in there}
            for metric in {row.metric for row in rows[first:]}:
                least = worst_value(metric, reference.grid.shape, reference.grid.spacing)
                worst[name, metric] = in_units_of(reference.grid, least, metric_named(metric).unit)[0]
            advance(1, name)
    if output is not None:
        write_scores(rows, Path(output))
    if pattern is not None:
        count = len(set(subjects.values()))
        of = counted(count, "subject")
        notes.append(f"The {len(pairs)} cases are of {of}; intervals draw subjects.")
    if chosen is not None:
        notes.append(f"Preset {chosen.name}: {chosen.text}")
    summary = _summary(rows, worst, subjects, held if chosen is None else None)
    return {"cases": _by_case(rows), "summary": summary, "notes": notes}


def _require_free(output: Path) -> None:
    """Refuse to write scores over what is none.

    Raises:
        InputError: naming it.
    """
    if stem_of(output.name) is not None:
        raise InputError(f"{output}: the scores are a table, but this is the name of an image; end it in .csv.")
    if output.is_file():
        try:
            read_scores(output)
        except InputError:
            raise InputError(f"{output}: a file that holds no scores is there already; choose another name.") from None


def pair_masks(truth: Path, prediction: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Pair the files of two folders by name.

    Raises:
        InputError: a folder is missing or holds no mask, two files have one name, or a reference has no prediction.
    """
    notes: list[str] = []
    truths, predictions = _masks_in(truth, notes), _masks_in(prediction, notes)
    missing = sorted(set(truths) - set(predictions))
    if missing:
        raise InputError(
            f"{prediction}: {len(missing)} of {len(truths)} references have no prediction of that name "
            f"({listed(missing)}); every case has to be predicted, an empty mask included."
        )
    extra = sorted(set(predictions) - set(truths))
    if extra:
        told = f"{len(extra)} predictions have" if len(extra) > 1 else "1 prediction has"
        notes.append(f"{told} no reference and {'are' if len(extra) > 1 else 'is'} not scored: {', '.join(extra[:5])}.")
    return {name: (truths[name], predictions[name]) for name in sorted(truths)}, notes


def _masks_in(folder: Path, notes: list[str]) -> dict[str, Path]:
    if folder.is_file():
        raise InputError(
            f"{folder}: this is a file, and a folder of masks is wanted; give its folder, {folder.parent}."
        )
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder; correct the path.")
    files: dict[str, Path] = {}
    there = [p for p in sorted(folder.iterdir()) if stem_of(p.name) is not None and not p.name.startswith(".")]
    volumes = [p for p in there if not is_planar(p)]
    if volumes and (previews := len(there) - len(volumes)):
        told = counted(previews, "picture")
        notes.append(f"{folder}: {told} beside volumes such as {volumes[0].name} not scored, being taken for previews.")
    for path in volumes or there:
        name = _ROLE.sub("", str(stem_of(path.name)))
        if name in files:
            raise InputError(f"{folder}: {files[name].name} and {path.name} are both masks of {name!r}; keep one.")
        files[name] = path
    if not files:
        raise InputError(f"{folder}: this folder holds no mask ({', '.join(endings())}); correct the path.")
    return files


def _classes(pairs: Mapping[str, tuple[Path, Path]], notes: list[str], masks: Meaning | None) -> list[float]:
    """Return the values that the masks hold, without 0, and note those that only predictions hold; 1 of instances.

    Raises:
        InputError: references and predictions have none in common, a value is not whole, the references write one
            class as 1 here and as 255 there, or nobody said what so many values are.
    """
    references = {truth: _values(truth) for truth, _ in pairs.values()}
    mine = set().union(*(_values(prediction) for _, prediction in pairs.values()))
    if masks == "instances":
        notes.append("Instances count as one class, and those that touch as one component of it.")
        return [1.0]
    true = set().union(*references.values())
    folder = next(iter(pairs.values()))[1].parent
    if masks is None:
        refuse_unclear(next(iter(references)).parent, true)
        refuse_unclear(folder, mine)
        if len(true) == 1 and len(mine) > 2:
            raise InputError(
                f"{folder}: the predictions hold {len(mine)} values (such as {sorted(mine)[:3]}), the references one; "
                "say --masks instances when they number the instances of one class, or --masks classes when each is a "
                "class."
            )
    _require_one_coding(references)
    if true and mine and not true & mine:
        raise InputError(
            f"{folder}: the predictions hold the values {sorted(mine)[:5]}, but the references {sorted(true)[:5]}; "
            "write each class with the value that the references have."
        )
    if true and mine - true:
        false = sorted(mine - true)
        more = f" and {len(false) - 5} more" if len(false) > 5 else ""
        notes.append(f"No reference holds the values {false[:5]}{more}: all of them count as false.")
    return sorted(true | mine) or [1.0]


def _require_one_coding(references: Mapping[Path, set[float]]) -> None:
    """Refuse references that hold 0 and 1 in some files and 0 and 255 in others: two codings of one class.

    Raises:
        InputError: they do.
    """
    if two_codings(references.values()):
        ones, full = ([file for file, values in references.items() if values == {value}] for value in (1, FULL))
        raise InputError(
            f"{ones[0].parent}: {len(ones)} references hold only the value 1 ({ones[0].name}) and {len(full)} only the "
            f"value 255 ({full[0].name}), so that one class would be scored as two; write it with one value in all."
        )


def _values(file: Path) -> set[float]:
    """Return the values that a mask holds, without 0.

    Raises:
        InputError: one is not whole.
    """
    values = np.unique(read_label(file).array)
    unfit = values[~np.isfinite(values) | (values != np.trunc(values))]
    if unfit.size:
        raise InputError(
            f"{file}: this file holds the value {unfit[0]!s}, but a mask holds whole numbers; threshold it first."
        )
    return {float(value) for value in values} - {0.0}


def _scores(
    name: str, reference: Volume, found: Volume, classes: Sequence[float], file: Path, tolerance_mm: float
) -> list[Score]:
    if not same_grid(reference.grid, found.grid):
        raise GeometryError(
            f"{file}: its grid (shape {found.grid.shape}, spacing {_round(found.spacing)}) is not that of the "
            f"reference (shape {reference.grid.shape}, spacing {_round(reference.spacing)}); resample it first."
        )
    true, mine = reference.array[0], found.array[0]
    rows = []
    for value in classes:
        scores = score_case(true == value, mine == value, reference.grid.spacing, tolerance_mm=tolerance_mm)
        for metric in METRICS:
            found_value, unit = in_units_of(reference.grid, scores[metric.name], metric.unit)
            rows.append(Score(name, f"{value:g}", metric.name, found_value, unit))
    return rows


def _stored_spacing(grid: Grid) -> list[float]:
    """Return the spacing along the axes of the file, as its format states it: a tolerance decides by the last digit."""
    stored = grid.stored
    assert stored is not None
    if stored.file_format in ("mha", "nrrd"):
        return [float(mm) for mm in stored.header["spacing"][: grid.ndim]]
    return [float(np.linalg.norm(column)) for column in stored.affine[:-1, :-1].T]


def _note_geometry(notes: list[str], name: str, reference: Volume, found: Volume) -> None:
    if not same_grid(reference.grid, found.grid):
        notes.append(f"{name}: the grids differ; the official scorer looks at the array alone, and so does this score.")


def _several(rows: Sequence[Score]) -> bool:
    return len({row.label for row in rows}) > 1


def _by_case(rows: Sequence[Score]) -> dict[str, dict[str, float | None]]:
    table: dict[str, dict[str, float | None]] = {}
    several = _several(rows)
    for row in rows:
        key = f"{row.metric}.{row.label}" if several else row.metric
        table.setdefault(row.case, {})[key] = row.value if np.isfinite(row.value) else None
    return table


def _summary(
    rows: Sequence[Score],
    worst: Mapping[tuple[str, str], float],
    subjects: Mapping[str, str],
    held: Collection[tuple[str, str]] | None,
) -> dict[str, Any]:
    """Summarise scores by metric and class.

    Args:
        rows: the scores.
        worst: by case and metric.
        subjects: whose a case is.
        held: cases and classes that the references have; None where a preset decides what an empty mask counts.
    """

    def of(group: Sequence[Score]) -> dict[str, Any]:
        values = [r.value if np.isfinite(r.value) else None for r in group]
        whose, least = [subjects[r.case] for r in group], [worst[r.case, r.metric] for r in group]
        return summarise(values, least, generator=np.random.default_rng(0), subjects=whose).to_json()

    groups: dict[str, list[Score]] = {}
    several = _several(rows)
    for row in rows:
        key = f"{row.metric}.{row.label}" if several else row.metric
        groups.setdefault(key, []).append(row)
    result = {}
    for key, group in groups.items():
        metric = metric_named(group[0].metric)
        result[key] = {
            "unit": "" if group[0].unit == "ratio" else group[0].unit,
            "direction": metric.direction,
            **of(group),
        }
        own = [row for row in group if held is not None and (row.case, row.label) in held]
        if held is not None and len(own) < len(group) and metric.empty.truth is not None:
            result[key]["where_held"] = of(own)
    return result


def _round(spacing: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(s, 4) for s in spacing)
