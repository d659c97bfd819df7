"""One file through chosen preparation steps, outside any run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import DAMAGED_NPZ, replacing
from ..data.cases import Case
from ..data.field_of_view import unlikely_size
from ..data.foreground import foreground_mask
from ..data.headers import orientation_doubt
from ..data.loading import load_images, load_mask
from ..data.units import UNITS_OF_ADC, channel_kind
from ..errors import ConfigError, GeometryError, InputError
from ..io import endings, read_grid, read_volume, strip_ending, write_volume
from ..plan.intensity import NormaliseConfig, Rule
from ..prepare.atlas import Atlas
from ..prepare.bias_field import BiasFieldConfig, correct_bias_field
from ..prepare.configs import PrepareConfig
from ..prepare.normalise import normalise
from ..prepare.volume_steps import (
    Brain,
    align,
    cropped,
    label_through,
    require_same_correction,
    resampled,
    through,
    zmap_of,
)
from ..register.itk import ITK_ENDINGS, read_itk, write_itk
from ..register.transforms import Transform, from_arrays, to_arrays
from ..volume import Volume, upright

__all__ = ["KINDS", "VolumeJob", "prepare_volume", "read_transform", "write_transform"]

KINDS = ("adc", "mr", "ct")
"""What the numbers of an image mean; see :func:`neoseg.data.units.channel_kind`."""

RULES: tuple[Rule, ...] = ("case", "percentile")
"""Normalisation rules that need nothing but the image itself."""

UNKNOWN = "unknown"
"""Stands for the unit of an ADC map whose values are those of none."""


@dataclass(frozen=True, kw_only=True)
class VolumeJob:
    """What is to be done with one file; steps run in the order of these fields.

    Attributes:
        source: the image.
        output: where the result goes; the ending chooses the format.
        kind: one of :data:`KINDS`; ``None``: told from the file's name.
        unit: unit of an ADC map; "": told from its values.
        volume_index: which volume of a 4-D file.
        mask: the brain, on the grid of the image; ``None``: told from the image.
        label: the image is a label: it is only brought elsewhere, by the nearest voxel.
        bias_field: correct the bias field.
        atlas: folder of an atlas, for ``zmap``.
        zmap: where the Z map goes, on the grid of the image.
        to: the template, an image file or the folder of an atlas.
        transform: a saved transform to go through instead of registering; ``inverse``: the other way round.
        save_transform: where the transform (template world to scan world) goes.
        crop: cut to the brain.
        spacing_mm: voxel size of the result.
        normalise: one of :data:`RULES`.
        save_mask: where the brain mask goes, on the grid of the result.
    """

    source: Path
    output: Path
    kind: str | None = None
    unit: str = ""
    volume_index: int | None = None
    mask: Path | None = None
    label: bool = False
    bias_field: bool = False
    atlas: Path | None = None
    zmap: Path | None = None
    to: Path | None = None
    transform: Path | None = None
    inverse: bool = False
    save_transform: Path | None = None
    crop: bool = False
    spacing_mm: tuple[float, ...] | None = None
    normalise: str | None = None
    save_mask: Path | None = None


def prepare_volume(job: VolumeJob, config: PrepareConfig | None = None) -> dict[str, Any]:
    """Read one file, take the chosen steps and write the results, all of them at the end.

    Args:
        job: files and steps.
        config: settings of the steps; by default their defaults.

    Returns:
        What was done, plain data: kind, mask, one entry a step, warnings, files.

    Raises:
        ConfigError: options that do not fit together.
        InputError: a file that cannot be used, or an atlas of scans that were made or corrected in another way.
    """
    _require(job)
    settings = config or PrepareConfig()
    facts: dict[str, Any] = {"input": str(job.source)}
    if job.label:
        _label(job, facts)
        return facts
    kind = job.kind or ("adc" if job.unit else _kind_of(job.source))
    correction = (settings.bias_field or BiasFieldConfig()) if job.bias_field else None
    brain = _read(job, kind, facts)
    atlas = _atlas(job, kind, facts["unit"], correction)
    if correction is not None:
        brain = _corrected(brain, correction, facts)
    made = None
    if atlas is not None:
        made = zmap_of(brain, atlas, settings)
        facts["zmap"] = {name: _plain(value) for name, value in made.facts.items()}
        facts["warnings"] += made.warnings
    found: Transform | None = None
    if job.to is not None:
        brain, found = _to_template(job, brain, job.to, settings, facts)
    if job.crop:
        brain = cropped(brain)
    if job.spacing_mm is not None:
        brain = resampled(brain, job.spacing_mm)
    image = brain.volume
    if job.normalise is not None:
        rule: Rule = "case" if job.normalise == "case" else "percentile"
        values = normalise(image.array[0], brain.mask, NormaliseConfig(rule=rule), rule=rule, statistics=None)
        image = image.with_array(values)
        facts["normalise"] = {"rule": rule, "unit": "none: the values have no unit any more"}
    # the transform first: it alone may still be refused
    if found is not None and job.save_transform is not None:
        write_transform(found, job.save_transform)
    if made is not None and job.zmap is not None:
        write_volume(made.volume, job.zmap)
    if job.save_mask is not None:
        write_volume(image.with_array(brain.mask.astype(np.uint8)), job.save_mask)
    write_volume(image, job.output)
    facts["files"] = [str(p) for p in (job.output, job.zmap, job.save_transform, job.save_mask) if p is not None]
    facts["grid"] = {"shape": list(image.grid.shape), "spacing_mm": [round(s, 5) for s in image.spacing]}
    return facts


def read_transform(path: Path) -> Transform:
    """Read a transform: npz as :func:`write_transform` leaves it, or an ITK file.

    Raises:
        InputError: it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: this file does not exist; correct the path of the transform.")
    if path.suffix in ITK_ENDINGS:
        return read_itk(path)
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as arrays:
            return from_arrays(dict(arrays))
    except (*DAMAGED_NPZ, AttributeError, TypeError) as error:
        raise InputError(f"{path}: this transform cannot be read ({error}); write it again.") from error


def write_transform(transform: Transform, path: Path) -> None:
    """Write a transform as npz (data without objects) or, by its ending, as an ITK file.

    Raises:
        InputError: another ending, or a transform without a form in ITK.
    """
    if path.suffix in ITK_ENDINGS:
        write_itk(transform, path)
        return
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **to_arrays(transform))  # type: ignore[arg-type]


def _require(job: VolumeJob) -> None:
    """Refuse options that do not fit together before any work is done.

    Raises:
        ConfigError: naming them.
        InputError: an output without a known ending, or one that would replace an input.
    """
    wrong: list[tuple[bool, str]] = [
        (job.kind is not None and job.kind not in KINDS, f"--kind {job.kind}: one of {', '.join(KINDS)} is wanted."),
        (bool(job.unit) and job.unit not in UNITS_OF_ADC, f"--unit {job.unit}: one of {', '.join(UNITS_OF_ADC)}."),
        (
            bool(job.unit) and job.kind not in (None, "adc"),
            f"--unit {job.unit} is one of ADC, but --kind {job.kind} was given; leave one of them out.",
        ),
        ((job.atlas is None) != (job.zmap is None), "--atlas DIR and --zmap FILE belong together; give both."),
        (job.transform is not None and job.to is None, "--transform needs --to, the grid that is brought to."),
        (job.inverse and job.transform is None, "--inverse turns a saved transform round; give --transform."),
        (job.save_transform is not None and job.to is None, "--save-transform needs --to: without it there is none."),
        (
            job.save_transform is not None and job.transform is not None,
            "--save-transform writes what a registration found, but --transform leaves that out; give one of both.",
        ),
        (
            job.normalise is not None and job.normalise not in RULES,
            f"--normalise {job.normalise}: one of {', '.join(RULES)} is wanted; other rules need a plan.",
        ),
        (
            job.label and (job.to is None or job.transform is None),
            "--label: a label is only brought elsewhere through a saved transform; give --to and --transform.",
        ),
        (
            (job.label and any((job.mask, job.save_mask, job.bias_field, job.zmap, job.crop, job.spacing_mm)))
            or (job.label and any((job.normalise, job.unit, job.kind))),
            "--label: bias field, Z map, mask, crop, spacing, kind, unit and normalisation are steps for images; leave "
            "them out.",
        ),
    ]
    for is_wrong, sentence in wrong:
        if is_wrong:
            raise ConfigError(sentence)
    outputs = [p for p in (job.output, job.zmap, job.save_mask) if p is not None]
    for path in outputs:
        if not path.name.lower().endswith(endings(planar=False)):
            known = ", ".join(endings(planar=False))
            raise InputError(f"{path}: the ending is not one of {known}; choose one of these.")
    if job.save_transform is not None and job.save_transform.suffix not in (".npz", *ITK_ENDINGS):
        known = ", ".join((".npz", *ITK_ENDINGS))
        raise InputError(f"{job.save_transform}: the ending of a transform is one of {known}; choose one of these.")
    inputs = {p.resolve() for p in (job.source, job.mask, job.to, job.transform) if p is not None}
    every = [p.resolve() for p in (*outputs, job.save_transform) if p is not None]
    for path in every:
        if path in inputs or every.count(path) > 1:
            raise InputError(f"{path}: this output would replace an input or another output; give it another name.")


def _kind_of(path: Path) -> str:
    kind = channel_kind(strip_ending(path.name) or path.name)
    return "mr" if kind == "z" else kind


def _read(job: VolumeJob, kind: str, facts: dict[str, Any]) -> Brain:
    index = {kind: job.volume_index} if job.volume_index is not None else {}
    units = {kind: job.unit} if job.unit else {}
    name = strip_ending(job.source.name) or job.source.name
    case = Case(case=name, subject=name, images={kind: job.source}, channel_index=index, units=units, mask=job.mask)
    try:
        loaded = load_images(case, [kind])
    except InputError as error:
        named = str(error).replace(f"case {name}: ", f"{job.source}: ", 1)
        raise InputError(
            named if str(job.source) in named or str(job.mask) in named else f"{job.source}: {named}"
        ) from (error)
    volume = loaded.image
    if volume.grid.ndim != 3 or min(volume.grid.shape) < 2:
        raise InputError(
            f"{job.source}: the image has {volume.grid.shape} voxels, but preparation needs a volume of two slices or "
            "more along each axis."
        )
    if np.ptp(volume.array) == 0:
        value = float(volume.array.flat[0])
        seen = "is empty" if value == 0 else "shows nothing"
        raise InputError(f"{job.source}: every voxel is {value:g}, so the image {seen}; export the scan again.")
    mask = load_mask(job.mask, volume) if job.mask is not None else foreground_mask(volume.array)
    facts |= {
        "kind": kind,
        "unit": (loaded.units[0] or UNKNOWN) if kind == "adc" else "as stored",
        "mask": {"origin": loaded.origin, "ml": round(float(mask.sum()) * volume.grid.voxel_volume / 1000, 2)},
        "warnings": [*([doubt] if (doubt := orientation_doubt(volume.grid)) else []), *loaded.notes],
    }
    return Brain(volume, mask)


def _atlas(job: VolumeJob, kind: str, unit: str, correction: BiasFieldConfig | None) -> Atlas | None:
    """Return the atlas for the Z map, where one is wanted, once it is known to hold the like of the scan.

    Raises:
        InputError: it cannot be read, holds another channel or unit, its scans had another bias correction, or the
            unit of the scan is not known.
    """
    if job.atlas is None or job.zmap is None:
        return None
    atlas = Atlas.load(job.atlas)
    if kind == "adc" and unit == UNKNOWN:
        raise InputError(
            f"{job.source}: its values are those of no known unit of ADC ({', '.join(UNITS_OF_ADC)}), so they cannot "
            "be compared with an atlas; give --unit."
        )
    try:
        atlas.require(kind, unit)
    except InputError as error:
        told = str(error)
        if job.kind is None and atlas.channel in KINDS and atlas.channel != kind:
            told = told.rstrip(".") + f", or give --kind {atlas.channel} where the image is that, whatever its name."
        raise InputError(f"{job.source}: {told}") from error
    remedy = "leave --bias-field out"
    if atlas.provenance.get("bias_field"):
        remedy = "give --bias-field, and --config with a [prepare.bias_field] of the same settings"
    require_same_correction(atlas, correction, job.atlas, remedy=remedy)
    return atlas


def _corrected(brain: Brain, config: BiasFieldConfig, facts: dict[str, Any]) -> Brain:
    grid = brain.volume.grid
    found = correct_bias_field(Volume(brain.volume.array, upright(grid)), brain.mask, config)
    before, after = (float(v.array[0][brain.mask].mean()) for v in (brain.volume, found.corrected))
    facts["bias_field"] = {
        "log_field_sd": float(found.log_field[brain.mask].std()),
        "mean_before": before,
        "mean_after": after,
    }
    return Brain(Volume(found.corrected.array, grid), brain.mask)


def _to_template(
    job: VolumeJob, brain: Brain, path: Path, config: PrepareConfig, facts: dict[str, Any]
) -> tuple[Brain, Transform]:
    """Return the scan on the template's grid, and the transform that brought it there."""
    if job.transform is not None:
        grid = Atlas.load(path).grid if path.is_dir() else read_grid(path)
        facts["to"] = {"template": str(path), "transform": str(job.transform), "inverse": job.inverse}
        given = _given_transform(job.transform, inverse=job.inverse)
        return through(brain, grid, given), given
    template = _template(path)
    found = align(brain, template, config)
    facts["to"] = {"template": str(path), **{name: _plain(value) for name, value in found.facts.items()}}
    facts["warnings"] += found.warnings
    return through(brain, template.volume.grid, found.transform), found.transform


def _template(path: Path) -> Brain:
    if path.is_dir():
        atlas = Atlas.load(path)
        return Brain(atlas.mean, atlas.inside)
    volume = read_volume(path)
    image = volume.array[:1].astype(np.float32)
    if volume.grid.ndim != 3 or not np.isfinite(image).all() or np.ptp(image) == 0:
        raise InputError(f"{path}: a template has to be a 3-D image of finite numbers that are not all the same.")
    if (told := unlikely_size(volume.grid)) is not None:
        raise GeometryError(f"{path}: {told}")
    return Brain(Volume(image, volume.grid), foreground_mask(image))


def _given_transform(path: Path, *, inverse: bool) -> Transform:
    transform = read_transform(path)
    return transform.inverse() if inverse else transform


def _label(job: VolumeJob, facts: dict[str, Any]) -> None:
    assert job.to is not None and job.transform is not None
    label = read_volume(job.source, volume_index=job.volume_index)
    if not np.isfinite(label.array).all():
        raise InputError(f"{job.source}: the label holds NaN or infinite voxels; correct the file.")
    grid = Atlas.load(job.to).grid if job.to.is_dir() else read_grid(job.to)
    found = label_through(label, grid, _given_transform(job.transform, inverse=job.inverse))
    write_volume(found, job.output)
    to_ml = [float((v.array != 0).sum()) * v.grid.voxel_volume / 1000 for v in (label, found)]
    facts |= {
        "kind": "label",
        "to": {"template": str(job.to), "transform": str(job.transform), "inverse": job.inverse},
        "labelled_ml": {"before": round(to_ml[0], 3), "after": round(to_ml[1], 3)},
        "warnings": [],
        "files": [str(job.output)],
        "grid": {"shape": list(grid.shape), "spacing_mm": [round(s, 5) for s in grid.spacing]},
    }


def _plain(value: Any) -> Any:
    """Return a number as JSON has it; NaN stands for a step that was left out."""
    if isinstance(value, float | np.floating):
        return round(float(value), 5) if np.isfinite(value) else None
    return value
