"""An atlas from files: read, check, correct, build, and go on after an interruption."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..atomic import read_json
from ..data.cases import Case
from ..data.foreground import foreground_mask
from ..data.headers import orientation_doubt
from ..data.layouts.files import images_in
from ..data.loading import load_images
from ..data.store import digest
from ..data.units import MICRO, UNITS_OF_ADC, adc_unit, channel_kind
from ..errors import GeometryError, InputError, NeosegError
from ..io import detached_files, endings, read_volume, strip_ending
from ..prepare.atlas import Atlas
from ..prepare.bias_field import BiasFieldConfig, correct_bias_field
from ..progress import Progress
from ..volume import Volume, same_grid, upright
from .build import FEWEST_HEADS, RunEach, build_atlas, serially
from .configs import AtlasConfig
from .memory import installed_version

__all__ = ["HealthyScans", "build_atlas_from_files", "healthy_scans", "made_with", "work_folder"]

LARGEST_REGION = 65535


@dataclass(frozen=True)
class HealthyScans:
    """What an atlas is made from.

    Attributes:
        images: name to file, skull-stripped scans of healthy heads.
        regions: name to file of region labels on the grid of the image; empty: none are carried along.
        bias_field: N4 before anything else; ``None``: none, the scans are taken as they are.
    """

    images: dict[str, Path]
    regions: dict[str, Path]
    bias_field: BiasFieldConfig | None = None


def healthy_scans(
    paths: Sequence[Path], *, regions: Path | None = None, bias_field: BiasFieldConfig | None = None
) -> HealthyScans:
    """Find the scans of a healthy group, and the region labels of the same names.

    Args:
        paths: image files, or folders whose image files are taken.
        regions: a folder of region labels; a label is named as its scan is.
        bias_field: N4 before anything else.

    Raises:
        InputError: a path does not exist, there is no image, two have one name, or no label belongs to a scan.
    """
    images = _named(paths)
    if not images:
        raise InputError(
            f"{', '.join(map(str, paths))}: no image lies here (known endings: {', '.join(endings())}); give the "
            "folder or the files of healthy scans."
        )
    labels = {} if regions is None else {n: p for n, p in _named([regions]).items() if n in images}
    if regions is not None and not labels:
        raise InputError(
            f"{regions}: no label here has the name of a scan, such as {next(iter(images))}; name each label as its "
            "scan."
        )
    return HealthyScans(images, labels, bias_field)


def build_atlas_from_files(
    scans: HealthyScans,
    output: Path,
    config: AtlasConfig | None = None,
    *,
    overwrite: bool = False,
    run_each: RunEach = serially,
    progress: Progress | None = None,
) -> Atlas:
    """Build the atlas of healthy scans and write it into a folder.

    Finished registrations are kept beside the folder until the atlas is written, so the same call goes on where a
    stopped one was; an atlas that is already there and was made from the same files and settings is returned.
    A scan that cannot be used is left out and listed with the reason in the provenance.

    Args:
        scans: see :func:`healthy_scans`.
        output: folder of ``atlas.npz`` and ``atlas.json``.
        config: how it is built; by default ``AtlasConfig()``.
        overwrite: whether another atlas in that folder may be replaced.
        run_each: runs the heads, serially by default; a pool of processes is faster.
        progress: told of each head and round.

    Raises:
        InputError: fewer than 5 scans can be used, or another atlas lies in the folder.
    """
    config = config or AtlasConfig()
    hashes = {name: _hashes(path) for name, path in scans.images.items()}
    region_hashes = {name: _hashes(path) for name, path in scans.regions.items()}
    correction = scans.bias_field.model_dump(mode="json") if scans.bias_field else None
    key = digest([hashes, region_hashes, config.model_dump(mode="json"), correction, installed_version()])
    if (output / "atlas.json").is_file():
        if made_with(output) == key:
            return Atlas.load(output)
        if not overwrite:
            raise InputError(
                f"{output}: another atlas lies here, made from other scans or settings; give another folder, or say "
                "that it may be overwritten (--overwrite)."
            )
    read = list(run_each(partial(_read, scans=scans, config=config), list(scans.images)))
    good = [r for r in read if r.image is not None]
    failed = {r.name: r.error for r in read if r.error is not None}
    if len(good) < FEWEST_HEADS:
        first = f" {next(iter(failed.values()))}" if failed else ""
        raise InputError(
            f"{len(good)} of {len(read)} healthy scans can be used, but an atlas needs {FEWEST_HEADS} or more.{first}"
        )
    atlas = build_atlas(
        [r.image for r in good if r.image is not None],
        config,
        names=[r.name for r in good],
        regions=[r.regions for r in good],
        work=work_folder(output),
        run_each=run_each,
        progress=progress,
    )
    made = dict(atlas.provenance)
    told = [
        *(f"{n} is left out: {e}" for n, e in failed.items()),
        *(f"{r.name}: {note}" for r in good for note in r.notes),
    ]
    made |= {
        "key": key,
        "bias_field": correction,
        "files": {name: {"file": path.name, "sha256": hashes[name]} for name, path in scans.images.items()},
        "region_files": {n: {"file": p.name, "sha256": region_hashes[n]} for n, p in scans.regions.items()},
        "failed": failed | made["failed"],
        "warnings": [*told, *made["warnings"]],
    }
    atlas = replace(atlas, provenance=made)
    atlas.save(output)
    shutil.rmtree(work_folder(output), ignore_errors=True)
    return atlas


def work_folder(output: Path) -> Path:
    """Return where unfinished work lies, beside the folder of the atlas."""
    folder = output.resolve()  # the name of "." is that of the folder where the command is given
    return folder.with_name(f"{folder.name}.work")


@dataclass(frozen=True)
class _Read:
    name: str
    image: Volume | None
    regions: Volume | None
    notes: tuple[str, ...]
    error: str | None


def _read(name: str, *, scans: HealthyScans, config: AtlasConfig) -> _Read:
    """Read one scan set upright, correct it, read its region labels; what goes wrong becomes a sentence."""
    path, channel = scans.images[name], config.channel
    try:
        read = load_images(Case(case=name, subject=name, group="healthy", images={channel: path}), [channel])
        loaded = read.image
        mask = foreground_mask(loaded.array)
        if not mask.any():
            raise InputError(f"{path}: the image holds only zeros; take it out of the group.")
        if channel_kind(channel) == "adc" and adc_unit(float(np.median(loaded.array[0][mask]))) != MICRO:
            raise InputError(
                f"{path}: its median in the brain is that of no known unit of ADC ({', '.join(UNITS_OF_ADC)}); convert "
                "it, or take it out of the group."
            )
        image = Volume(loaded.array, upright(loaded.grid))
        if scans.bias_field is not None:
            image = correct_bias_field(image, mask, scans.bias_field).corrected
    except NeosegError as error:
        return _Read(name, None, None, (), str(error))
    notes = [doubt] if (doubt := orientation_doubt(loaded.grid)) else []
    notes += read.notes if read.origin == "estimated" else ()
    labels = None
    if name in scans.regions:
        try:
            labels = _regions(scans.regions[name], loaded, image)
        except NeosegError as error:
            notes.append(f"its region labels are not used: {error}")
    elif scans.regions:
        notes.append("it has no region labels and no voice in the vote on regions.")
    return _Read(name, image, labels, tuple(notes), None)


def _regions(path: Path, scan: Volume, upright_scan: Volume) -> Volume:
    labels = read_volume(path)
    if not same_grid(labels.grid, scan.grid):
        raise GeometryError(f"{path}: the labels lie on another grid than the scan; resample them onto it first.")
    values = labels.array[:1]
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > LARGEST_REGION or np.any(values % 1):
        raise InputError(f"{path}: region labels are whole numbers from 0 to {LARGEST_REGION}; correct the file.")
    return upright_scan.with_array(values.astype(np.uint16))


def _named(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: there is no such file or folder; correct the path.")
        if path.is_file() and strip_ending(path.name) is None:
            raise InputError(f"{path}: this is no image of a known format ({', '.join(endings())}).")
        inside = images_in(path) if path.is_dir() else {str(strip_ending(path.name)): path}
        for name, file in inside.items():
            if name in found:
                raise InputError(f"{file}: the file {found[name]} has the same name; rename or leave out one of them.")
            found[name] = file
    return found


def made_with(folder: Path) -> str | None:
    """Return the key of the atlas in a folder; None where there is none, it is damaged or was not made here."""
    try:
        return str(read_json(folder / "atlas.json")["provenance"]["key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(path: Path) -> list[str]:
    """Return the SHA-256 of a file and of the files that hold its voxels, where it is a header only."""
    found = []
    for part in (path, *detached_files(path)):
        with part.open("rb") as stream:
            found.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return found
