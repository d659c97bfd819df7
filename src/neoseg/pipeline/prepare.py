"""Stage prepare: the atlas of the healthy group, then every patient's physical maps and network array."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..atlas.build import build_atlas
from ..atlas.files import made_with, work_folder
from ..cluster.local import Outcome, run_all, run_each
from ..config import RunConfig
from ..data.cases import Case
from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import load_images, load_label
from ..data.store import CaseStore, digest
from ..errors import ConfigError, InputError
from ..labels import LabelSet
from ..plan.fingerprint import read_facts
from ..prepare.atlas import Atlas
from ..prepare.bias_field import correct_bias_field
from ..prepare.case import Physical, Prepared, physical_maps, prepared_array
from ..prepare.configs import ADC, PrepareConfig, PrepareSettings
from ..prepare.standardise import Template
from ..prepare.volume_steps import require_same_correction
from ..progress import Silent
from ..register.plausible import unlike_the_rest
from ..register.transforms import to_arrays
from ..volume import Volume, upright
from .disk_space import prepared_bytes, require_space
from .prepared import transform_arrays
from .session import Session

__all__ = ["atlas_of", "prepare", "registrations", "standing_out", "template_of"]

LOST_LIMIT = 0.01
"""Share of a label outside the brain above which the report says so."""


def prepare(session: Session) -> dict[str, str]:
    """Prepare every patient that is not prepared yet under the present plan and configuration.

    Returns:
        Case to sentence for the cases that could not be prepared; the others are in ``session.store``.

    Raises:
        InputError: an atlas is needed and the healthy group cannot give one, or no case could be prepared.
    """
    atlas = atlas_of(session) if session.makes_zmap else None
    store, config = session.store, session.config
    keys = {c.case: _key(session, c) for c in session.used}
    missing = [c for c in session.used if not store.has(c.case, keys[c.case])]
    work = partial(
        _prepare_one,
        keys=keys,
        store=store,
        steps=_Steps(config.prepare, session.settings, atlas, template_of(session), session.channels_read),
        labels=session.labels,
    )
    _require_space(session, len(missing))
    outcomes: list[Outcome[None]] = run_each(
        work, missing, title="Preparing cases", progress=session.progress, jobs=config.jobs
    )
    failed = {c.case: o.error for c, o in zip(missing, outcomes, strict=True) if o.error is not None}
    if failed and len(failed) == len(session.used):
        raise InputError(f"No case could be prepared; the first one failed because {next(iter(failed.values()))}")
    return failed


def _require_space(session: Session, cases: int) -> None:
    """Refuse to start when the disk cannot take the prepared cases.

    Raises:
        MachineError: naming what is needed and what is free.
    """
    if session.workspace.fingerprint.is_file():
        facts = read_facts(session.workspace.fingerprint)
        needed = prepared_bytes(facts, session.plan, cases)
        require_space(session.store.folder, needed, f"{cases} prepared cases")


def registrations(session: Session, cases: Sequence[Case]) -> dict[str, dict[str, float]]:
    """Return what is known of the affine registration of the prepared ones among some cases, by case."""
    records = {c.case: session.store.record(c.case) for c in cases if session.store.has_any(c.case)}
    found = {n: {k: v for k, v in r["facts"].items() if k.startswith("affine_")} for n, r in records.items()}
    return {name: facts for name, facts in found.items() if facts}


def standing_out(session: Session) -> list[dict[str, str]]:
    """Return the warnings about cases that were registered unlike the rest of their cohort."""
    found = unlike_the_rest(registrations(session, session.used))
    return [{"text": text, "case": case} for case, sentences in found.items() for text in sentences]


def _key(session: Session, case: Case) -> str:
    return digest(session.digests(case))


def template_of(session: Session) -> Template | None:
    """Return the template of a run in template space: the given one, or the mean of the healthy group's atlas.

    Raises:
        InputError: the given one cannot be read, or the healthy group cannot give one.
    """
    if session.config.prepare.space == "native":
        return None
    given = session.config.template
    if given is None or given.is_dir():
        return Template.of_atlas(atlas_of(session))
    return Template.read(given)


def atlas_of(session: Session) -> Atlas:
    """Return the atlas: the given one, the one that the workspace holds, or a new one of the healthy group.

    Raises:
        InputError: there is no healthy group, it is too small, or the given atlas cannot be used.
        ConfigError: the atlas is configured for another channel than ADC.
    """
    channel = session.config.atlas.channel
    if channel != ADC:
        raise ConfigError(
            f"atlas.channel is {channel!r}, but the atlas of a run is one of {ADC!r}; leave it out, and make atlases "
            "of other images with `neoseg atlas build`."
        )
    given = session.config.template
    if given is not None:
        return _given_atlas(given, session.config)
    folder, key = session.workspace.atlas, session.atlas_key
    if made_with(folder) == key:
        return Atlas.load(folder)
    config = session.config
    if not session.healthy:
        purpose = "a Z map is to be made" if session.makes_zmap else 'prepare.space is "template"'
        raise InputError(
            f"{config.cases}: {purpose}, but no case has group = healthy to build the normal atlas from; add healthy "
            "scans, name an atlas as `template`, or remove this setting."
        )
    correct = partial(_healthy_adc, config=config.prepare)
    read = run_each(correct, session.healthy, title="Reading healthy", progress=session.progress, jobs=config.jobs)
    unread = {c.case: str(o.error) for c, o in zip(session.healthy, read, strict=True) if o.value is None}
    found = [(c.case, o.value) for c, o in zip(session.healthy, read, strict=True) if o.value is not None]
    good = [(name, adc) for name, (adc, _) in found]
    notes = [f"{name}: {note}" for name, (_, told) in found for note in told]

    def each(function: Any, items: Any) -> list[Any]:
        return run_all(function, items, title="Registering", progress=Silent(), jobs=config.jobs)

    work = work_folder(folder)
    atlas = build_atlas(
        [volume for _, volume in good],
        config.atlas,
        names=[name for name, _ in good],
        work=work,
        run_each=each,
        progress=session.progress,
    )
    provenance = {
        **atlas.provenance,
        "key": key,
        "cases": [name for name, _ in good],
        "bias_field": config.prepare.bias_field.model_dump(mode="json") if config.prepare.bias_field else None,
        "failed": unread | atlas.provenance["failed"],
        "warnings": [*(f"{name} is left out: {told}" for name, told in unread.items()), *notes, *atlas.warnings],
    }
    atlas = replace(atlas, provenance=provenance)
    atlas.save(folder)
    shutil.rmtree(work, ignore_errors=True)
    return atlas


def _given_atlas(folder: Path, config: RunConfig) -> Atlas:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: a Z map is to be made, for which `template` has to be the folder of an atlas; give one, or "
            "remove [prepare.zmap]."
        )
    atlas = Atlas.load(folder)
    atlas.require(ADC, config.atlas.unit)
    remedy = "give [prepare.bias_field] the same settings"
    require_same_correction(atlas, config.prepare.bias_field, folder, remedy=remedy)
    return atlas


def _healthy_adc(case: Case, config: PrepareConfig) -> tuple[Volume, tuple[str, ...]]:
    """Return a healthy scan as the atlas takes it, and what there is to say when its brain had to be estimated."""
    loaded = load_images(case, [ADC])
    notes = loaded.notes if loaded.origin == "estimated" else ()
    adc = Volume(loaded.image.array, upright(loaded.image.grid))
    if config.bias_field is None:
        return adc, notes
    return correct_bias_field(adc, foreground_mask(adc.array), config.bias_field).corrected, notes


@dataclass(frozen=True)
class _Steps:
    """What is done to a case, with what."""

    config: PrepareConfig
    settings: PrepareSettings
    atlas: Atlas | None
    template: Template | None
    channels_read: tuple[str, ...]


def _prepare_one(case: Case, *, keys: dict[str, str], store: CaseStore, steps: _Steps, labels: LabelSet) -> None:
    config, settings, template = steps.config, steps.settings, steps.template
    loaded = load_images(case, [c for c in steps.channels_read if c in case.images])
    label = load_label(case, labels, loaded.image) if case.label is not None else None
    try:
        physical = physical_maps(loaded, config, steps.atlas, want=settings.channels, template=template)
        prepared = prepared_array(physical, config, settings, label, template=template)
    except InputError as error:
        raise InputError(f"case {case.case}: {error}") from error
    start, shape = bounding_box(physical.mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    arrays: dict[str, Any] = {
        "image": prepared.image.astype(np.float32, copy=False),
        "physical": physical.image.array[(slice(None), *box)],
        "mask": physical.mask[box].astype(np.uint8),
        **transform_arrays(prepared.transform),
    }
    if prepared.label is not None and label is not None:
        arrays |= {"label": prepared.label, "truth": label.array[0]}
    store.write(case.case, keys[case.case], arrays, _record(physical, prepared, label, labels.count))


def _record(physical: Physical, prepared: Prepared, label: Volume | None, classes: int) -> dict[str, Any]:
    start, shape = bounding_box(physical.mask, margin=1)
    native, grid = physical.image.grid, prepared.space.grid
    to_ml = native.voxel_size
    counts = np.bincount(label.array.reshape(-1), minlength=classes) if label is not None else np.zeros(1)
    return {
        "native": {"shape": list(native.shape), "affine": native.affine.tolist(), "unit": native.unit},
        "box": {"start": list(start), "shape": list(shape)},
        "prepared": {
            "space": "native" if prepared.space.transform is None else "template",
            "shape": list(grid.shape),
            "affine": grid.affine.tolist(),
        },
        "transform": sorted(to_arrays(prepared.transform)) if prepared.transform is not None else [],
        "brain_ml": float(physical.mask.sum() * to_ml),
        "label_ml": [float(n * to_ml) for n in counts[1:]] if label is not None else None,
        "facts": dict(physical.facts),
        "warnings": [*physical.warnings, *prepared.warnings, *_outside(label, physical.mask)],
    }


def _outside(label: Volume | None, mask: NDArray[np.bool_]) -> list[str]:
    """Return a sentence when part of a label lies outside the brain."""
    marked = label.array[0] > 0 if label is not None else np.zeros(1, dtype=np.bool_)
    if not marked.any() or (lost := float(marked[~mask].sum() / marked.sum())) <= LOST_LIMIT:
        return []
    return [f"{100 * lost:.0f} % of the label lies outside the brain, where nothing can be found; check the mask."]
