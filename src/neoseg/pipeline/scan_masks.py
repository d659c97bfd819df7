"""Brain masks that a user gives for new scans, as the column ``mask`` gives them for the cases of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..data.cases import Case
from ..errors import InputError
from ..io import endings, stem_of, strip_ending
from .scan_files import ScanFiles, without_index

__all__ = ["with_masks"]


def with_masks(files: ScanFiles, source: Path | str, channels: Sequence[str]) -> ScanFiles:
    """Give each scan the brain mask of its name.

    The mask of a scan is called as the scan or its file, with or without ``_mask`` behind it; where the scan's name
    ends in a channel (``baby1_adc``) the part before that will do too (``baby1_mask``). Masks that lie among the scans
    need ``_mask``, and are not taken for scans. A scan without one is left as it is.

    Args:
        files: the scans.
        source: a mask file for a single scan, or a folder of masks.
        channels: the channels of the run.

    Raises:
        InputError: nothing is there, no mask belongs to a scan, two belong to one, or one file was given for several
            scans.
    """
    source = Path(source)
    images = {path.resolve() for scan in files.scans for path in scan.images.values()}
    scans = [scan for scan in files.scans if source.resolve() not in {p.resolve() for p in scan.images.values()}]
    found: dict[str, Path] = {}
    if source.is_dir():
        candidates = [p for p in sorted(source.iterdir()) if strip_ending(p.name) and not p.name.startswith(".")]
        for scan in scans:
            if (mask := _mask_of(scan, candidates, images, channels)) is not None:
                found[scan.case] = mask
    elif not source.is_file():
        raise InputError(f"{source}: there is no such file or folder; correct --mask.")
    elif strip_ending(source.name) is None:
        raise InputError(f"{source}: this is no image of a known format ({', '.join(endings())}); correct --mask.")
    elif (count := len(scans) + len(files.incomplete)) > 1:
        raise InputError(
            f"{source}: one mask was given for {count} scans; give a folder that holds one for each, called "
            f"{scans[0].case}_mask and so on."
        )
    elif scans:
        found[scans[0].case] = source
    used = {path.resolve() for path in found.values()}
    scans = [scan for scan in scans if used.isdisjoint(path.resolve() for path in scan.images.values())]
    if not found or not scans:
        first = files.scans[0].case
        raise InputError(f"{source}: no mask here belongs to a scan; call that of {first} {first}_mask.")
    left_out = {name: why for name, why in files.left_out.items() if not any(p.name == name for p in found.values())}
    masked = tuple(replace(scan, mask=found.get(scan.case)) for scan in scans)
    return replace(
        files, scans=without_index(masked, files.number) if len(channels) == 1 else masked, left_out=left_out
    )


def _mask_of(scan: Case, candidates: Sequence[Path], images: set[Path], channels: Sequence[str]) -> Path | None:
    """Return the mask of a scan; its whole name goes before the part without the channel.

    Raises:
        InputError: two files have the same claim.
    """
    files = {stem_of(path.name) or path.stem for path in scan.images.values()} if len(channels) == 1 else set()
    stems = [*sorted(files - {scan.case}), scan.case]
    stems += [
        scan.case[: -len(mark)]
        for mark in (*(f"_{channel}" for channel in channels), "_0000")
        if scan.case.lower().endswith(mark.lower()) and len(scan.case) > len(mark)
    ]
    for stem in stems:
        for name in (f"{stem}_mask", stem):
            here = [p for p in candidates if stem_of(p.name) == name]
            here = [p for p in here if name.endswith("_mask") or p.resolve() not in images]
            if len(here) > 1:
                raise InputError(f"{here[1]}: {here[0].name} is a mask of {scan.case} too; keep one of them.")
            if here and not any(here[0].resolve() == path.resolve() for path in scan.images.values()):
                return here[0]
    return None
