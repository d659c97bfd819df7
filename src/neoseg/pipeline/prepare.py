"""Stage prepare: the atlas of the healthy group, then every patient's physical maps and network array."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..atlas.build import build_atlas
from ..cluster.local import Outcome, run_all, run_each
from ..data.cases import Case
from ..data.foreground import bounding_box, foreground_mask
from ..data.loading import load_images, load_label
from ..data.store import CaseStore, digest
from ..errors import InputError
from ..labels import LabelSet
from ..prepare.atlas import Atlas
from ..prepare.bias_field import correct_bias_field
from ..prepare.case import Physical, physical_maps, prepared_array
from ..prepare.configs import ADC, PrepareConfig, PrepareSettings
from ..progress import Silent
from ..volume import Grid, Volume, upright
from .session import Session

__all__ = ["prepare"]


def prepare(session: Session) -> dict[str, str]:
    """Prepare every patient that is not prepared yet under the present plan and configuration.

    Returns:
        Case to sentence for the cases that could not be prepared; the others are in ``session.store``.

    Raises:
        InputError: an atlas is needed and the healthy group cannot give one, or no case could be prepared.
    """
    atlas = _atlas(session) if session.makes_zmap else None
    store, config = session.store, session.config
    keys = {c.case: _key(session, c) for c in session.used}
    missing = [c for c in session.used if not store.has(c.case, keys[c.case])]
    work = partial(
        _prepare_one,
        keys=keys,
        store=store,
        config=config.prepare,
        settings=session.settings,
        atlas=atlas,
        labels=session.labels,
    )
    outcomes: list[Outcome[None]] = run_each(
        work, missing, title="Preparing cases", progress=session.progress, jobs=config.jobs
    )
    failed = {c.case: o.error for c, o in zip(missing, outcomes, strict=True) if o.error is not None}
    session.keep_digests()
    if failed and len(failed) == len(session.used):
        raise InputError(f"No case could be prepared; the first one failed because {next(iter(failed.values()))}")
    return failed


def _key(session: Session, case: Case) -> str:
    return digest(session.digests(case))


def _atlas(session: Session) -> Atlas:
    folder, key = session.workspace.atlas, session.atlas_key
    if (folder / "atlas.json").is_file():
        atlas = Atlas.load(folder)
        if atlas.provenance.get("key") == key:
            return atlas
    config = session.config
    if not session.healthy:
        raise InputError(
            f"{config.cases}: a Z map is to be made, but no case has group = healthy to build the normal atlas from; "
            "add healthy scans, give Z images, or remove [prepare.zmap]."
        )
    correct = partial(_healthy_adc, config=config.prepare)
    volumes = run_all(correct, session.healthy, title="Reading healthy", progress=session.progress, jobs=config.jobs)

    def each(function: Any, items: Any) -> list[Any]:
        return run_all(function, items, title="Registering", progress=Silent(), jobs=config.jobs)

    atlas = build_atlas(volumes, config.atlas, run_each=each, progress=session.progress)
    provenance = {**atlas.provenance, "key": key, "cases": [c.case for c in session.healthy]}
    atlas = Atlas(atlas.mean, atlas.sd, atlas.mask, atlas.count, atlas.unit, provenance)
    atlas.save(folder)
    return atlas


def _healthy_adc(case: Case, config: PrepareConfig) -> Volume:
    loaded = load_images(case, [ADC])
    adc = Volume(loaded.image.array, upright(loaded.image.grid))
    if config.bias_field is None:
        return adc
    return correct_bias_field(adc, foreground_mask(adc.array), config.bias_field).corrected


def _prepare_one(
    case: Case,
    *,
    keys: dict[str, str],
    store: CaseStore,
    config: PrepareConfig,
    settings: PrepareSettings,
    atlas: Atlas | None,
    labels: LabelSet,
) -> None:
    present = [c for c in settings.channels if c in case.images]
    source = [*present, *([ADC] if ADC not in present and ADC in case.images else [])]
    loaded = load_images(case, source)
    label = load_label(case, labels, loaded.image) if case.label is not None else None
    try:
        physical = physical_maps(loaded, config, atlas, want=settings.channels)
    except InputError as error:
        raise InputError(f"case {case.case}: {error}") from error
    prepared = prepared_array(physical, config, settings, label)
    start, shape = bounding_box(physical.mask, margin=1)
    box = tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))
    arrays: dict[str, Any] = {
        "image": prepared.image.astype(np.float32, copy=False),
        "physical": physical.image.array[(slice(None), *box)],
        "mask": physical.mask[box].astype(np.uint8),
    }
    if prepared.label is not None and label is not None:
        arrays |= {"label": prepared.label, "truth": label.array[0]}
    store.write(case.case, keys[case.case], arrays, _record(physical, prepared.grid, label, labels.count))


def _record(physical: Physical, grid: Grid, label: Volume | None, classes: int) -> dict[str, Any]:
    start, shape = bounding_box(physical.mask, margin=1)
    native = physical.image.grid
    to_ml = native.voxel_volume / 1000
    counts = np.bincount(label.array.reshape(-1), minlength=classes) if label is not None else np.zeros(1)
    return {
        "native": {"shape": list(native.shape), "affine": native.affine.tolist()},
        "box": {"start": list(start), "shape": list(shape)},
        "prepared": {"shape": list(grid.shape), "affine": grid.affine.tolist()},
        "brain_ml": float(physical.mask.sum() * to_ml),
        "label_ml": [float(n * to_ml) for n in counts[1:]] if label is not None else None,
        "facts": dict(physical.facts),
        "warnings": list(physical.warnings),
    }
